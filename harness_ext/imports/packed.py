"""AVI files by DivX may hold two pictures in one packet; here each gets its own, and not a picture is changed.

In such a file no packet tells when its pictures are shown, so a stretch of it could only be read by decoding from
the start. FFmpeg's filter ``mpeg4_unpack_bframes`` takes the pictures apart without decoding them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

_MARK: Final = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:b|Build)\d+p")
"""What the encoder writes of itself into the stream; the ``p`` says packed."""
_HEAD: Final = 1 << 20
"""Bytes in which the mark must stand: it comes with the first picture."""


def is_packed(path: Path) -> bool:
    """Whether the file is an AVI whose packets hold several pictures."""
    if path.suffix.casefold() != ".avi":
        return False
    with path.open("rb") as file:
        return _MARK.search(file.read(_HEAD)) is not None


def unpack(source: Path, target: Path) -> bool:
    """Write `source` as an AVI whose packets hold one picture each; sound is copied as it is.

    Returns:
        False where FFmpeg can't make sense of the file; there is no `target` then.
    """
    import av

    try:
        with av.open(str(source), metadata_errors="replace") as old, av.open(str(target), "w", format="avi") as new:
            _copy_unpacked(old, new)
    except av.error.FFmpegError:
        target.unlink(missing_ok=True)
        return False
    return True


def _copy_unpacked(old: Any, new: Any) -> None:
    from av.bitstream import BitStreamFilterContext

    video, sounds = old.streams.video[0], old.streams.audio
    streams = {stream.index: new.add_stream_from_template(stream) for stream in (video, *sounds)}
    unpacking = BitStreamFilterContext("mpeg4_unpack_bframes", video, streams[video.index])
    for packet in old.demux(video, *sounds):
        is_video, out = packet.stream.index == video.index, streams[packet.stream.index]
        if packet.size:
            _write(new, out, unpacking.filter(packet) if is_video else [packet])
    _write(new, streams[video.index], unpacking.filter(None))


def _write(new: Any, out: Any, packets: Iterable[Any]) -> None:
    for packet in packets:
        packet.stream = out
        new.mux(packet)
