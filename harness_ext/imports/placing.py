"""Puts files of a distribution into the clip folders of a data root: whole or not at all, and any number of times.

A file is shared by a hard link where the disk allows it, else copied; never by a symbolic link, which would break when
the original moves. A copy is written beside its place and renamed.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from harness_ext.imports.distributions import Distribution, Piece
from harness_ext.imports.matching import Wanted
from harness_ext.video import is_packed, unpack
from mmla_tasks.errors import ClipError, DataError
from mmla_tasks.segments import Segment, read_segments, write_segments

WHOLE: Final = "whole"
"""Folder below ``video`` for files that hold many utterances."""
_ASIDE: Final = ".importing-"

How = Literal["linked", "copied", "unpacked", "packed", "there", "kept"]
"""What was done for a file. ``packed``: it could not be unpacked, and was shared as it is. ``there``: it was there
before. ``kept``: another video of that name was there before."""


@dataclass
class Placed:
    """What an import did."""

    files: Counter[How] = field(default_factory=Counter)
    kept: list[Path] = field(default_factory=list)
    """Videos of the same names but other content, that were there before and were left alone."""
    packed: dict[Path, str] = field(default_factory=dict)
    """Originals that could not be unpacked, and why; the next import tries again."""

    def add(self, place: Path, how: How) -> None:
        """Note what was done for one place."""
        self.files[how] += 1
        if how == "kept":
            self.kept.append(place)

    def include(self, other: Placed) -> None:
        """Take over what was done for other files."""
        self.files.update(other.files)
        self.kept += other.kept
        self.packed |= other.packed


def targets_of(found: Distribution, wanted: Sequence[Wanted]) -> dict[Path, list[Path]]:
    """Original file -> the places where it goes, one in each dataset that has a row in it."""
    targets: dict[Path, list[Path]] = {}
    for one in wanted:
        for id in one.ids:
            if id in found.pieces:
                piece = found.pieces[id]
                places = targets.setdefault(piece.path, [])
                place = one.dataset.clips / _name_of(id, piece, one)
                if place not in places:
                    places.append(place)
    return targets


def _name_of(id: str, piece: Piece, one: Wanted) -> str:
    if piece.end_seconds is not None:
        return f"{WHOLE}/{piece.path.name}"
    prefix = one.dataset.source.clip_prefix if one.dataset.source else one.dataset.name
    return f"{prefix}_{id}{piece.path.suffix.lower()}"


def place_all(found: Distribution, wanted: Sequence[Wanted], workers: int, on_file: Callable[[], None]) -> Placed:
    """Put every file in its places, then write the tables of segments.

    Args:
        found: What there is.
        wanted: The datasets that want it.
        workers: Files that are copied at once.
        on_file: Called after each original file.

    Raises:
        DataError: another import is at work, a table of segments is damaged, or the disk is full or can't be written.
            What was placed stays, and the same command goes on from there.
    """
    folders = [one.dataset.clips for one in wanted]
    try:
        with _alone_in(folders):
            return _place_all(found, wanted, workers, on_file)
    except OSError as error:
        raise DataError(
            f"a file could not be put into {error.filename2 or error.filename or folders[0]}",
            why=error.strerror or str(error),
            next="make room or mend the disk; the same command goes on from there",
        ) from None


def _place_all(found: Distribution, wanted: Sequence[Wanted], workers: int, on_file: Callable[[], None]) -> Placed:
    targets, tables = targets_of(found, wanted), [read_segments(one.dataset.clips) for one in wanted]
    _check_space(targets)
    placed = Placed()
    try:
        for one_file in _in_parallel(targets, workers):
            placed.include(one_file)
            on_file()
    finally:
        for one, table in zip(wanted, tables, strict=True):
            _write_table(one, found, table, placed.kept)
    return placed


def _in_parallel(targets: Mapping[Path, Sequence[Path]], workers: int) -> Iterator[Placed]:
    """Place every file; an error or an interrupt waits for those at hand and starts no more."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: set[Future[Placed]] = {pool.submit(_place, *item) for item in targets.items()}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _place(original: Path, places: Sequence[Path]) -> Placed:
    """Share one file: the first place gets the original, or what is made of it, the others the first place's."""
    original = original.resolve()
    packed = is_packed(original)
    done = Placed()
    made: Path | None = None
    for place in places:
        how = _found_there(original, place, packed)
        if how is None and made is None and packed:
            how, why = _unpacked(original, place)
            done.packed |= {original: why} if why else {}
        elif how is None:
            how = _share(made or original, place)
        if how != "kept" and made is None:
            made = place
        done.add(place, how)
    return done


def _found_there(original: Path, place: Path, packed: bool) -> How | None:
    """What `place` holds that need not be written again; None where something must be."""
    if not place.exists() or (packed and filecmp.cmp(original, place, shallow=False)):  # left packed at an earlier time
        return None
    if _is_of(original, place, any_size=packed):
        return "there"
    return "kept" if _can_be_read(place) else None


def _unpacked(original: Path, place: Path) -> tuple[How, str | None]:
    """Write the file with a packet for each picture; where that can't be done share it as it is, and say why."""
    try:
        with _aside(place) as aside:
            unpack(original, aside)
            shutil.copystat(original, aside)  # its time tells what it was made of, when the command is repeated
    except ClipError as error:
        _share(original, place)
        return "packed", error.details["why"]
    return "unpacked", None


def _share(source: Path, place: Path) -> How:
    with _aside(place) as aside:
        return _bring(source, aside)


@contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """A name beside `place` to write under; what is there in the end comes into its place, unless something fails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(_ASIDE + place.name)
    aside.unlink(missing_ok=True)
    yield aside
    os.replace(aside, place)
    aside.unlink(missing_ok=True)  # it is still there where both were links to one file


def _bring(source: Path, aside: Path) -> How:
    if _linked(source, aside):
        return "linked"
    shutil.copyfile(source, aside)
    shutil.copystat(source, aside)
    return "copied"


def _linked(source: Path, place: Path) -> bool:
    """Make a hard link, where the disk and the rights allow it."""
    try:
        os.link(source, place)
    except OSError:
        return False
    return True


def _is_of(source: Path, place: Path, *, any_size: bool) -> bool:
    """Whether the file at `place` is `source`, or was made from it as it is now."""
    if place.samefile(source):
        return True
    a, b = source.stat(), place.stat()
    same_time = abs(a.st_mtime - b.st_mtime) <= 2  # some disks know times to two seconds
    return same_time and (any_size or a.st_size == b.st_size)


def _can_be_read(place: Path) -> bool:
    """Whether a video may be somebody's own: a damaged one is only in the way."""
    from harness_ext.video import probe

    try:
        probe(str(place))
    except ClipError:
        return False
    return True


def _check_space(targets: Mapping[Path, Sequence[Path]]) -> None:
    """Refuse to begin what would fill the disk: packed files are written anew, and all where no link can be made."""
    new = {original.resolve(): places[0] for original, places in targets.items()}
    packed = [file for file, place in new.items() if is_packed(file) and _found_there(file, place, True) is None]
    whole = [file for file, place in new.items() if not place.exists() and file not in packed]
    if not (packed or whole):
        return
    folder = new[(packed or whole)[0]].parent
    folder.mkdir(parents=True, exist_ok=True)
    copied = [] if whole and _can_link(whole[0], folder) else whole
    needed, free = sum(file.stat().st_size for file in (*packed, *copied)), shutil.disk_usage(folder).free
    if needed <= free:
        return
    why, next = "packed AVI files are written anew, a packet for each picture", "make room"
    if copied:
        why = "the originals lie on another disk, so they must be copied"
        next = "make room, or put the data root on the disk of the originals: then nothing but packed files is copied"
    raise DataError(
        f"the disk of {folder} has no room for the clips",
        needed=f"{needed:,} bytes: {why}",
        free=f"{free:,} bytes",
        next=next,
    )


def _can_link(file: Path, folder: Path) -> bool:
    aside = folder / f"{_ASIDE}probe"
    aside.unlink(missing_ok=True)
    linked = _linked(file, aside)
    aside.unlink(missing_ok=True)
    return linked


def _write_table(one: Wanted, found: Distribution, table: Mapping[str, Segment], kept: Sequence[Path]) -> None:
    """Add the segments whose files are in place to the dataset's table; others that it has stay."""
    folder = one.dataset.clips
    added: dict[str, Segment] = {}
    for id in one.ids:
        piece = found.pieces.get(id)
        if piece is not None and piece.end_seconds is not None:
            place = folder / WHOLE / piece.path.name
            if place.exists() and place not in kept:
                added[id] = Segment(f"{WHOLE}/{place.name}", piece.start_seconds, piece.end_seconds)
    if added:
        write_segments(folder, {**table, **added})


@contextmanager
def _alone_in(folders: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of all clip folders, and take away what a killed import left half-written."""
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".import.lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise DataError(f"another import is at work in {folder}", next="wait for it") from None
            for left in (*folder.glob(f"{_ASIDE}*"), *folder.glob(f"{WHOLE}/{_ASIDE}*")):
                left.unlink()
        yield
