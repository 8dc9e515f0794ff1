"""How sure a number is, and what knowing nothing would score: intervals, paired tests, baselines; all as fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.records import MULTI, UNKNOWN
from mmla_tasks.scorers import METRICS, BatchStatistic, Labels, Pairs, confusion_counts

Interval = tuple[float, float]
"""Lower and upper end, both inclusive."""

PROPORTIONS = ("acc", "unparsed", "released_acc")
"""Metrics that count rows: they have Wilson's interval, all others the bootstrap's."""


class ClassIntervals(TypedDict):
    """Intervals of the scores of one label."""

    precision: Interval
    recall: Interval
    f1: Interval


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


def metric_intervals(
    pairs: Pairs,
    released: Pairs,
    labels: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Bound every metric of `METRICS`: Wilson for `PROPORTIONS`, the bootstrap for the others.

    Args:
        pairs: (gold, predicted) rows.
        released: The same rows as the released rule parses them.
        labels: The declared labels.
        draws: Number of resamples.
        seed: Equal seeds give equal intervals.
        confidence: Nominal coverage, between 0 and 1.
    """
    given = {False: confusion_counts(pairs, labels), True: confusion_counts(released, labels)}
    resamples = {parse: _resample(counts, draws, seed) for parse, counts in given.items() if counts.any()}
    intervals = {}
    for name, metric in METRICS.items():
        counts, rows = given[metric.released], len(pairs)
        if not rows:
            intervals[name] = (0.0, 1.0)
            continue
        value = float(metric.of_counts(counts))
        intervals[name] = (
            wilson_interval(round(value * rows), rows, confidence)
            if name in PROPORTIONS
            else bias_corrected(value, metric.of_counts(resamples[metric.released]), confidence)
        )
    return intervals


def class_intervals(pairs: Pairs, labels: Sequence[str], confidence: float = 0.95) -> dict[str, ClassIntervals]:
    """Bound precision, recall and F1 of each label by Wilson's interval.

    Of t hits among s rows of the label and q answers that name it, precision is the share t / q and recall t / s. F1
    is 2j / (1 + j) with j = t / (s + q - t), again a share: of the rows that are the label or are answered it. So
    bounds exist also for rare labels without any hit, where resampling would show no variation.
    """
    counts = confusion_counts(pairs, labels)
    intervals = {}
    for i, label in enumerate(labels):
        hits, support, answered = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        low, high = wilson_interval(hits, support + answered - hits, confidence)
        intervals[label] = ClassIntervals(
            precision=wilson_interval(hits, answered, confidence),
            recall=wilson_interval(hits, support, confidence),
            f1=(2 * low / (1 + low), 2 * high / (1 + high)),
        )
    return intervals


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
    all draws are made at once and rows are never touched; their order does not matter.

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
    _two_sided_quantile(confidence)
    counts = confusion_counts(pairs, labels)
    if not counts.any():
        return 0.0, 1.0
    estimate = float(statistic(counts[None])[0])
    return bias_corrected(estimate, statistic(_resample(counts, draws, seed)), confidence)


def bias_corrected(estimate: float, sample: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Bound an estimate by the percentiles of its bootstrap sample, corrected for bias.

    Macro F1 of a resample is biased downwards (rare labels get lost), so the percentiles are shifted by Efron's
    z0 = Φ⁻¹(share of draws below the estimate, ties half): Φ(2 z0 ± z) instead of Φ(±z) (Efron, Canadian J.
    Statistics 9, 1981).

    Args:
        estimate: The number itself.
        sample: The number of every resample [draws].
        confidence: Nominal coverage, between 0 and 1.

    Raises:
        ValueError: Not 0 < confidence < 1.
    """
    z = _two_sided_quantile(confidence)
    # Values that only rounding tells apart from the estimate are ties.
    ties = np.isclose(sample, estimate, rtol=0, atol=1e-12)
    below = float((sample[~ties] < estimate).sum() + ties.sum() / 2) / len(sample)
    # A share of 0 or 1 only says that there were not enough draws to see the other side.
    z0 = NormalDist().inv_cdf(min(max(below, 0.5 / len(sample)), 1 - 0.5 / len(sample)))
    levels = [NormalDist().cdf(2 * z0 - z), NormalDist().cdf(2 * z0 + z)]
    low, high = np.quantile(sample, levels)
    return float(low), float(high)


# ------------------------------------------------------------------------------------------- two answers to each row


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test: how likely so uneven a split of the discordant rows is where neither is better.

    Args:
        only_first: Rows that only the first has right.
        only_second: Rows that only the second has right.

    Returns:
        The two-sided p-value of Binomial(only_first + only_second, 1/2); 1 where no row is discordant.
    """
    if not only_first + only_second:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, Scandinavian J. Statistics 6, 1979), in the given order.

    Called significant below 0.05, all of them together err with at most that probability, dependent or not.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def detectable_difference(rows: int, discordant: float, *, level: float = 0.05, power: float = 0.8) -> float | None:
    """The least true difference of two accuracies that a paired test on so many rows would mostly find.

    Solves n = (z sqrt(d) + w sqrt(d - x²))² / x² for x (Connor, Biometrics 43, 1987), with d the share of discordant
    rows, z the two-sided normal quantile of the level and w that of the power.

    Args:
        rows: Number of rows n.
        discordant: Share of rows that one of the two has right and the other has wrong.
        level: Two-sided level of the test.
        power: Probability of finding the difference, at least 0.5.

    Returns:
        The difference; None where even d, all discordant rows on one side, would be missed too often.
    """
    z, w = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    if not rows or not discordant or rows + w * w < z * z:
        return None
    x = float(discordant**0.5 * (z * rows**0.5 + w * (rows + w * w - z * z) ** 0.5) / (rows + w * w))
    return x if x <= discordant else None


def paired_matrices(
    golds: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    labels: Sequence[str],
    *,
    clusters: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int | Sequence[int] = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrices of two answerers on the same resamples of their common rows.

    Args:
        golds: Gold label of each row.
        first: What the first answered: a declared label, ``unknown`` or ``multi``.
        second: What the second answered.
        labels: The declared labels.
        clusters: Name of each row's cluster. Whole clusters are drawn then, since rows of one dialogue or video are
            not independent. None: rows are drawn.
        draws: Number of resamples.
        seed: Equal seeds give equal resamples.

    Returns:
        Two int64 [1 + draws, K, K + 2]: the rows themselves, then their resamples.

    Raises:
        ValueError: There are no rows, or a name is neither declared nor ``unknown`` nor ``multi``.
    """
    columns = {name: i for i, name in enumerate([*labels, UNKNOWN, MULTI])}
    if not golds or not {*golds, *first, *second} <= columns.keys():
        raise ValueError(f"no rows, or rows outside the declared labels {list(labels)}")
    gold, a, b = (np.array([columns[name] for name in names]) for names in (golds, first, second))
    width = len(columns)
    cells, cell_of_row = np.unique((gold * width + a) * width + b, return_inverse=True)
    drawn = _drawn_cells(cell_of_row, len(cells), clusters, draws, seed)
    shape = (1 + draws, len(labels), width)
    gold_of_cell, answers = np.divmod(cells, width * width)
    a_of_cell, b_of_cell = np.divmod(answers, width)
    return (
        _merged(drawn, gold_of_cell * width + a_of_cell, shape),
        _merged(drawn, gold_of_cell * width + b_of_cell, shape),
    )


def _drawn_cells(
    cell_of_row: NDArray[np.int64], cells: int, clusters: Sequence[str] | None, draws: int, seed: int | Sequence[int]
) -> NDArray[np.int64]:
    """How often each cell occurs [1 + draws, cells]: in the rows themselves, then in each resample."""
    generator = np.random.default_rng(seed)
    counts = np.bincount(cell_of_row, minlength=cells)
    if clusters is None:
        return np.vstack([counts, generator.multinomial(len(cell_of_row), counts / len(cell_of_row), size=draws)])
    names, cluster_of_row = np.unique(np.asarray(clusters), return_inverse=True)
    content = np.zeros((len(names), cells))  # floats: BLAS multiplies no integers
    np.add.at(content, (cluster_of_row, cell_of_row), 1)
    times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.vstack([counts, np.rint(times @ content).astype(np.int64)])


def _merged(drawn: NDArray[np.int64], target: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Add up the cells that share a target: [draws, cells] to matrices of `shape`."""
    order = np.argsort(target, kind="stable")
    targets, starts = np.unique(target[order], return_index=True)
    merged = np.zeros((shape[0], shape[1] * shape[2]), dtype=np.int64)
    merged[:, targets] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return merged.reshape(shape)


# ------------------------------------------------------------------------------------------------- knowing nothing


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
    if draws < 1:
        raise ValueError(f"{draws} draws make no interval")
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
