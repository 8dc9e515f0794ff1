"""How sure a number is, and what knowing nothing would score: intervals and baselines. All values are fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.scorers import Labels, Pairs, class_arrays, confusion_counts

Interval = tuple[float, float]
"""Lower and upper end, both inclusive."""

BatchStatistic = Callable[[NDArray[Any]], NDArray[np.float64]]
"""From confusion matrices [draws, K, K + 2] (columns: the labels, `unknown`, `multi`) to one number each [draws]."""


class Baseline(TypedDict):
    """What an answerer that never looks at the question would score on the same rows."""

    accuracy: float
    macro_f1: float
    """Over the declared labels, as `mmla_tasks.scorers.macro_f1`."""
    label: str | None
    """The label that is always answered; None when it is drawn."""


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else float("nan")


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Bound a proportion by Wilson's score interval (JASA 22, 1927).

    With p = correct / n and z the two-sided normal quantile: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Args:
        correct: Rows that were right.
        n: Rows in all; with 0 nothing is known and the interval is (0, 1).
        confidence: Nominal coverage, between 0 and 1.

    Raises:
        ValueError: Not 0 <= correct <= n, or not 0 < confidence < 1.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} rows cannot be right")
    z = _two_sided_quantile(confidence)
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    middle = p + z * z / (2 * n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    divisor = 1 + z * z / n
    # At the ends the formula gives 0 and 1 exactly; rounding must not.
    low = 0.0 if correct == 0 else (middle - half) / divisor
    high = 1.0 if correct == n else (middle + half) / divisor
    return low, high


def bootstrap_macro_f1_interval(
    pairs: Pairs, labels: Labels, draws: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Bound macro F1 over the declared labels, see `bootstrap_interval`."""
    return bootstrap_interval(pairs, labels, macro_f1_of, draws=draws, seed=seed, confidence=confidence)


def bootstrap_interval(
    pairs: Pairs,
    labels: Labels,
    statistic: BatchStatistic,
    *,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bound any number that a confusion matrix determines, by the bias-corrected percentile bootstrap.

    Drawing n rows with replacement and counting them is one multinomial draw of the cells of the confusion matrix, so
    all draws are made at once and rows are never touched; their order does not matter. Macro F1 of a resample is biased
    downwards (rare labels get lost), so the percentiles are shifted by Efron's z0 = Φ⁻¹(share of draws below the
    estimate, ties half): Φ(2 z0 ± z) instead of Φ(±z) (Efron, Canadian J. Statistics 9, 1981).

    Without any variation, as when every answer is right, the interval is the estimate itself; of no rows it is (0, 1).

    Args:
        pairs: (gold, predicted) rows.
        labels: The declared labels.
        statistic: From a batch of confusion matrices to numbers.
        draws: Number of resamples.
        seed: Equal seeds give equal intervals.
        confidence: Nominal coverage, between 0 and 1.

    Raises:
        ValueError: A pair is outside the labels, `draws` is not positive, or not 0 < confidence < 1.
    """
    z = _two_sided_quantile(confidence)
    if draws < 1:
        raise ValueError(f"{draws} draws make no interval")
    counts = confusion_counts(pairs, labels)
    if not counts.any():
        return 0.0, 1.0
    estimate = float(statistic(counts[None])[0])
    sample = statistic(_resample(counts, draws, seed))
    below = float((sample < estimate).mean() + (sample == estimate).mean() / 2)
    # A share of 0 or 1 only says that there were not enough draws to see the other side.
    z0 = NormalDist().inv_cdf(min(max(below, 0.5 / draws), 1 - 0.5 / draws))
    levels = [NormalDist().cdf(2 * z0 - z), NormalDist().cdf(2 * z0 + z)]
    low, high = np.quantile(sample, levels)
    return float(low), float(high)


def macro_f1_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Macro F1 of each confusion matrix [..., K, K + 2]: mean over the K labels."""
    means: NDArray[np.float64] = class_arrays(counts).f1.mean(axis=-1)
    return means


def majority_baseline(golds: Sequence[str], labels: Sequence[str]) -> Baseline:
    """Score the answerer who always gives the most frequent label of these rows (the first declared one on a tie).

    With p its share: accuracy p; its F1 is 2p / (1 + p) (precision p, recall 1), every other label's is 0.
    """
    shares = _shares(golds, labels)
    if not golds:
        return Baseline(accuracy=float("nan"), macro_f1=float("nan"), label=None)
    label = max(labels, key=shares.__getitem__)
    p = shares[label]
    return Baseline(accuracy=p, macro_f1=2 * p / (1 + p) / len(labels), label=label)


def prior_baseline(golds: Sequence[str], labels: Sequence[str]) -> Baseline:
    """Score the answerer who draws label i with its share p_i of these rows, whatever the question.

    The expected accuracy is sum p_i². Of n rows, n p_i² are expected to be hits of label i, n p_i are answered i and
    n p_i are i; F1 of these expected counts is 2 n p_i² / (n p_i + n p_i) = p_i, which differs from the expected F1 by
    O(1/n). The shares add up to 1, so macro F1 is 1 / (number of declared labels).
    """
    shares = _shares(golds, labels)
    if not golds:
        return Baseline(accuracy=float("nan"), macro_f1=float("nan"), label=None)
    return Baseline(accuracy=sum(p * p for p in shares.values()), macro_f1=mean(shares.values()), label=None)


def _resample(counts: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.int64]:
    """Draw confusion matrices [draws, K, K + 2] with the same number of rows as `counts` [K, K + 2]."""
    cells = np.flatnonzero(counts)
    filled = counts.reshape(-1)[cells]
    rows = int(filled.sum())
    drawn = np.random.default_rng(seed).multinomial(rows, filled / rows, size=draws)
    batch = np.zeros((draws, counts.size), dtype=np.int64)
    batch[:, cells] = drawn
    return batch.reshape(draws, *counts.shape)


def _shares(golds: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    counts = Counter(golds)
    if strange := sorted(set(counts) - set(labels)):
        raise ValueError(f"gold labels {strange} are outside the declared labels {list(labels)}")
    return {label: counts[label] / len(golds) if golds else 0.0 for label in labels}


def _two_sided_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
