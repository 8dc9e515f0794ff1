"""`mmla ls`: tasks and groups as a tree, with what data is there and what to do next. Needs no lm-eval."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness_ext.catalogue import TEXT_SUFFIX, Catalogue, packaged_labels, yaml_folder
from harness_ext.cli.parser import Parser
from harness_ext.session import on_this_root
from harness_ext.taskfile import TaskFile, dataset_beside
from mmla_tasks.documents import Dataset, clip_counts
from mmla_tasks.errors import DataError
from mmla_tasks.places import download_folder
from mmla_tasks.root import SAMPLE_NOTE, DataRoot
from mmla_tasks.sources import SOURCES


@dataclass(frozen=True)
class Holding:
    """What is there of one task's test split."""

    task: str
    dataset: str
    labels: int
    rows: int | None
    """Rows of the file, else of the released one; None when neither is known."""
    texts: bool
    clips: str
    """``all``, ``some``, ``none``, ``not asked`` for a text task, or ``unknown`` where there are no texts."""
    difference: str | None
    """How the row count differs from the released one."""
    next_step: str


def main(arguments: list[str]) -> int:
    """Print the tree."""
    parser = Parser(prog="mmla ls", description=__doc__)
    parser.add_argument("group", nargs="?", default=None, help="a group or task; everything by default")
    parser.add_argument("--data_dir", metavar="PATH", help="data root, or `sample`; else MMLA_DATA_DIR, else the Hub")
    parser.add_argument("--include_path", metavar="FOLDER", action="append", default=[], type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object per task")
    args = parser.parse_args(arguments)
    catalogue = Catalogue.load(args.include_path)
    if args.group:
        catalogue.resolve([args.group])
    root = DataRoot.choose(args.data_dir)
    holdings = {name: _holding(catalogue.files[name], root) for name in _leaves(catalogue, args.group)}
    lines = (
        (json.dumps(asdict(h)) for h in holdings.values())
        if args.json
        else _tree(catalogue, holdings, root, args.group)
    )
    for line in lines:
        print(line)
    return 0


def _leaves(catalogue: Catalogue, group: str | None) -> list[str]:
    if group:
        return catalogue.leaves(group)
    listed = catalogue.leaves("mmla")
    own = [f.name for f in catalogue.files.values() if not f.is_group and not _is_packaged(f)]
    return listed + own


def _is_packaged(file: TaskFile) -> bool:
    return file.path.is_relative_to(yaml_folder())


def _holding(file: TaskFile, root: DataRoot) -> Holding:
    labels, dataset = list(file.config["labels"]), str(file.config["dataset"])
    source = SOURCES.get(dataset)
    known = source.rows["test"] if source else None
    try:
        files = _dataset(file, root)
        split = files.read("test", labels=labels, dimension=str(file.config["dimension"]), with_clips=True)
    except DataError as error:
        return Holding(file.name, dataset, len(labels), known, False, "unknown", None, _first_step(error, root))
    present, missing = clip_counts(split.documents)
    clips = "all" if not missing else "some" if present else "none"
    if file.modality == "text":
        clips = "not asked"
    elif root.is_sample:
        clips = "all"  # drawn when a video task first asks for them
    step = "" if clips in ("all", "not asked") or not source else source.next_step_for_videos
    step = on_this_root(step, root.given if root.origin == "--data_dir" else None)
    difference = None if root.is_sample else split.difference
    return Holding(file.name, dataset, len(labels), len(split.documents), True, clips, difference, step)


def _dataset(file: TaskFile, root: DataRoot) -> Dataset:
    name = str(file.config["dataset"])
    beside = dataset_beside(file.path, name)
    if beside is not None:
        return beside
    if not root.holds(name):
        raise DataError(f"{name} is not here", next=f"mmla data download {name}")
    return root.dataset(name, labels_of=packaged_labels, with_clips=False)


def _first_step(error: DataError, root: DataRoot) -> str:
    return error.what if root.kind == "folder" else error.details.get("next", error.what)


def _tree(catalogue: Catalogue, holdings: dict[str, Holding], root: DataRoot, group: str | None) -> Iterator[str]:
    shown = list(holdings.values())
    known = sum(h.rows or 0 for h in shown)
    texts, clips = sum(h.texts for h in shown), sum(h.clips == "all" for h in shown)
    total, with_clips = len(shown), sum(h.clips != "not asked" for h in shown)
    own = any(not _is_packaged(catalogue.files[h.task]) for h in shown)
    head = group or ("mmla and your tasks" if own else "mmla")
    width = max(len(name) for name in holdings)
    held = f"texts {texts}/{total}   clips {clips}/{with_clips}"
    yield f"{head:<{width + 7}}{total:>2} tasks {known:>8,} test rows   {held}"
    for name, members, last in _groups(catalogue, holdings, group):
        yield f"{'└─' if last else '├─'} {name}"
        for n, member in enumerate(members):
            stem = "   " if last else "│  "
            yield f"{stem}{'└─' if n == len(members) - 1 else '├─'} {_leaf_line(holdings[member], width)}"
    if root.is_sample:
        yield SAMPLE_NOTE
    yield f"Every MMLA name also with {TEXT_SUFFIX}. Data from: {_whence(root)}"


def _groups(
    catalogue: Catalogue, holdings: dict[str, Holding], group: str | None
) -> Iterator[tuple[str, list[str], bool]]:
    """Yield (heading, leaf names, whether it is the last) for each dimension, then for tasks of one's own."""
    by_dimension: dict[str, list[str]] = {}
    for name in holdings:
        by_dimension.setdefault(str(catalogue.files[name].config["dimension"]), []).append(name)
    for n, (dimension, names) in enumerate(by_dimension.items()):
        yield dimension, names, n == len(by_dimension) - 1


def _leaf_line(h: Holding, width: int) -> str:
    rows = "     ?" if h.rows is None else f"{h.rows:>6,}"
    clips = "text only" if h.clips == "not asked" else f"{_CLIP_MARKS[h.clips]} clips"
    marks = f"{'✓' if h.texts else '–'} texts  {clips}"
    aside = "   ".join(part for part in (h.difference, h.next_step) if part)
    return f"{h.task:<{width}} {h.labels:>2} labels {rows} rows   {marks}   {aside}".rstrip()


_CLIP_MARKS: dict[str, Any] = {"all": "✓", "some": "◐", "none": "–", "unknown": "–"}


def _whence(root: DataRoot) -> str:
    return (
        f"{root.given} ({root.origin})"
        if root.kind != "hub"
        else f"the Hub, {root.given}, as downloaded to {download_folder()}"
    )
