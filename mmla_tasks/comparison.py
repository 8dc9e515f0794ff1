"""Two answerers on the same rows: which is better, by how much, and how sure that is. All values are fractions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.scorers import METRICS
from mmla_tasks.statistics import Interval, bias_corrected, detectable_difference, holm, mcnemar, paired_matrices

LEVEL = 0.05
"""Corrected p-values below it are called significant."""
LEAST_CLUSTERS = 10
"""Of fewer clusters, resamples would say too little about their variation: rows are drawn then."""


class PairedRow(NamedTuple):
    """One row and what both said."""

    gold: str
    first: str
    """A declared label, ``unknown`` or ``multi``."""
    second: str
    cluster: str
    """The dialogue or video that it belongs to; the row's id where that is not known."""


@dataclass(frozen=True)
class PairedTask:
    """The common rows of one task."""

    labels: Sequence[str]
    rows: Sequence[PairedRow]


@dataclass(frozen=True)
class Difference:
    """A score of both, and the second's lead with its 95 % interval."""

    first: float
    second: float
    interval: Interval
    """Of `value`, from the paired bootstrap."""

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class TaskComparison:
    """Both on one task."""

    rows: int
    clusters: int | None
    """Clusters that the bootstrap drew; None where it drew rows."""
    acc: Difference
    macro_f1: Difference
    only_first: int
    """Rows that only the first has right."""
    only_second: int
    p_value: float
    """McNemar's exact test."""
    corrected: float
    """The same, corrected by Holm for the number of tasks."""
    detectable: float | None
    """The least difference that McNemar's test on this task alone would find in 80 % of such runs; None: none."""

    @property
    def is_significant(self) -> bool:
        """Whether one of the two is better on this task, beyond chance."""
        return self.corrected < LEVEL


@dataclass(frozen=True)
class Comparison:
    """Both on all common tasks."""

    tasks: Mapping[str, TaskComparison]
    all_rows: Difference
    """Accuracy, each row alike."""
    mean_of_tasks: Difference
    """Accuracy, each task alike."""
    mean_of_macro_f1: Difference
    """Macro F1, each task alike."""

    @property
    def significant(self) -> list[str]:
        """Tasks on which one of the two is better, beyond chance."""
        return [name for name, task in self.tasks.items() if task.is_significant]


def compare(tasks: Mapping[str, PairedTask], *, draws: int = 1000, seed: int = 0) -> Comparison:
    """Compare two answerers.

    The interval of a difference comes from resamples of the common rows, both answers at once; where several rows
    share a cluster, clusters are drawn instead (at least `LEAST_CLUSTERS` of them). Averages combine the resamples of
    tasks, which are drawn independently of each other. McNemar's test reads rows, not clusters.

    Args:
        tasks: Task -> its common rows; no task without rows.
        draws: Number of resamples.
        seed: Equal seeds give equal intervals.

    Raises:
        ValueError: There is no task, a task has no rows, or a row is outside its labels.
    """
    if not tasks:
        raise ValueError("nothing to compare")
    drawn = {name: _Drawn.of(task, draws, (seed, n)) for n, (name, task) in enumerate(tasks.items())}
    compared = [_compare_task(task, drawn[name]) for name, task in tasks.items()]
    corrected = holm([task.p_value for task in compared])
    return Comparison(
        tasks={name: replace(task, corrected=p) for name, task, p in zip(tasks, compared, corrected, strict=True)},
        all_rows=_of_all_rows(drawn.values()),
        mean_of_tasks=_mean([d.acc for d in drawn.values()]),
        mean_of_macro_f1=_mean([d.macro_f1 for d in drawn.values()]),
    )


Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A score of both [1 + draws]: of the rows themselves, then of their resamples."""


@dataclass(frozen=True)
class _Drawn:
    """Scores of both over the resamples of one task."""

    acc: Scores
    macro_f1: Scores
    sizes: NDArray[np.int64]  # rows of each resample [1 + draws]
    clusters: int | None

    @classmethod
    def of(cls, task: PairedTask, draws: int, seed: Sequence[int]) -> _Drawn:
        golds, first, second, clusters = zip(*task.rows, strict=True) if task.rows else ((), (), (), ())
        count = len(set(clusters))
        clustered = LEAST_CLUSTERS <= count < len(clusters)
        matrices = paired_matrices(
            golds, first, second, task.labels, clusters=clusters if clustered else None, draws=draws, seed=seed
        )
        sizes = matrices[0].sum(axis=(-2, -1))
        return cls(_scores("acc", matrices), _scores("macro_f1", matrices), sizes, count if clustered else None)


def _scores(metric: str, matrices: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Scores:
    first, second = matrices
    return METRICS[metric].of_counts(first), METRICS[metric].of_counts(second)


def _compare_task(task: PairedTask, drawn: _Drawn) -> TaskComparison:
    only_first = sum(row.first == row.gold != row.second for row in task.rows)
    only_second = sum(row.second == row.gold != row.first for row in task.rows)
    p_value = mcnemar(only_first, only_second)
    rows = len(task.rows)
    return TaskComparison(
        rows=rows,
        clusters=drawn.clusters,
        acc=_difference(drawn.acc),
        macro_f1=_difference(drawn.macro_f1),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        corrected=p_value,
        detectable=detectable_difference(rows, (only_first + only_second) / rows, level=LEVEL),
    )


def _difference(scores: Scores) -> Difference:
    first, second = scores
    lead = second - first
    return Difference(float(first[0]), float(second[0]), bias_corrected(float(lead[0]), lead[1:]))


def _mean(scores: Sequence[Scores]) -> Difference:
    first, second = np.mean(np.asarray(scores), axis=0)  # [2, 1 + draws]
    return _difference((first, second))


def _of_all_rows(drawn: Iterable[_Drawn]) -> Difference:
    first, second, rows = np.sum([(d.acc[0] * d.sizes, d.acc[1] * d.sizes, d.sizes) for d in drawn], axis=0)
    return _difference((first / rows, second / rows))
