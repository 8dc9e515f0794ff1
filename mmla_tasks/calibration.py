"""Whether probabilities mean what they say: reliability, calibration error, and how near the gold label is to the top.

Everything is a pure function of ranked answers; all values are fractions from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmla_tasks.statistics import Interval, mean, wilson_interval

BINS = 10
"""Equal stretches of confidence, the usual number."""
TOP = (1, 2, 3, 5)


@dataclass(frozen=True)
class RankedAnswer:
    """One document's label probabilities beside its gold label."""

    gold: str
    probabilities: Mapping[str, float]
    """Every label of the task; they add up to 1."""

    @property
    def confidence(self) -> float:
        """Probability of the most likely label."""
        return max(self.probabilities.values())

    @property
    def is_right(self) -> bool:
        """Whether the most likely label (the first one on a tie) is the gold one."""
        return max(self.probabilities, key=self.probabilities.__getitem__) == self.gold

    @property
    def rank(self) -> int:
        """Place of the gold label, from 1; of equally likely labels the gold one stands last: a tie earns nothing."""
        own = self.probabilities[self.gold]
        return sum(p >= own for p in self.probabilities.values())

    @property
    def brier(self) -> float:
        """Squared distance from certainty of the gold label, from 0 to 2."""
        return sum((p - (label == self.gold)) ** 2 for label, p in self.probabilities.items())


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in one stretch."""

    low: float
    """Inclusive."""
    high: float
    """Exclusive, inclusive in the last bin."""
    count: int
    confidence: float
    """Mean; NaN of no answers, as `accuracy`."""
    accuracy: float
    interval: Interval
    """Wilson's, of the accuracy."""


@dataclass(frozen=True)
class Calibration:
    """What the probabilities of one task are worth."""

    rows: int
    confidence: float
    """Mean."""
    error: float
    """Expected calibration error: mean distance between accuracy and confidence over bins, weighted by their rows."""
    brier: float
    """Mean, from 0 to 2."""
    top: Mapping[int, float]
    """k -> share of rows whose gold label is among the k most likely; no k beyond the number of labels."""
    bins: tuple[Bin, ...]


def calibration(answers: Sequence[RankedAnswer], bins: int = BINS) -> Calibration | None:
    """Measure probabilities; None where there are none.

    >>> sure = RankedAnswer("joy", {"joy": 0.9, "anger": 0.1})
    >>> round(calibration([sure, sure]).error, 3)
    0.1
    """
    if not answers:
        return None
    parts = [_bin([a for a in answers if _place(a.confidence, bins) == i], i, bins) for i in range(bins)]
    labels = len(answers[0].probabilities)
    ranks = [answer.rank for answer in answers]
    return Calibration(
        rows=len(answers),
        confidence=mean(answer.confidence for answer in answers),
        error=sum(b.count * abs(b.accuracy - b.confidence) for b in parts if b.count) / len(answers),
        brier=mean(answer.brier for answer in answers),
        top={k: mean(rank <= k for rank in ranks) for k in TOP if k <= labels},
        bins=tuple(parts),
    )


def _place(confidence: float, bins: int) -> int:
    return min(int(confidence * bins), bins - 1)


def _bin(answers: Sequence[RankedAnswer], number: int, bins: int) -> Bin:
    right = sum(answer.is_right for answer in answers)
    return Bin(
        low=number / bins,
        high=(number + 1) / bins,
        count=len(answers),
        confidence=mean(answer.confidence for answer in answers),
        accuracy=right / len(answers) if answers else float("nan"),
        interval=wilson_interval(right, len(answers)),
    )
