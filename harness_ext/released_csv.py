"""Answers as the released MMLA code writes them: a CSV per dataset with the columns Video, Task, Pred, Label.

``Video`` is a file name such as ``MELD_1153_0.mp4``, ``Task`` a word such as ``dialogue_act``, ``Pred`` the raw answer,
and ``Label`` the gold label, bare or as ``emotion: neutral``.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness_ext.catalogue import TEXT_SUFFIX, Catalogue
from mmla_tasks.documents import CLIP_SUFFIXES
from mmla_tasks.sources import SOURCES

COLUMNS = ("Video", "Task", "Pred", "Label")


@dataclass(frozen=True)
class ReleasedAnswer:
    """One row of such a file."""

    tasks: tuple[str, str]
    """The leaf task that it answers, and its text-only twin: the file does not say what the model was shown."""
    id: str
    response: str
    gold: str
    """The label that the file calls gold, as `comparable`; empty where it names none."""


def is_released_csv(text: str) -> bool:
    """Whether a file starts with the header of such a CSV."""
    header = next(csv.reader([text.split("\n", 1)[0]]), [])
    return set(COLUMNS) <= set(_names(header))


def read_released_csv(text: str) -> Iterator[tuple[int, ReleasedAnswer | str]]:
    """Yield (line that a row ends in, the row, or what is wrong with it).

    Args:
        text: The file's content, line ends as they are.
    """
    leaves = _leaves()
    reader = csv.reader(io.StringIO(text, newline=""))
    at = {name: n for n, name in enumerate(_names(next(reader)))}
    try:
        for cells in reader:
            absent = [name for name in COLUMNS if at[name] >= len(cells)]
            if cells and absent:
                yield reader.line_num, f"lacks {', '.join(absent)}"
            elif cells:
                video, task, response, label = (cells[at[name]] for name in COLUMNS)
                yield reader.line_num, _row(video, task, response, label, leaves)
    except csv.Error as error:
        yield reader.line_num, f"no CSV from here on: {error}"


def _names(header: list[str]) -> list[str]:
    return [name.strip() for name in header]


def _row(video: str, task: str, response: str, label: str, leaves: dict[str, tuple[str, str]]) -> ReleasedAnswer | str:
    found = _dataset_and_id(video)
    if found is None:
        return f"Video {video!r} starts with no dataset's name, as MELD_1153_0.mp4 does"
    dataset, doc_id = found
    leaf, dimension = leaves[dataset]
    if comparable(task) != dimension:
        return f"Task {task!r}, and MMLA asks for the {dimension} of {dataset}"
    return ReleasedAnswer((leaf, leaf + TEXT_SUFFIX), doc_id, response, comparable(label.partition(":")[2] or label))


def comparable(label: str) -> str:
    """A label without what differs between files that mean the same: case, and underscores for spaces."""
    return label.strip().casefold().replace("_", " ")


def _dataset_and_id(video: str) -> tuple[str, str] | None:
    name = video.strip().replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    name = stem if suffix.casefold() in CLIP_SUFFIXES else name
    for source in SOURCES.values():
        for prefix in {source.clip_prefix, source.folder}:
            if found := re.fullmatch(rf"{re.escape(prefix)}_(.+)", name, re.IGNORECASE | re.DOTALL):
                return source.folder, found[1]
    return None


def _leaves() -> dict[str, tuple[str, str]]:
    """Dataset folder -> its leaf task and dimension."""
    catalogue = Catalogue.load()
    configs = {leaf: catalogue.files[leaf].config for leaf in catalogue.leaves("mmla")}
    return {str(config["dataset"]): (leaf, str(config["dimension"])) for leaf, config in configs.items()}


def released_files(folder: Path) -> list[Path]:
    """The CSV files of a folder, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.casefold() == ".csv" and path.is_file())
