"""An interval for every metric: Wilson's for shares of rows, the bias-corrected bootstrap for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.records import MULTI, UNKNOWN
from mmla_tasks.scorers import METRICS, ClassArrays, Pairs, class_arrays
from mmla_tasks.statistics import BatchStatistic, Interval, bootstrap_interval, wilson_interval

DRAWS = 1000


def metric_intervals(
    pairs: Pairs, released: Pairs, labels: list[str], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Bound every metric of `METRICS` at 95 %.

    Args:
        pairs: (gold, parsed label) of every scored row.
        released: The same rows with what the released rule parses.
        labels: The declared labels.
        draws: Resamples of each bootstrap interval.
        seed: Equal seeds give equal intervals.
    """
    return {
        name: _interval(name, released if metric.released else pairs, labels, draws, seed)
        for name, metric in METRICS.items()
    }


def _interval(name: str, pairs: Pairs, labels: list[str], draws: int, seed: int) -> Interval:
    if name == "unparsed":
        return wilson_interval(sum(answer in (UNKNOWN, MULTI) for _, answer in pairs), len(pairs))
    if name in ("acc", "released_acc"):
        return wilson_interval(sum(gold == answer for gold, answer in pairs), len(pairs))
    return bootstrap_interval(pairs, labels, _STATISTICS[name], draws=draws, seed=seed)


def _macro(column: Callable[[ClassArrays], NDArray[np.float64]]) -> BatchStatistic:
    """Mean over the declared labels."""
    return lambda counts: column(class_arrays(counts)).mean(axis=-1)


def _weighted(column: Callable[[ClassArrays], NDArray[np.float64]]) -> BatchStatistic:
    """Mean over rows, each with the score of its gold label; `unknown` and `multi` are no gold label of any."""

    def statistic(counts: NDArray[Any]) -> NDArray[np.float64]:
        scores = class_arrays(counts)
        total: NDArray[np.float64] = (column(scores) * scores.support).sum(axis=-1) / scores.support.sum(axis=-1)
        return total

    return statistic


def _released_macro(column: Callable[[ClassArrays], NDArray[np.float64]]) -> BatchStatistic:
    """Mean over the classes that occur in gold or answers, `unknown` and `multi` among them with a score of 0."""

    def statistic(counts: NDArray[Any]) -> NDArray[np.float64]:
        answered = counts.sum(axis=-2)
        there = answered > 0
        there[..., : counts.shape[-2]] |= counts.sum(axis=-1) > 0
        means: NDArray[np.float64] = column(class_arrays(counts)).sum(axis=-1) / there.sum(axis=-1)
        return means

    return statistic


_COLUMNS: dict[str, Callable[[ClassArrays], NDArray[np.float64]]] = {
    "f1": lambda scores: scores.f1,
    "precision": lambda scores: scores.precision,
    "recall": lambda scores: scores.recall,
}
_STATISTICS: dict[str, BatchStatistic] = {
    **{f"macro_{name}": _macro(column) for name, column in _COLUMNS.items()},
    **{f"released_{name}": _released_macro(column) for name, column in _COLUMNS.items()},
    "weighted_f1": _weighted(_COLUMNS["f1"]),
    "weighted_precision": _weighted(_COLUMNS["precision"]),
    "released_wf1": _weighted(_COLUMNS["f1"]),
    "released_wp": _weighted(_COLUMNS["precision"]),
}
"""Metric -> the same number from a batch of confusion matrices."""
