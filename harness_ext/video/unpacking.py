"""AVI files by DivX may hold two pictures in one packet; here each gets its own, and not a picture is changed.

In such a file no packet tells when its pictures are shown, so a stretch of it could only be read by decoding from
the start. FFmpeg's filter ``mpeg4_unpack_bframes`` takes the pictures apart without decoding them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from harness_ext.video.files import opened, pyav

SLOWEST_BYTES: Final = 2_000_000
"""A second, that a disk reads and writes at least: a file that is written anew takes time by its size."""
_MARK: Final = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:b|Build)\d+p")
"""What the encoder writes of itself into the stream; the ``p`` says packed."""
_HEAD: Final = 1 << 20
"""Bytes in which the mark must stand: it comes with the first picture."""


def is_packed(path: Path) -> bool:
    """Whether the file is an AVI whose packets hold several pictures; its bytes are searched, nothing is parsed."""
    if path.suffix.casefold() != ".avi":
        return False
    with path.open("rb") as file:
        return _MARK.search(file.read(_HEAD)) is not None


def unpack_file(source: str, target: str) -> dict[str, int]:
    """Write `source` as an AVI whose packets hold one picture each, in this process.

    Sounds are copied as they are; those of a kind that FFmpeg doesn't know are left out.

    Returns:
        Nothing, or under ``disk`` the number of the system's error where the disk is at fault.

    Raises:
        UnreadableError: `source` is not a video.
        FFmpegError: FFmpeg can't make sense of it.
    """
    av = pyav()
    try:
        with opened(source) as film, av.open(target, "w", format="avi") as new:
            _copy_unpacked(film, new)
    except av.error.FFmpegError as error:
        if not _is_of_the_disk(error):
            raise
        return {"disk": error.errno}
    return {}


def _is_of_the_disk(error: Any) -> bool:
    """Whether the system gave this error; FFmpeg itself borrows two of its numbers, and has others of its own."""
    return error.errno in errno.errorcode and error.errno not in (errno.EINVAL, errno.ENOMEM)


def _copy_unpacked(film: Any, new: Any) -> None:
    from av.bitstream import BitStreamFilterContext

    old = film.container
    sounds = [sound for sound in old.streams.audio if sound.codec_context is not None]
    streams = {stream.index: new.add_stream_from_template(stream) for stream in (film, *sounds)}
    unpacking = BitStreamFilterContext("mpeg4_unpack_bframes", film, streams[film.index])
    for packet in old.demux(film, *sounds):
        is_video, out = packet.stream.index == film.index, streams[packet.stream.index]
        if packet.size:
            _write(new, out, unpacking.filter(packet) if is_video else [packet])
    _write(new, streams[film.index], unpacking.filter(None))


def _write(new: Any, out: Any, packets: Iterable[Any]) -> None:
    for packet in packets:
        packet.stream = out
        new.mux(packet)
