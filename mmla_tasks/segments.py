"""Clips that are stretches of longer files: ``video/segments.tsv`` names them, the files lie below ``video``.

Columns: ``id``, ``file`` (relative to the folder of the table), ``start_seconds`` (inclusive) and ``end_seconds``
(exclusive). Why a table and no files of their own: docs/decisions/008-imported-segments.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mmla_tasks.errors import DataError
from mmla_tasks.records import Clip
from mmla_tasks.tsv import read_table

SEGMENTS = "segments.tsv"
COLUMNS = ("id", "file", "start_seconds", "end_seconds")


class Segment(NamedTuple):
    """A stretch of a file."""

    file: str
    """Relative to the folder of the table, with ``/`` between its parts."""
    start_seconds: float
    end_seconds: float


def read_segments(folder: Path) -> dict[str, Segment]:
    """The segments of a clip folder by id; none where it has no table.

    Raises:
        DataError: the table has other columns, or lines that say no time or a time twice; all of them at once.
    """
    path = folder / SEGMENTS
    if not path.is_file():
        return {}
    table = read_table(path)
    if tuple(table.columns) != COLUMNS:
        raise _fault(path, f"its columns are {', '.join(table.columns)}; they must be {', '.join(COLUMNS)}")
    segments: dict[str, Segment] = {}
    faults = []
    for line, (id, file, start, end) in zip(table.lines, table.rows, strict=True):
        try:
            segment = Segment(file, float(start), float(end))
        except ValueError:
            segment = Segment(file, math.nan, math.nan)
        if not 0 <= segment.start_seconds < segment.end_seconds < math.inf:
            faults.append(f"line {line}, id {id}: {start} to {end} is no stretch of time")
        if id in segments:
            faults.append(f"line {line}, id {id}: the id stands on an earlier line too")
        segments[id] = segment
    if faults:
        more = [f"and {len(faults) - 10:,} more"] if len(faults) > 10 else []
        raise _fault(path, "\n".join(faults[:10] + more))
    return segments


def write_segments(folder: Path, segments: Mapping[str, Segment]) -> None:
    """Write the table, in order of ids, beside itself first: readers see the old one or the new one."""
    rows = [(id, s.file, repr(s.start_seconds), repr(s.end_seconds)) for id, s in sorted(segments.items())]
    text = "".join("\t".join(row) + "\n" for row in (COLUMNS, *rows))
    aside = folder / f".{SEGMENTS}.new"
    aside.write_text(text, encoding="utf-8", newline="")
    os.replace(aside, folder / SEGMENTS)


def segment_clips(folder: Path) -> dict[str, Clip]:
    """Clip references of all segments by id; nothing is opened but the table.

    Raises:
        DataError: as `read_segments`.
    """
    path = folder / SEGMENTS
    size, mtime_ns = _stat(path)
    segments = {} if size is None else _segments(folder, size, mtime_ns)
    stats = {file: _stat(folder / file) for file in {segment.file for segment in segments.values()}}
    return {
        id: Clip(
            path=os.path.abspath(folder / segment.file),
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            size=stats[segment.file][0],
            mtime_ns=stats[segment.file][1],
        )
        for id, segment in segments.items()
    }


@lru_cache(maxsize=64)
def _segments(folder: Path, _size: int, _mtime_ns: int | None) -> dict[str, Segment]:
    return read_segments(folder)


def _stat(path: Path) -> tuple[int, int] | tuple[None, None]:
    try:
        stat = path.stat()
    except OSError:
        return None, None
    return stat.st_size, stat.st_mtime_ns


def _fault(path: Path, why: str) -> DataError:
    step = "mend the table, or delete it and import the clips again"
    return DataError("the table of segments can't be used", file=path, why=why, next=step)
