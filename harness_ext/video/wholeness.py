"""Whether a file ends where it says: one that was cut must not be taken for a shorter film.

MP4, Matroska, WebM and AVI say how long their parts are. A transport stream does not: its first half is a film too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from harness_ext.video.files import Source, UnreadableError

MP4_PARTS: Final = frozenset({b"moov", b"moof", b"mdat"})
"""Boxes that matter; others may be what somebody appended to the file."""
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""The two elements that a Matroska file consists of."""


def refuse_cut_file(source: Source) -> None:
    """Compare the size of a file with what its parts add up to.

    Raises:
        UnreadableError: It is shorter.
    """
    with open(source.path, "rb") as file:
        start = file.read(12)
        if start[:4] == EBML:
            ends = _matroska_ends(file)
        elif start[:4] == b"RIFF" and start[8:] == b"AVI ":
            ends = iter([8 + int.from_bytes(start[4:8], "little")])
        elif start[4:8] == b"ftyp":
            ends = _mp4_ends(file, source.size)
        else:
            return
        end = max(ends, default=0)
    if end > source.size + 1:  # AVI: some count a last byte that makes the length even
        why = f"the file is cut short: it says that it has {end:,} bytes, and has {source.size:,}"
        raise UnreadableError(why, fault="cut_short")


def _mp4_ends(file: BinaryIO, size: int) -> Iterator[int]:
    at = 0
    while at < size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        if length < 8:  # 0: up to the end of the file
            return
        at += length
        if header[4:8] in MP4_PARTS:
            yield at


def _matroska_ends(file: BinaryIO) -> Iterator[int]:
    """The end of the first segment; none where it is not known, as in a live recording."""
    header_end = _element_end(file, 4)
    if header_end is not None:
        file.seek(header_end)
        if file.read(4) == SEGMENT and (end := _element_end(file, header_end + 4)) is not None:
            yield end


def _element_end(file: BinaryIO, at: int) -> int | None:
    """Where the element ends whose length, of one to eight bytes, starts at `at`; None where that is unknown."""
    file.seek(at)
    data = file.read(8)
    if not data or not data[0]:
        return None
    width = 9 - data[0].bit_length()
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(data[:width]) & unknown
    return None if length == unknown else at + width + length
