"""What train and test have in common, counted before training, so that a score can be read with it.

Two things count. *Text and label*: a train row of the same dimension with the same text and the same label; texts are
compared as read, with the space around them removed and nothing else, labels without regard to case. *Clip*: a train
row, of whatever task, that shows the same clip: the same id in the same recordings (IEMOCAP-DA asks about clips of
IEMOCAP, MELD-DA about clips of MELD), or files with the same bytes, where files are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmla_tasks.errors import DataError
from mmla_tasks.records import Clip, Document
from mmla_tasks.sources import SOURCES

COMPARED = {
    "text_and_label": "same dimension, same text as read (space around it removed), same label without regard to case",
    "clip": "same id in the same recordings, or clip files with the same bytes",
}


@dataclass(frozen=True)
class TaskRows:
    """The rows of one split of one task."""

    task: str
    dataset: str
    dimension: str
    documents: Sequence[Document]


@dataclass(frozen=True)
class Pair:
    """What one task's train split has in common with one task's test split."""

    train: str
    test: str
    test_rows: int
    text_and_label: int
    """Test rows whose text and label stand in train."""
    clip: int
    """Test rows whose clip is shown in train."""
    train_rows: frozenset[int]
    """Indices of the train rows that have either in common with a test row."""


@dataclass(frozen=True)
class Overlap:
    """Every pair of a task that is trained on and a task that is tested."""

    train_rows: Mapping[str, int]
    """Task -> rows of its train split."""
    pairs: Sequence[Pair]

    def overlapping(self, task: str) -> frozenset[int]:
        """Indices of a task's train rows that have text and label, or clip, in common with any test row."""
        return frozenset().union(*(pair.train_rows for pair in self.pairs if pair.train == task))

    def without(self, task: str) -> list[int]:
        """Indices of a task's train rows that have nothing in common with any test row, in order."""
        out = self.overlapping(task)
        return [index for index in range(self.train_rows[task]) if index not in out]

    def left_of(self, train: Mapping[str, Sequence[Document]]) -> dict[str, list[Document]]:
        """The train rows that have nothing in common with any test row.

        Raises:
            DataError: none is left of a task.
        """
        left = {task: [rows[index] for index in self.without(task)] for task, rows in train.items()}
        for task, rows in left.items():
            if not rows:
                raise DataError(
                    f"every train row of {task} stands in test too, so that nothing is left to train on",
                    rows=self.train_rows[task],
                    next="leave the task or exclude_test_overlap out",
                )
        return left

    @property
    def found(self) -> list[Pair]:
        """The pairs that have something in common."""
        return [pair for pair in self.pairs if pair.text_and_label or pair.clip]

    def facts(self, *, excluded: bool) -> dict[str, Any]:
        """Plain values for training.json and results; `harness_ext.training` puts them into words.

        Args:
            excluded: Whether the overlapping train rows were taken out before training.
        """
        tasks = {
            task: {"train_rows": rows, "overlapping": len(self.overlapping(task))}
            for task, rows in self.train_rows.items()
        }
        counts = ("train", "test", "test_rows", "text_and_label", "clip")
        pairs = [
            {name: getattr(pair, name) for name in counts} | {"train_rows": len(pair.train_rows)} for pair in self.found
        ]
        return {"compared": COMPARED, "excluded": excluded, "tasks": tasks, "pairs": pairs}

    def report(self, *, excluded: bool) -> Iterator[str]:
        """Lines to show before training: each pair with its counts, then what is done; none without overlap."""
        out = sum(len(self.overlapping(task)) for task in self.train_rows)
        if not out:
            return
        yield "test rows that stand in train too:"
        width = max(len(f"{pair.test_rows:,}") for pair in self.found)
        for pair in self.found:
            counts = (("same text and label", pair.text_and_label), ("same clip", pair.clip))
            what = ", ".join(f"{count:,} {name}" for name, count in counts if count)
            where = "its own train" if pair.train == pair.test else f"train of {pair.train}"
            yield f"  of {pair.test_rows:>{width},} of {pair.test}, in {where}: {what}"
        rows = f"{out:,} of {sum(self.train_rows.values()):,} train rows"
        yield f"{rows} are left out" if excluded else f"{rows} are trained on; exclude_test_overlap leaves them out"


def overlap(train: Sequence[TaskRows], test: Sequence[TaskRows]) -> Overlap:
    """Compare every task that is trained on with every task that is tested.

    Raises:
        ClipError: A clip file that is there cannot be read.
    """
    same_bytes = _digests([*train, *test])
    pairs = [_pair(of_train, of_test, same_bytes) for of_train in train for of_test in test]
    return Overlap({rows.task: len(rows.documents) for rows in train}, pairs)


def overlap_with_test(tasks: Mapping[str, Any], train: Mapping[str, Sequence[Document]]) -> Overlap:
    """Compare the train rows of tasks with their test splits, as far as these are there.

    Args:
        tasks: Leaf name -> task.
        train: Leaf name -> the rows that would be trained on.
    """

    def rows(name: str, documents: Sequence[Document]) -> TaskRows:
        spec = tasks[name].spec
        return TaskRows(name, spec.dataset, spec.dimension, documents)

    tested = [name for name, task in tasks.items() if task.dataset_files.has("test")]
    return overlap(
        [rows(name, documents) for name, documents in train.items()],
        [rows(name, tasks[name].split("test").documents) for name in tested],
    )


def _pair(train: TaskRows, test: TaskRows, same_bytes: Mapping[str, str]) -> Pair:
    said = _places(train, _said) if train.dimension == test.dimension else {}
    shown = _places_of_clips(train, same_bytes)
    text_and_label = clip = 0
    in_common: set[int] = set()
    for document in test.documents:
        same_words = said.get(_said(document), [])
        same_clips = [index for key in _clip_keys(test.dataset, document, same_bytes) for index in shown.get(key, ())]
        text_and_label += bool(same_words)
        clip += bool(same_clips)
        in_common.update(same_words, same_clips)
    return Pair(train.task, test.task, len(test.documents), text_and_label, clip, frozenset(in_common))


def _said(document: Document) -> tuple[str, str]:
    return document["text"].strip(), document["label"].casefold()


def _places(rows: TaskRows, key_of: Any) -> dict[Any, list[int]]:
    places = defaultdict(list)
    for index, document in enumerate(rows.documents):
        places[key_of(document)].append(index)
    return places


def _places_of_clips(rows: TaskRows, same_bytes: Mapping[str, str]) -> dict[tuple[Any, ...], list[int]]:
    places = defaultdict(list)
    for index, document in enumerate(rows.documents):
        for key in _clip_keys(rows.dataset, document, same_bytes):
            places[key].append(index)
    return places


def _clip_keys(dataset: str, document: Document, same_bytes: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """By each of which two rows show the same clip."""
    source = SOURCES.get(dataset)
    yield (source.recordings if source else dataset), document["id"]
    clip = document["clip"]
    if clip is not None and clip["path"] in same_bytes:
        yield same_bytes[clip["path"]], clip["start_seconds"], clip["end_seconds"]


def _digests(rows: Iterable[TaskRows]) -> dict[str, str]:
    """Path -> SHA-256, of the files that are as long as another file: the others need not be read."""
    from harness_ext.video import clip_digest

    by_size: dict[int, dict[str, tuple[Clip, str]]] = defaultdict(dict)
    for of_task in rows:
        for document in of_task.documents:
            clip = document["clip"]
            if clip is not None and clip["size"]:
                by_size[clip["size"]][clip["path"]] = clip, f"{of_task.task} id {document['id']}"
    alike = [file for files in by_size.values() if len(files) > 1 for file in files.values()]
    return {clip["path"]: clip_digest(clip, who=who) for clip, who in alike}
