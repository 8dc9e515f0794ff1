"""A distribution held against the rows of a data root: which rows get a clip, and which not and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_ext.catalogue import Catalogue
from harness_ext.imports.distributions import Distribution
from mmla_tasks.documents import Dataset
from mmla_tasks.errors import ClipError, DataError
from mmla_tasks.sources import SPLITS

if TYPE_CHECKING:
    from harness_ext.video import Probe

SAME_WORDS = 0.5
"""Share of common words from which two transcripts count as those of one utterance."""


@dataclass(frozen=True)
class Wanted:
    """The rows of one dataset folder that want a clip."""

    dataset: Dataset
    splits: Mapping[str, Mapping[str, str]]
    """Split -> id -> text."""

    @property
    def ids(self) -> list[str]:
        """Of all splits, each once."""
        return list({id: None for rows in self.splits.values() for id in rows})


def wanted_of(root: Path, folders: Sequence[str]) -> list[Wanted]:
    """Read the texts of those dataset folders that are there.

    Raises:
        DataError: none is there, or a text file is faulty.
    """
    wanted = [_wanted(root, folder) for folder in folders if any((root / folder).glob("*.tsv"))]
    if not wanted:
        raise DataError(
            f"the data root has no texts of {' or '.join(folders)}: nothing says which clips are wanted",
            root=root,
            next=f"mmla data download {' '.join(folders)} --texts_only --data_dir {root}",
        )
    return wanted


def _wanted(root: Path, folder: str) -> Wanted:
    dataset = Dataset.in_root(root, folder)
    config = next(f.config for f in Catalogue.load().files.values() if f.config.get("dataset") == folder)
    labels, dimension = list(config["labels"]), str(config["dimension"])
    splits = {
        split: {
            document["id"]: document["text"]
            for document in dataset.read(split, labels=labels, dimension=dimension, with_clips=False).documents
        }
        for split in SPLITS
        if dataset.has(split)
    }
    return Wanted(dataset, splits)


def check_lengths(found: Distribution, workers: int, on_file: Callable[[], None]) -> None:
    """Leave out what lies beyond the end of its file or in a file that can't be read; remark what is cut by the end.

    Args:
        found: What was found; changed in place.
        workers: Files that are looked at at once.
        on_file: Called after each file.
    """
    ids: dict[Path, list[str]] = {}
    for id, piece in found.pieces.items():
        if piece.end_seconds is not None:
            ids.setdefault(piece.path, []).append(id)
    with ThreadPoolExecutor(workers) as pool:
        for path, probed in zip(ids, pool.map(_probe, ids), strict=True):
            for id in ids[path]:
                _check_length(found, id, probed)
            on_file()


def files_to_check(found: Distribution) -> int:
    """How many files `check_lengths` will look at."""
    return len({piece.path for piece in found.pieces.values() if piece.end_seconds is not None})


def _check_length(found: Distribution, id: str, probed: Probe | str) -> None:
    piece = found.pieces[id]
    assert piece.end_seconds is not None
    if isinstance(probed, str):
        found.leave_out(id, f"{piece.path.name} can't be read: {probed}")
    elif piece.start_seconds >= probed.end_seconds:
        why = f"starts at {piece.start_seconds:g} s; {piece.path.name} ends at {probed.end_seconds:.3f} s"
        found.leave_out(id, why)
    elif piece.end_seconds > probed.end_seconds + 1 / probed.fps:
        found.remarks[id] = f"ends at {piece.end_seconds:g} s; {piece.path.name} at {probed.end_seconds:.3f} s"


def _probe(path: Path) -> Probe | str:
    """What a file's packets tell, or why it can't be read."""
    from harness_ext.video import probe

    try:
        return probe(str(path))
    except ClipError as error:
        return error.details["why"]


def compared_texts(found: Distribution, wanted: Sequence[Wanted]) -> tuple[int, list[str]]:
    """Hold transcripts against the rows' texts: a wrong numbering would show here.

    Returns:
        How many were compared, and the ids of those that have less than half of their words in common.
    """
    pairs = {
        id: (text, found.texts[id])
        for one in wanted
        for rows in one.splits.values()
        for id, text in rows.items()
        if id in found.texts
    }
    return len(pairs), [id for id, (a, b) in pairs.items() if not _alike(a, b)]


def _alike(a: str, b: str) -> bool:
    own, other = set(_words(a)), set(_words(b))
    return len(own & other) >= SAME_WORDS * len(own | other)


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"\w+", text.casefold().replace("'", "")))
