"""How good a model is while it learns: a seeded, stratified part of dev, ranked and scored as in evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.examples import requests_of
from harness_ext.backends.hf import batch_key
from harness_ext.backends.hf_batch import Prepared
from harness_ext.questions import Skipped, question_of
from harness_ext.requests import Request, Response
from harness_ext.task import LabelFilter
from mmla_tasks.errors import ClipError, DataError
from mmla_tasks.scorers import METRICS, score_document

BATCH = 16
"""Rows that one process asks at once."""


@dataclass(frozen=True)
class Look:
    """One look at dev."""

    step: int
    value: float
    """What is selected by."""
    acc: float
    """Share of right answers over all rows."""
    macro_f1: float
    """Mean over the tasks."""
    tasks: Mapping[str, float]
    """Accuracy of each task."""
    rows: int
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """JSON-plain."""
        return {**vars(self), "tasks": dict(self.tasks)}


def chosen_rows(documents: Mapping[str, Sequence[Any]], rows: int, seed: int) -> dict[str, list[int]]:
    """Draw rows so that every label of every task has nearly its share.

    Args:
        documents: Task -> documents.
        rows: How many, all tasks together; all of them where there are fewer.
        seed: Of the draw.

    Returns:
        Task -> row indices, ascending.
    """
    strata: dict[tuple[str, str], list[int]] = {}
    for task, docs in documents.items():
        for row, document in enumerate(docs):
            strata.setdefault((task, document["label"]), []).append(row)
    counts = shared_out(rows, [len(members) for members in strata.values()])
    chosen: dict[str, list[int]] = {task: [] for task in documents}
    for (task, label), count in zip(strata, counts, strict=True):
        chosen[task] += random.Random(f"{seed}:{task}:{label}").sample(strata[task, label], count)
    return {task: sorted(rows) for task, rows in chosen.items()}


def shared_out(total: int, sizes: Sequence[int]) -> list[int]:
    """Share `total` out in proportion to `sizes`, by largest remainder; none gets more than its size.

    >>> shared_out(4, [6, 3, 1]), shared_out(99, [2, 1])
    ([3, 1, 0], [2, 1])
    """
    everything = sum(sizes)
    if total >= everything:
        return list(sizes)
    counts = [total * size // everything for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(total * sizes[i] % everything), i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


class DevPart:
    """The rows of dev by which checkpoints are compared.

    Args:
        backend: Ranks labels with the model that learns.
        tasks: Leaf name -> task.
        documents: Task -> documents of dev.
        rows: How many of them.
        metric: ``acc`` or ``macro_f1``.
        seed: Of the draw.

    Raises:
        DataError: there is no row.
    """

    def __init__(
        self,
        backend: Any,
        tasks: Mapping[str, Any],
        documents: Mapping[str, Sequence[Any]],
        *,
        rows: int,
        metric: str,
        seed: int,
    ) -> None:
        self.backend, self.tasks, self.metric = backend, tasks, metric
        self.chosen = chosen_rows(documents, rows, seed)
        self.requests: list[Request] = []
        for name, of_task in self.chosen.items():
            self.requests += requests_of(backend, tasks[name], [documents[name][row] for row in of_task])
        asked = [request for request in self.requests if self._is_readable(request)]
        self.skipped = [f"{request.task} id {request.id}" for request in self.requests if request not in asked]
        self.requests = asked
        if not self.requests:
            raise DataError("dev has no row to select a checkpoint by", bad_clips=len(self.skipped) or None)

    def _is_readable(self, request: Request) -> bool:
        """Whether it can be asked; looked at before training, so that every look is at the same rows."""
        skips = request.clip is not None and self.backend.options.on_bad_clip == "skip"
        return not skips or not isinstance(question_of(request, self.backend.frame_policy, "skip"), Skipped)

    def look(self, step: int, ranks: SharedRounds | None = None) -> Look:
        """Answer all rows with the model as it is, and score them."""
        responses = (ranks or SharedRounds()).answer(self.backend, self.requests)
        pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in self.tasks}
        for request, response in zip(self.requests, responses, strict=True):
            pairs[request.task].append(self._pair(request, response))
        scored = {name: some for name, some in pairs.items() if some}
        everything = [pair for some in scored.values() for pair in some]
        right = {name: sum(a == b for a, b in some) / len(some) for name, some in scored.items()}
        acc = sum(a == b for a, b in everything) / len(everything)
        f1s = [METRICS["macro_f1"](some, self.tasks[name].spec.labels) for name, some in scored.items()]
        macro_f1 = sum(f1s) / len(f1s)
        return Look(step, acc if self.metric == "acc" else macro_f1, acc, macro_f1, right, len(everything))

    def _pair(self, request: Request, response: Response) -> tuple[str, str]:
        task = self.tasks[request.task]
        answer = LabelFilter(task.spec.labels, task.spec.dimension, rule=task.parsing_rule).parse(response)
        return score_document(request.gold, answer)


class SharedRounds:
    """Asks in rounds, each of which all processes answer together, a part each, with equally many forward passes.

    Under ZeRO-3 a forward pass gathers weights from all processes: where one makes a pass more, or takes another way
    than the others, all wait forever. So a round's questions share their labels; parts are equally large, filled up
    with questions whose answers are dropped; and all are padded to one length, on which the way of scoring depends.

    Args:
        index: This process.
        count: All of them.
        gather: Gives what each process handed in.
    """

    def __init__(self, index: int = 0, count: int = 1, gather: Callable[[Any], list[Any]] | None = None) -> None:
        self.index, self.count = index, count
        self._gather: Callable[[Any], list[Any]] = gather or (lambda value: [value])

    def answer(self, backend: Any, requests: Sequence[Request]) -> list[Response]:
        """Rank the labels of all requests; every process gives all answers."""
        answers: dict[int, Response] = {}
        for some in rounds(backend, requests, BATCH * self.count):
            for part in self._gather(self._own_part(backend, requests, some)):
                answers.update(part)
        return [answers[n] for n in range(len(requests))]

    def _own_part(self, backend: Any, requests: Sequence[Request], some: Sequence[int]) -> dict[int, Response]:
        """Answer every `count`-th question of a round; a process without one asks the first, for company."""
        own = list(some[self.index :: self.count]) or [some[0]]
        own += own[:1] * (-(-len(some) // self.count) - len(own))
        prepared = [_shown(backend, requests[n]) for n in own]
        longest = max(self._gather(max(one.length for one in prepared)))
        answers: dict[int, Response] = {}
        groups = _alike(prepared)  # some processors stack the clips of a batch
        if any(self._gather(len(groups) > 1)):
            groups = [[place] for place in range(len(prepared))]
        for places in groups:
            ranked = backend.rank_labels([prepared[place] for place in places], longest)
            answers.update((own[place], response) for place, response in zip(places, ranked, strict=True))
        return answers


def _shown(backend: Any, request: Request) -> Prepared:
    prepared: Prepared | Skipped = backend.tensors_of(request)
    if isinstance(prepared, Skipped):
        raise ClipError(f"the clip of {request.task} id {request.id} was there before training and cannot be read now")
    return prepared


def _alike(prepared: Sequence[Prepared]) -> list[list[int]]:
    """Places of questions whose tensors can be laid one behind the other."""
    places: dict[Any, list[int]] = {}
    for place, one in enumerate(prepared):
        places.setdefault(one.shapes, []).append(place)
    return list(places.values())


def rounds(backend: Any, requests: Sequence[Request], size: int) -> list[list[int]]:
    """Indices of requests that are asked together: of equal labels, about equally long."""
    lengths = backend.text_lengths(requests)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for n, request in enumerate(requests):
        alike.setdefault(batch_key(request, "rank"), []).append(n)
    made = []
    for members in alike.values():
        ordered = sorted(members, key=lambda n: -lengths[n])
        made += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return made
