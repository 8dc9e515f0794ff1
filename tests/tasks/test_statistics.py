"""Intervals against scipy, against a naive bootstrap and by their coverage; baselines against their definition."""

from __future__ import annotations

import importlib.util
import math
import random
import time
from pathlib import Path
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mmla_tasks import statistics
from mmla_tasks.records import MULTI, UNKNOWN
from mmla_tasks.scorers import METRICS, accuracy, confusion_counts, macro_f1

LABELS = ["neutral", "joy", "anger", "fear"]


def macro_f1_interval(pairs: Any, labels: Any, draws: int = 1000, seed: int = 0, confidence: float = 0.95) -> Any:
    statistic = METRICS["macro_f1"].of_counts
    return statistics.bootstrap_interval(pairs, labels, statistic, draws=draws, seed=seed, confidence=confidence)


def draw_pairs(n: int, seed: int, labels: list[str] = LABELS) -> list[tuple[str, str]]:
    """Rows of uneven classes, answered right three times in five, else anything."""
    draw = random.Random(seed)
    golds = draw.choices(labels, weights=range(len(labels), 0, -1), k=n)
    return [(gold, gold if draw.random() < 0.6 else draw.choice([*labels, UNKNOWN, MULTI])) for gold in golds]


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, share: float, confidence: float) -> None:
    correct = round(share * n)
    expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert statistics.wilson_interval(correct, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_at_the_ends() -> None:
    assert statistics.wilson_interval(0, 0) == (0, 1)
    assert statistics.wilson_interval(0, 9)[0] == 0
    assert statistics.wilson_interval(9, 9)[1] == 1
    # screens.md: 56.9 % of the 445 rows of MIntRec.
    assert statistics.wilson_interval(253, 445) == pytest.approx((0.522, 0.614), abs=0.0006)


@pytest.mark.parametrize(
    ("correct", "n", "confidence"), [(2, 1, 0.95), (-1, 3, 0.95), (1, 2, 0), (1, 2, 1), (1, 2, 95)]
)
def test_wilson_refuses_nonsense(correct: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError):
        statistics.wilson_interval(correct, n, confidence)


def test_bootstrap_depends_on_the_seed_and_the_rows_only() -> None:
    pairs = draw_pairs(200, seed=1)
    interval = macro_f1_interval(pairs, LABELS)
    assert interval == macro_f1_interval(pairs, LABELS, draws=1000, seed=0)
    assert interval == macro_f1_interval(pairs[::-1], LABELS)
    assert interval != macro_f1_interval(pairs, LABELS, seed=1)
    assert interval[0] < macro_f1(pairs, LABELS) < interval[1]
    wider = macro_f1_interval(pairs, LABELS, confidence=0.99)
    assert wider[0] < interval[0] and interval[1] < wider[1]


def test_bootstrap_equals_drawing_rows_one_by_one() -> None:
    pairs = draw_pairs(120, seed=2)
    low, high = macro_f1_interval(pairs, LABELS, draws=4000)
    draw = random.Random(3)
    naive = sorted(macro_f1(draw.choices(pairs, k=len(pairs)), LABELS) for _ in range(4000))
    z0 = NormalDist().inv_cdf(sum(value < macro_f1(pairs, LABELS) for value in naive) / len(naive))
    levels = [NormalDist().cdf(2 * z0 + z) for z in (-1.96, 1.96)]
    # The ends of 4,000 draws wobble by about 0.003.
    assert (low, high) == pytest.approx(tuple(np.quantile(naive, levels)), abs=0.012)


def test_bootstrap_covers_the_truth() -> None:
    # Many rare classes, few rows: the plain percentile interval covers 80 % here (400 simulations), this one 92 %.
    classes, rows, simulations = 20, 150, 150
    draw = np.random.default_rng(5)
    right = np.concatenate([0.6 * np.eye(classes), np.zeros((classes, 2))], axis=1)
    cells = draw.dirichlet(np.full(classes, 2.0))[:, None] * (
        right + 0.4 * draw.dirichlet(np.ones(classes + 2), classes)
    )
    truth = METRICS["macro_f1"].of_counts(cells)
    labels = [f"label {i}" for i in range(classes)]
    columns = [*labels, UNKNOWN, MULTI]
    covered = 0
    for seed in range(simulations):
        drawn = draw.multinomial(rows, cells.reshape(-1) / cells.sum())
        pairs = [
            (labels[i // len(columns)], columns[i % len(columns)]) for i in np.repeat(np.arange(drawn.size), drawn)
        ]
        low, high = macro_f1_interval(pairs, labels, draws=400, seed=seed)
        covered += low <= truth <= high
    assert covered / simulations > 0.86


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    """benchmarks/coverage.py, which does the same on 4,000 sets (docs/performance.md)."""
    spec = importlib.util.spec_from_file_location("coverage", Path(__file__).parents[2] / "benchmarks" / "coverage.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wilson_covers_the_accuracy_of_4000_sets_like_meld(coverage: ModuleType) -> None:
    accuracy = float(METRICS["acc"].of_counts(coverage.cells()))
    hits = np.random.default_rng(11).binomial(coverage.ROWS, accuracy, size=4000)
    intervals = [statistics.wilson_interval(n, coverage.ROWS) for n in hits.tolist()]
    assert 0.94 <= np.mean([low <= accuracy <= high for low, high in intervals]) <= 0.96


def test_bootstrap_covers_the_macro_f1_of_300_sets_like_meld(coverage: ModuleType) -> None:
    cells = coverage.cells()
    truth = METRICS["macro_f1"].of_counts(cells)
    drawn = np.random.default_rng(12).multinomial(coverage.ROWS, cells.reshape(-1), size=300).reshape(-1, *cells.shape)
    held = 0
    for seed, counts in enumerate(drawn):
        low, high = macro_f1_interval(coverage.pairs_of(counts), coverage.LABELS, 300, seed)
        held += low <= truth <= high
    assert 0.905 <= held / 300 <= 0.985  # 92.5 to 97 % is what 4,000 sets must show; 300 wobble by 2 points


def test_bootstrap_of_any_statistic_of_the_matrix() -> None:
    pairs = draw_pairs(400, seed=4)

    def accuracies(counts: np.ndarray) -> np.ndarray:
        return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))

    interval = statistics.bootstrap_interval(pairs, LABELS, accuracies, draws=4000)
    right = round(accuracy(pairs) * len(pairs))
    assert interval == pytest.approx(statistics.wilson_interval(right, len(pairs)), abs=0.01)


def test_bootstrap_without_variation_or_rows() -> None:
    assert macro_f1_interval([("joy", "joy")] * 9, ["joy"]) == (1, 1)
    assert macro_f1_interval([("joy", UNKNOWN)] * 9, LABELS) == (0, 0)
    assert macro_f1_interval([], LABELS) == (0, 1)
    with pytest.raises(ValueError):
        macro_f1_interval([("joy", "joy")], LABELS, draws=0)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_matrices_is_the_metric(name: str) -> None:
    samples = [draw_pairs(50, seed) for seed in range(5)]
    batch = np.stack([confusion_counts(pairs, LABELS) for pairs in samples])
    assert METRICS[name].of_counts(batch) == pytest.approx([METRICS[name](pairs, LABELS) for pairs in samples])
    assert float(METRICS[name].of_counts(batch[0])) == pytest.approx(METRICS[name](samples[0], LABELS))


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=50))
def test_majority_baseline_is_always_answering_that_label(golds: list[str]) -> None:
    baseline = statistics.majority_baseline(golds, LABELS)
    label = baseline["label"]
    assert label is not None and golds.count(label) == max(map(golds.count, LABELS))
    pairs = [(gold, label) for gold in golds]
    assert (baseline["accuracy"], baseline["macro_f1"]) == pytest.approx((accuracy(pairs), macro_f1(pairs, LABELS)))


def test_majority_tie_takes_the_first_declared_label() -> None:
    assert statistics.majority_baseline(["fear", "joy"], LABELS)["label"] == "joy"


def test_prior_baseline_is_what_drawing_gives() -> None:
    golds = [gold for gold, _ in draw_pairs(500, seed=6)]
    baseline = statistics.prior_baseline(golds, LABELS)
    draw = random.Random(7)
    guesses = [[(gold, draw.choice(golds)) for gold in golds] for _ in range(200)]
    assert baseline["accuracy"] == pytest.approx(statistics.mean(map(accuracy, guesses)), abs=0.005)
    assert baseline["macro_f1"] == pytest.approx(statistics.mean(macro_f1(g, LABELS) for g in guesses), abs=0.005)
    assert baseline["macro_f1"] == pytest.approx(1 / len(LABELS))
    assert baseline["label"] is None


def test_baselines_need_declared_labels_and_rows() -> None:
    for baseline in (statistics.majority_baseline, statistics.prior_baseline):
        with pytest.raises(ValueError, match="envy"):
            baseline(["envy"], LABELS)
        assert math.isnan(baseline([], LABELS)["accuracy"])


def test_mean() -> None:
    assert statistics.mean([1, 2, 6]) == 3
    assert math.isnan(statistics.mean([]))


def test_every_metric_has_an_interval_around_it() -> None:
    pairs, released = draw_pairs(300, seed=8), draw_pairs(300, seed=9)
    intervals = statistics.metric_intervals(pairs, released, LABELS)
    assert list(intervals) == list(METRICS)
    for name, (low, high) in intervals.items():
        value = METRICS[name](released if METRICS[name].released else pairs, LABELS)
        assert 0 <= low < value < high <= 1, name
        assert high - low < 0.17, name
    assert intervals["macro_f1"] == macro_f1_interval(pairs, LABELS)
    assert intervals["acc"] == statistics.wilson_interval(sum(g == p for g, p in pairs), 300)
    assert set(statistics.metric_intervals([], [], LABELS).values()) == {(0.0, 1.0)}


def test_intervals_of_classes() -> None:
    pairs = [("joy", "joy")] * 8 + [("joy", "fear")] * 2 + [("anger", "joy")] * 4 + [("fear", "anger")]
    intervals = statistics.class_intervals(pairs, LABELS)
    assert intervals["joy"]["recall"] == statistics.wilson_interval(8, 10)
    assert intervals["joy"]["precision"] == statistics.wilson_interval(8, 12)
    low, high = statistics.wilson_interval(8, 14)
    assert intervals["joy"]["f1"] == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert intervals["neutral"] == {"precision": (0, 1), "recall": (0, 1), "f1": (0, 1)}
    assert intervals["fear"]["f1"][0] == 0 < intervals["fear"]["f1"][1]


def test_intervals_of_all_metrics_of_twelve_tasks_within_five_seconds() -> None:
    labels = [f"label {i}" for i in range(12)]
    tasks = [draw_pairs(1300, seed, labels) for seed in range(12)]
    start = time.process_time()
    for pairs in tasks:
        statistics.metric_intervals(pairs, pairs, labels)
        statistics.class_intervals(pairs, labels)
    assert time.process_time() - start < 5  # about 0.6 s on a quiet core
