"""Paired comparisons against scipy, statsmodels and simulation."""

from __future__ import annotations

import random
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from mmla_tasks import statistics
from mmla_tasks.comparison import LEAST_CLUSTERS, Comparison, PairedRow, PairedTask, compare
from mmla_tasks.records import MULTI, UNKNOWN
from mmla_tasks.scorers import METRICS, confusion_counts

LABELS = ["neutral", "joy", "anger", "fear"]
SEEDS = range(50)


def draw_rows(n: int, seed: int, *, gain: float = 0.0, discordant: float = 0.2, right: float = 0.6) -> list[PairedRow]:
    """Rows of which a share `discordant` has one answerer right; the second leads by `gain`."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        gold = draw.choices(LABELS, weights=(5, 3, 2, 1))[0]
        wrong = [name for name in (*LABELS, UNKNOWN, MULTI) if name != gold]
        a = b = draw.choice(wrong)
        u = draw.random()
        if u < (discordant - gain) / 2:
            a = gold
        elif u < discordant:
            b = gold
        elif u < discordant + (right - discordant / 2):
            a = b = gold
        rows.append(PairedRow(gold, a, b, str(i)))
    return rows


def compare_rows(rows: list[PairedRow], **options: int) -> Comparison:
    return compare({"task": PairedTask(LABELS, rows)}, **options)


# ------------------------------------------------------------------------------------------------------ references


@pytest.mark.parametrize("seed", SEEDS)
def test_tests_and_proportions_equal_the_references(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randint(1, 3000)
    correct = draw.randint(0, n)
    expected = proportion_confint(correct, n, method="wilson")
    assert statistics.wilson_interval(correct, n) == pytest.approx(expected, abs=1e-12)
    b, c = draw.randint(0, 80), draw.randint(0, 80)
    reference = statsmodels_mcnemar([[9, b], [c, 9]], exact=True).pvalue if b + c else 1.0
    assert statistics.mcnemar(b, c) == pytest.approx(reference, abs=1e-12)
    p_values = [draw.random() ** 3 for _ in range(draw.randint(1, 12))]
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_paired_bootstrap_agrees_with_scipy() -> None:
    """Both ends wobble by about 0.085 standard errors each; scipy's acceleration moves them little."""
    apart = np.array([_apart_from_scipy(seed) for seed in SEEDS])  # in standard errors
    assert np.abs(apart).max() < 0.5
    assert np.abs(apart.mean(axis=0)).max() < 0.06


def _apart_from_scipy(seed: int) -> tuple[float, float]:
    rows = draw_rows(150, seed, gain=0.06)
    ours = compare_rows(rows, seed=seed).tasks["task"].acc
    hits = np.array([(row.first == row.gold, row.second == row.gold) for row in rows], dtype=float)
    theirs = stats.bootstrap(
        (hits[:, 0], hits[:, 1]),
        lambda a, b, axis: (b - a).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=999,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    return tuple((mine - other) / theirs.standard_error for mine, other in zip(ours.interval, ends, strict=True))


def test_bootstrap_of_every_metric_agrees_with_scipy() -> None:
    """On 50 cases, macro F1 and its kin by scipy's bias-corrected and accelerated bootstrap of the rows."""
    names = ("macro_f1", "macro_precision", "macro_recall", "weighted_f1", "weighted_precision")
    apart = np.array([_metric_apart_from_scipy(names[seed % len(names)], seed) for seed in SEEDS])
    assert np.abs(apart).max() < 0.6
    assert np.abs(apart.mean(axis=0)).max() < 0.08


def _metric_apart_from_scipy(name: str, seed: int) -> tuple[float, float]:
    pairs = [(row.gold, row.first) for row in draw_rows(200, seed)]
    ours = statistics.metric_intervals(pairs, pairs, LABELS, seed=seed)[name]
    columns = [*LABELS, UNKNOWN, MULTI]
    cells = np.array([columns.index(gold) * len(columns) + columns.index(answer) for gold, answer in pairs])

    def statistic(sample: np.ndarray, axis: int) -> np.ndarray:
        flat = np.moveaxis(sample, axis, -1)
        counts = (flat[..., None] == np.arange(len(LABELS) * len(columns))).sum(axis=-2)
        return METRICS[name].of_counts(counts.reshape(*counts.shape[:-1], len(LABELS), len(columns)))

    theirs = stats.bootstrap(
        (cells,), statistic, vectorized=True, n_resamples=999, method="BCa", rng=np.random.default_rng(seed), batch=250
    )
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    return tuple((mine - other) / theirs.standard_error for mine, other in zip(ours, ends, strict=True))


def test_resamples_of_clusters_equal_drawing_them_one_by_one() -> None:
    rows = [row._replace(cluster=str(i // 6)) for i, row in enumerate(draw_rows(240, seed=3))]
    golds, first, second, clusters = zip(*rows, strict=True)
    a, b = statistics.paired_matrices(golds, first, second, LABELS, clusters=clusters, draws=500, seed=4)
    assert (a[0] == confusion_counts(list(zip(golds, first, strict=True)), LABELS)).all()
    assert (b[0] == confusion_counts(list(zip(golds, second, strict=True)), LABELS)).all()
    times = np.random.default_rng(4).multinomial(40, np.full(40, 1 / 40), size=500)
    members: dict[str, list[PairedRow]] = {}
    for row in rows:
        members.setdefault(row.cluster, []).append(row)
    for draw in (0, 499):
        resample = [
            row for name, count in zip(sorted(members), times[draw], strict=True) for row in members[name] * count
        ]
        assert (a[1 + draw] == confusion_counts([(r.gold, r.first) for r in resample], LABELS)).all()
        assert (b[1 + draw] == confusion_counts([(r.gold, r.second) for r in resample], LABELS)).all()


def test_rows_that_move_together_widen_the_interval() -> None:
    rows = draw_rows(300, seed=5)
    twins = [row._replace(cluster=row.cluster) for row in rows for _ in range(8)]
    alone = [row._replace(cluster=str(i)) for i, row in enumerate(twins)]
    together, apart = compare_rows(twins).tasks["task"], compare_rows(alone).tasks["task"]
    assert (together.clusters, apart.clusters) == (300, None)
    assert width(together.acc.interval) == pytest.approx(8**0.5 * width(apart.acc.interval), rel=0.15)
    few = [row._replace(cluster=str(i % (LEAST_CLUSTERS - 1))) for i, row in enumerate(rows)]
    assert compare_rows(few).tasks["task"].clusters is None


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


# ------------------------------------------------------------------------------------------------------ simulation


def test_holm_keeps_the_family_wise_error() -> None:
    """Twelve tasks without any difference, in 2,000 families: at most 5 % find one."""
    draw = np.random.default_rng(6)
    discordant = draw.binomial(np.array([445, 2033, 2610, 1622, 1998, 1884, 686, 1031, 994, 138, 1129, 1140]), 0.2)
    families = draw.binomial(discordant, 0.5, size=(2000, 12))
    mcnemar = cache(statistics.mcnemar)
    found = [
        min(statistics.holm([mcnemar(b, n - b) for b, n in zip(family, discordant.tolist(), strict=True)])) < 0.05
        for family in families.tolist()
    ]
    assert np.mean(found) <= 0.05


def test_a_planted_gain_is_found_in_95_of_100() -> None:
    found = 0
    for seed in range(100):
        task = compare_rows(draw_rows(2033, seed, gain=0.05), draws=50).tasks["task"]
        found += task.is_significant and task.acc.value > 0
    assert found >= 95


def test_the_detectable_difference_is_found_in_four_of_five() -> None:
    rows, share = 600, 0.2
    gain = statistics.detectable_difference(rows, share)
    assert gain is not None
    draw = np.random.default_rng(7)
    cells = [share / 2 - gain / 2, share / 2 + gain / 2, 1 - share]
    found = [statistics.mcnemar(b, c) < 0.05 for b, c, _ in draw.multinomial(rows, cells, size=2000).tolist()]
    assert 0.74 < np.mean(found) < 0.83  # exact tests are a little conservative


def test_what_cannot_be_detected() -> None:
    assert statistics.detectable_difference(0, 0.5) is None
    assert statistics.detectable_difference(100, 0.0) is None
    assert statistics.detectable_difference(5, 0.2) is None
    mustard = statistics.detectable_difference(138, 0.2)
    assert mustard == pytest.approx(0.1048, abs=0.001)


# --------------------------------------------------------------------------------------------------------- averages


def test_averages_weigh_rows_or_tasks() -> None:
    large, small = draw_rows(800, seed=8, gain=0.1), draw_rows(200, seed=9, gain=-0.1)
    whole = compare({"large": PairedTask(LABELS, large), "small": PairedTask(LABELS, small)})
    leads = [whole.tasks[name].acc.value for name in ("large", "small")]
    assert whole.all_rows.value == pytest.approx(0.8 * leads[0] + 0.2 * leads[1])
    assert whole.mean_of_tasks.value == pytest.approx(sum(leads) / 2)
    variances = [(width(whole.tasks[name].acc.interval) / 2 / NormalDist().inv_cdf(0.975)) ** 2 for name in whole.tasks]
    expected = 2 * NormalDist().inv_cdf(0.975) * (sum(variances) / 4) ** 0.5
    assert width(whole.mean_of_tasks.interval) == pytest.approx(expected, rel=0.15)
    assert whole.mean_of_macro_f1.first == pytest.approx(
        np.mean([whole.tasks[name].macro_f1.first for name in whole.tasks])
    )


def test_equal_answers_differ_in_nothing() -> None:
    rows = [row._replace(second=row.first) for row in draw_rows(100, seed=10)]
    task = compare_rows(rows).tasks["task"]
    assert task.acc.interval == task.macro_f1.interval == (0, 0)
    assert (task.only_first, task.only_second, task.p_value, task.detectable) == (0, 0, 1.0, None)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        compare({})
    with pytest.raises(ValueError, match="rows"):
        compare_rows([])
    with pytest.raises(ValueError, match="declared"):
        compare_rows([PairedRow("joy", "envy", "joy", "1")])


def test_chance_alone_is_quiet_in_95_of_100_pairs() -> None:
    """All twelve tasks in their real sizes, both right in six rows of ten, a fifth of the rows discordant."""
    sizes = (445, 2033, 2610, 1622, 1998, 1884, 686, 1031, 994, 138, 1129, 1140)
    quiet = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        tasks = {f"task {n}": chance_task(size, draw) for n, size in enumerate(sizes)}
        quiet += not compare(tasks, draws=10).significant
    assert quiet >= 95


def chance_task(size: int, draw: np.random.Generator) -> PairedTask:
    kinds = [PairedRow("joy", a, b, "") for a in ("joy", "fear") for b in ("joy", "fear")]
    drawn = draw.choice(4, size=size, p=[0.5, 0.1, 0.1, 0.3]).tolist()
    return PairedTask(LABELS, [kinds[kind] for kind in drawn])
