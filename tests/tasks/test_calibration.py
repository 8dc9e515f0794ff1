from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, top_k_accuracy_score

from mmla_tasks.calibration import RankedAnswer, calibration

LABELS = ["a", "b", "c", "d", "e", "f"]


def drawn(seed: int, n: int) -> list[RankedAnswer]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(len(LABELS)) / 2, size=n)
    return [RankedAnswer(str(rng.choice(LABELS, p=row)), dict(zip(LABELS, map(float, row), strict=True))) for row in p]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    answers = drawn(seed, 500)
    measured = calibration(answers)
    assert measured is not None and measured.rows == sum(b.count for b in measured.bins) == 500
    p = np.array([list(a.probabilities.values()) for a in answers])
    golds = [a.gold for a in answers]
    for k, share in measured.top.items():
        assert share == pytest.approx(top_k_accuracy_score(golds, p, k=k, labels=LABELS))
    right, sure = calibration_curve([a.is_right for a in answers], [a.confidence for a in answers], n_bins=10)
    filled = [b for b in measured.bins if b.count]
    assert [b.accuracy for b in filled] == pytest.approx(right) and [b.confidence for b in filled] == pytest.approx(
        sure
    )
    assert measured.error == pytest.approx(sum(b.count / 500 * abs(b.accuracy - b.confidence) for b in filled))
    assert measured.brier == pytest.approx(
        sum(brier_score_loss([g == label for g in golds], p[:, i]) for i, label in enumerate(LABELS))
    )
    assert all(b.interval[0] <= b.accuracy <= b.interval[1] for b in filled)


def test_certainty_lies_in_the_last_bin_and_ties_earn_nothing() -> None:
    certain = calibration([RankedAnswer("a", {"a": 1.0, "b": 0.0})])
    assert certain is not None and certain.bins[-1].count == 1 and certain.error == certain.brier == 0
    assert set(certain.top) == {1, 2}
    assert RankedAnswer("b", {"a": 0.5, "b": 0.5}).rank == RankedAnswer("a", {"a": 0.5, "b": 0.5}).rank == 2


def test_without_probabilities_there_is_no_calibration() -> None:
    assert calibration([]) is None
