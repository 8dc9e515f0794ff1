from __future__ import annotations

import random

import pytest

from mmla_tasks import intervals
from mmla_tasks.intervals import metric_intervals
from mmla_tasks.scorers import METRICS, Pairs, confusion_counts

LABELS = ["joy", "anger", "fear", "never said"]


def rows(seed: int, n: int, unparsed: float = 0.2) -> Pairs:
    draw = random.Random(seed)
    answers = [*LABELS[:2], "unknown", "multi"]
    return [
        (draw.choice(LABELS[:3]), draw.choice(answers) if draw.random() < unparsed else draw.choice(LABELS[:3]))
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_batch_statistics_are_the_metrics(seed: int) -> None:
    """What is bootstrapped is the number that is reported, released macro averages among them."""
    pairs = rows(seed, 57, unparsed=0.3 * (seed > 0))
    for name, statistic in intervals._STATISTICS.items():
        assert statistic(confusion_counts(pairs, LABELS)[None])[0] == pytest.approx(METRICS[name](pairs, LABELS)), name


def test_every_metric_has_an_interval_around_it() -> None:
    pairs = rows(1, 400)
    for name, (low, high) in metric_intervals(pairs, pairs, LABELS).items():
        assert 0 <= low < METRICS[name](pairs, LABELS) < high <= 1, name
    assert set(metric_intervals(pairs, pairs, LABELS, draws=20)) == set(METRICS)


def test_of_no_rows_nothing_is_known() -> None:
    assert set(metric_intervals([], [], LABELS).values()) == {(0.0, 1.0)}
