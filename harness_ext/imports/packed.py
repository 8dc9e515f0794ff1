"""AVI files by DivX may hold two pictures in one packet; here each gets its own, and not a picture is changed.

In such a file no packet tells when its pictures are shown, so a stretch of it could only be read by decoding from
the start. FFmpeg's filter ``mpeg4_unpack_bframes`` takes the pictures apart without decoding them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

_MARK: Final = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:b|Build)\d+p")
"""What the encoder writes of itself into the stream; the ``p`` says packed."""
_HEAD: Final = 1 << 16
"""Bytes of video in which the mark must stand: it comes with the first picture."""


def is_packed(path: Path) -> bool:
    """Whether the file is an AVI whose packets hold several pictures. A file that can't be read is not."""
    import av

    if path.suffix.casefold() != ".avi":
        return False
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                return False
            stream = container.streams.video[0]
            first = next(container.demux(stream), None)
            head = (stream.codec_context.extradata or b"") + (bytes(first)[:_HEAD] if first else b"")
    except av.error.FFmpegError:
        return False
    return _MARK.search(head) is not None


def unpack(source: Path, target: Path) -> None:
    """Write `source` as an AVI whose packets hold one picture each; sound is copied as it is."""
    import av
    from av.bitstream import BitStreamFilterContext

    with av.open(str(source), metadata_errors="replace") as old, av.open(str(target), "w", format="avi") as new:
        video = old.streams.video[0]
        streams: dict[int, Any] = {s.index: new.add_stream_from_template(s) for s in (video, *old.streams.audio)}
        unpacking = BitStreamFilterContext("mpeg4_unpack_bframes", video, streams[video.index])
        for packet in old.demux(video, *old.streams.audio):
            at = packet.stream.index
            if not packet.size:
                continue
            for piece in unpacking.filter(packet) if at == video.index else [packet]:
                piece.stream = streams[at]
                new.mux(piece)
        for piece in unpacking.filter(None):
            piece.stream = streams[video.index]
            new.mux(piece)
