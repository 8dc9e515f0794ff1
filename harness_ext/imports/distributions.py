"""What an original distribution holds, in words that its layout no longer matters to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmla_tasks.errors import DataError

DEPTH = 9
"""Folders that are looked through below the one that was named."""


@dataclass(frozen=True)
class Piece:
    """Where an utterance is: a stretch of a file, or a whole file."""

    path: Path
    start_seconds: float = 0.0
    end_seconds: float | None = None
    """None for a whole file."""


@dataclass
class Distribution:
    """What was found for the ids that were asked for."""

    folder: Path
    """Where the distribution begins, which may lie above or below the folder that was named."""
    holds: str
    """What is there, such as ``151 dialogues, times of 10,039 utterances``."""
    pieces: dict[str, Piece] = field(default_factory=dict)
    """By id."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why an id has no piece."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What is odd about an id that has one."""
    texts: dict[str, str] = field(default_factory=dict)
    """The distribution's own transcripts, by id, as far as it has them."""
    unused: list[Path] = field(default_factory=list)
    """Video files that no id that was asked for is in."""

    def leave_out(self, id: str, why: str) -> None:
        """Take the piece of an id away."""
        del self.pieces[id]
        self.faults[id] = why


Reader = Callable[[Path, Collection[str], Collection[Path]], Distribution]
"""Reads the distribution in or around a folder, for the ids that are wanted, without looking into some folders."""


def top_of(path: Path, inner: re.Pattern[str]) -> Path:
    """Climb from `path` as long as its name is one of the `inner` folders of the layout.

    Raises:
        DataError: `path` is not a folder.
    """
    path = path.expanduser().absolute()
    if path.is_file():
        raise DataError(f"{path} is a file", next="extract the archive, and name the folder that comes out of it")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder", next="name the folder of the distribution")
    while inner.fullmatch(path.name):
        path = path.parent
    return path


def files_below(top: Path, *, skip: Collection[str] = (), without: Collection[Path] = ()) -> Iterator[Path]:
    """Every file down to `DEPTH` folders, in order; links to folders are followed, but not back or above the top.

    Args:
        top: Where to begin.
        skip: Names of folders that are left out, as hidden ones are.
        without: Folders that are left out.
    """
    real_top, left_out = top.resolve(), {folder.resolve() for folder in without}
    entered: set[Path] = set()

    def enters(folder: Path) -> bool:
        real = folder.resolve()
        if real in left_out or (folder.is_symlink() and (real in entered or real_top.is_relative_to(real))):
            return False
        entered.add(real)
        return True

    for folder, folders, files in os.walk(top, followlinks=True):
        depth = len(Path(folder).relative_to(top).parts)
        kept = (name for name in sorted(folders) if depth < DEPTH and name not in skip and not name.startswith("."))
        folders[:] = [name for name in kept if enters(Path(folder, name))]
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def one_of(paths: Iterable[Path]) -> Path | None:
    """The first of several files that hold the same bytes; None when they differ, or there are none."""
    paths = list(paths)
    same = all(_same_bytes(paths[0], other) for other in paths[1:])
    return paths[0] if paths and same else None


def _same_bytes(a: Path, b: Path) -> bool:
    import filecmp

    return filecmp.cmp(a, b, shallow=False)


def nothing_found(name: str, top: Path, looked_for: str, step: str) -> DataError:
    """The error for a folder that holds no such distribution."""
    there = sorted(entry.name for entry in top.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8:,} more" if len(there) > 8 else "")
    return DataError(f"no {name} in {top}", looked_for=looked_for, there=shown or "nothing", next=step)


def counted(mapping: Mapping[str, object] | Collection[object], word: str) -> str:
    """Such as ``151 dialogues``."""
    count = len(mapping)
    return f"{count:,} {word}{'s' * (count != 1)}"
