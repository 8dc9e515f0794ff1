"""From (gold, predicted) pairs to numbers. Every metric is a pure function of pairs and labels, a fraction from 0 to 1.

Metrics come in two families that read an answer differently (`score_document`):

- over the **declared labels**: macro averages divide by the number of declared labels, also of those that are neither
  in the gold column nor predicted (each gives 0, as sklearn does with ``labels=declared, zero_division=0``). So one
  number means the same on every subset of rows, and on a small `--limit` it is low rather than flattering. `unknown`
  and `multi` are wrong answers, not classes.
- **released**, as the published code computes them (src/Zero-shot_Inference/eval.py): sklearn on lower-cased strings
  over the classes that occur in gold or predictions, where `unknown` and `multi` are classes that score 0.

With t_i rows of class i answered i, s_i rows of class i and q_i rows answered i: precision P_i = t_i / q_i, recall
R_i = t_i / s_i, F1_i = 2 t_i / (q_i + s_i), each 0 when its divisor is 0. Macro is the mean over classes, weighted the
mean with weights s_i. Nothing measured, that is no rows, is NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.records import MULTI, UNKNOWN, Answer, Outcome

Pair = tuple[str, str]
"""(gold label, predicted label, `unknown` or `multi`)."""
Pairs = Sequence[Pair]
Labels = Sequence[str] | None
"""The declared labels. None stands for the distinct gold labels: lm-eval's own aggregations hand over pairs only."""

MetricFunction = Callable[[Pairs, Labels], float]
BatchStatistic = Callable[[NDArray[Any]], NDArray[np.float64]]
"""From confusion matrices [..., K, K + 2] (columns: the labels, `unknown`, `multi`) to one number each [...]."""


@dataclass(frozen=True)
class Metric:
    """One column of the results."""

    name: str
    function: MetricFunction
    of_counts: BatchStatistic
    """The same number from confusion matrices of many rows, for resampling; rows must be there."""
    higher_is_better: bool
    released: bool
    """Whether it reads pairs of the released parse (``score_document(..., released=True)``)."""

    def __call__(self, pairs: Pairs, labels: Labels = None) -> float:
        """Reduce pairs to the number."""
        return self.function(pairs, labels)


class ClassScores(TypedDict):
    """Scores of one label."""

    precision: float
    recall: float
    f1: float
    support: int
    """Rows whose gold label it is."""


class ConfusionMatrix(TypedDict):
    """Counts of gold labels (rows) by answers (columns)."""

    rows: list[str]
    """The declared labels."""
    columns: list[str]
    """The declared labels, then `unknown` and `multi`."""
    counts: list[list[int]]


@dataclass(frozen=True)
class ClassArrays:
    """Scores of K classes, for one confusion matrix or a batch of them."""

    precision: NDArray[np.float64]  # [..., K]
    recall: NDArray[np.float64]  # [..., K]
    f1: NDArray[np.float64]  # [..., K]
    support: NDArray[np.float64]  # [..., K]


# ---------------------------------------------------------------------------------------------- one document


def score_document(gold: str, answer: Answer, *, released: bool = False) -> Pair:
    """Return what a document adds to the corpus numbers.

    Args:
        gold: The document's label.
        answer: Its parsed answer.
        released: For metrics with `Metric.released`: take what the released rule parses.
    """
    return gold, answer.released if released else str(answer)


def outcome_counts(answers: Iterable[Answer]) -> dict[Outcome, int]:
    """Count answers by outcome; every outcome is named, those that did not occur with 0."""
    counts = Counter(answer.outcome for answer in answers)
    return {outcome: counts[outcome] for outcome in get_args(Outcome)}


# ------------------------------------------------------------------------------------------------- the corpus


def confusion_counts(pairs: Pairs, labels: Labels = None) -> NDArray[np.int64]:
    """Count pairs.

    Returns:
        int64 [K, K + 2]: rows are gold labels; columns are the labels, `unknown`, `multi`.

    Raises:
        ValueError: A gold label is not declared, or a prediction is neither declared nor `unknown` nor `multi`.
    """
    names = _declared(pairs, labels)
    column = {name: i for i, name in enumerate([*names, UNKNOWN, MULTI])}
    counts = np.zeros((len(names), len(names) + 2), dtype=np.int64)
    for (gold, predicted), n in Counter(pairs).items():
        row = column.get(gold, len(names))
        if row >= len(names) or predicted not in column:
            raise ValueError(f"pair ({gold!r}, {predicted!r}) is outside the declared labels {names}")
        counts[row, column[predicted]] += n
    return counts


def class_arrays(counts: NDArray[Any]) -> ClassArrays:
    """Score every class of one confusion matrix, or of a batch.

    Args:
        counts: [..., K, M] with M >= K: rows are gold classes, the first K columns the same classes in the same order.
    """
    classes = counts.shape[-2]
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    support = counts.sum(axis=-1).astype(np.float64)
    answered = counts[..., :classes].sum(axis=-2).astype(np.float64)
    return ClassArrays(
        precision=_ratio(hits, answered),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, answered + support),
        support=support,
    )


def per_class(pairs: Pairs, labels: Labels = None) -> dict[str, ClassScores]:
    """Score each declared label, in the declared order."""
    names = _declared(pairs, labels)
    scores = class_arrays(confusion_counts(pairs, names))
    return {
        name: ClassScores(
            precision=float(scores.precision[i]),
            recall=float(scores.recall[i]),
            f1=float(scores.f1[i]),
            support=int(scores.support[i]),
        )
        for i, name in enumerate(names)
    }


def confusion_matrix(pairs: Pairs, labels: Labels = None) -> ConfusionMatrix:
    """Count gold labels by answers, ready for JSON."""
    names = _declared(pairs, labels)
    counts = confusion_counts(pairs, names).tolist()
    return ConfusionMatrix(rows=names, columns=[*names, UNKNOWN, MULTI], counts=counts)


# ------------------------------------------------------------------------- metrics over the declared labels


def accuracy(pairs: Pairs, labels: Labels = None) -> float:
    """Share of rows whose answer is the gold label."""
    return sum(gold == predicted for gold, predicted in pairs) / len(pairs) if pairs else float("nan")


def unparsed(pairs: Pairs, labels: Labels = None) -> float:
    """Share of rows without exactly one label: `unknown` or `multi`."""
    return sum(predicted in (UNKNOWN, MULTI) for _, predicted in pairs) / len(pairs) if pairs else float("nan")


def macro_f1(pairs: Pairs, labels: Labels = None) -> float:
    """Mean F1 over the declared labels."""
    return _clean(macro_of, "f1", pairs, labels)


def macro_precision(pairs: Pairs, labels: Labels = None) -> float:
    """Mean precision over the declared labels."""
    return _clean(macro_of, "precision", pairs, labels)


def macro_recall(pairs: Pairs, labels: Labels = None) -> float:
    """Mean recall over the declared labels."""
    return _clean(macro_of, "recall", pairs, labels)


def weighted_f1(pairs: Pairs, labels: Labels = None) -> float:
    """F1 averaged with the number of gold rows as weight."""
    return _clean(weighted_of, "f1", pairs, labels)


def weighted_precision(pairs: Pairs, labels: Labels = None) -> float:
    """Precision averaged with the number of gold rows as weight."""
    return _clean(weighted_of, "precision", pairs, labels)


# ------------------------------------------------------------------- metrics as the released code has them


def released_acc(pairs: Pairs, labels: Labels = None) -> float:
    """Share of rows whose lower-cased answer is the lower-cased gold label (published as ACC)."""
    return accuracy(_lower(pairs))


def released_f1(pairs: Pairs, labels: Labels = None) -> float:
    """Mean F1 over the classes in gold or predictions (published as F1)."""
    return _released(macro_of, "f1", pairs)


def released_precision(pairs: Pairs, labels: Labels = None) -> float:
    """Mean precision over the classes in gold or predictions (published as Precision)."""
    return _released(macro_of, "precision", pairs)


def released_recall(pairs: Pairs, labels: Labels = None) -> float:
    """Mean recall over the classes in gold or predictions (published as Recall)."""
    return _released(macro_of, "recall", pairs)


def released_wf1(pairs: Pairs, labels: Labels = None) -> float:
    """F1 averaged with the number of gold rows as weight (published as WF1)."""
    return _released(weighted_of, "f1", pairs)


def released_wp(pairs: Pairs, labels: Labels = None) -> float:
    """Precision averaged with the number of gold rows as weight (published as WP)."""
    return _released(weighted_of, "precision", pairs)


# ----------------------------------------------------------------------------- the same from confusion matrices


def accuracy_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Share of hits of each confusion matrix."""
    return np.asarray(np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1)))


def unparsed_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Share of the last two columns, `unknown` and `multi`, of each confusion matrix."""
    return np.asarray(counts[..., -2:].sum(axis=(-2, -1)) / counts.sum(axis=(-2, -1)))


def macro_of(counts: NDArray[Any], *, score: str) -> NDArray[np.float64]:
    """Mean of a class score (``f1``, ``precision``, ``recall``) over the declared labels."""
    scores: NDArray[np.float64] = getattr(class_arrays(counts), score)
    return np.asarray(scores.mean(axis=-1))


def weighted_of(counts: NDArray[Any], *, score: str) -> NDArray[np.float64]:
    """Mean of a class score with the number of gold rows as weight."""
    classes = class_arrays(counts)
    return np.asarray((getattr(classes, score) * classes.support).sum(axis=-1) / classes.support.sum(axis=-1))


def occurring_of(counts: NDArray[Any], *, score: str) -> NDArray[np.float64]:
    """Mean of a class score over the classes in gold or predictions, `unknown` and `multi` among them."""
    support = counts.sum(axis=-1)
    occurs = counts.sum(axis=-2)
    occurs[..., : support.shape[-1]] += support
    return np.asarray(getattr(class_arrays(counts), score).sum(axis=-1) / np.count_nonzero(occurs, axis=-1))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acc", accuracy, accuracy_of, True, False),
        Metric("macro_f1", macro_f1, partial(macro_of, score="f1"), True, False),
        Metric("macro_precision", macro_precision, partial(macro_of, score="precision"), True, False),
        Metric("macro_recall", macro_recall, partial(macro_of, score="recall"), True, False),
        Metric("weighted_f1", weighted_f1, partial(weighted_of, score="f1"), True, False),
        Metric("weighted_precision", weighted_precision, partial(weighted_of, score="precision"), True, False),
        Metric("unparsed", unparsed, unparsed_of, False, False),
        Metric("released_acc", released_acc, accuracy_of, True, True),
        Metric("released_f1", released_f1, partial(occurring_of, score="f1"), True, True),
        Metric("released_precision", released_precision, partial(occurring_of, score="precision"), True, True),
        Metric("released_recall", released_recall, partial(occurring_of, score="recall"), True, True),
        Metric("released_wf1", released_wf1, partial(weighted_of, score="f1"), True, True),
        Metric("released_wp", released_wp, partial(weighted_of, score="precision"), True, True),
    )
}
"""Every metric by name, in the order of the results table."""


# --------------------------------------------------------------------------------------------------- details


def _declared(pairs: Pairs, labels: Labels) -> list[str]:
    return sorted({gold for gold, _ in pairs}) if labels is None else list(labels)


def _lower(pairs: Pairs) -> list[Pair]:
    return [(gold.lower(), predicted.lower()) for gold, predicted in pairs]


def _clean(statistic: Callable[..., NDArray[np.float64]], score: str, pairs: Pairs, labels: Labels) -> float:
    return float(statistic(confusion_counts(pairs, labels), score=score)) if pairs else float("nan")


def _released(statistic: Callable[..., NDArray[np.float64]], score: str, pairs: Pairs) -> float:
    """Score the classes that occur; here `unknown` and `multi` have rows of their own, which are empty."""
    if not pairs:
        return float("nan")
    cells = Counter(_lower(pairs))
    index = {name: i for i, name in enumerate(sorted({name for cell in cells for name in cell}))}
    counts = np.zeros((len(index), len(index)), dtype=np.int64)
    for (gold, predicted), n in cells.items():
        counts[index[gold], index[predicted]] = n
    return float(statistic(counts, score=score))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide; 0 where the divisor is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
