"""How often 95 % intervals hold the truth, on simulated test sets with MELD's rows and class shares.

    python benchmarks/coverage.py [SETS]

Draws SETS (4,000 unless given) sets of 2,610 rows, as many as MELD's test split has, from one fixed table of
probabilities: gold labels with MELD's shares, answers with plausible recalls, errors drawn to frequent labels, 1 %
`unknown`. Prints, as Markdown, how many of the intervals hold the value that infinitely many rows would give.
"""

from __future__ import annotations

import sys
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mmla_tasks.records import MULTI, UNKNOWN
from mmla_tasks.scorers import METRICS, class_arrays
from mmla_tasks.statistics import class_intervals, metric_intervals

LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust")
COLUMNS = (*LABELS, UNKNOWN, MULTI)
SHARES = np.array([1256, 281, 50, 208, 402, 345, 68]) / 2610
RECALLS = np.array([0.76, 0.55, 0.18, 0.33, 0.56, 0.44, 0.16])
ROWS = 2610


def cells() -> NDArray[np.float64]:
    """Probability of each gold label (rows) with each answer (columns)."""
    answers = np.zeros((len(LABELS), len(COLUMNS)))
    for i, recall in enumerate(RECALLS):
        others = SHARES**0.7 * (np.arange(len(LABELS)) != i)
        answers[i, : len(LABELS)] = (0.99 - recall) * others / others.sum()
        answers[i, i] = recall
        answers[i, -2] = 0.01
    return SHARES[:, None] * answers


def pairs_of(counts: NDArray[np.int64]) -> list[tuple[str, str]]:
    """The rows that a confusion matrix counts."""
    return [
        pair
        for label, row in zip(LABELS, counts.tolist(), strict=True)
        for answer, count in zip(COLUMNS, row, strict=True)
        for pair in [(label, answer)] * count
    ]


def plain_percentile(counts: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Macro F1 bounded without correction for bias, for comparison."""
    drawn = np.random.default_rng(seed).multinomial(ROWS, counts.reshape(-1) / ROWS, size=1000)
    low, high = np.quantile(METRICS["macro_f1"].of_counts(drawn.reshape(-1, *counts.shape)), [0.025, 0.975])
    return float(low), float(high)


def simulate(sets: int) -> dict[str, float]:
    """Interval -> share of sets in which it holds the truth."""
    table = cells()
    truth = {name: float(metric.of_counts(table)) for name, metric in METRICS.items()}
    true_f1 = class_arrays(table).f1
    draw = np.random.default_rng(2025)
    held: dict[str, int] = {}
    for seed in range(sets):
        counts = draw.multinomial(ROWS, table.reshape(-1)).reshape(table.shape)
        pairs = pairs_of(counts)
        found = [
            (name, interval, truth[name])
            for name, interval in metric_intervals(pairs, pairs, LABELS, seed=seed).items()
        ]
        found.append(("macro_f1, plain percentile", plain_percentile(counts, seed), truth["macro_f1"]))
        classes = class_intervals(pairs, LABELS)
        found += [(f"F1 of {label}", classes[label]["f1"], true_f1[i]) for i, label in enumerate(LABELS)]
        for name, (low, high), value in found:
            held[name] = held.get(name, 0) + (low <= value <= high)
    return {name: count / sets for name, count in held.items()}


def main(sets: int = 4000) -> None:
    margin = 100 * NormalDist().inv_cdf(0.975) * (0.95 * 0.05 / sets) ** 0.5
    print(f"{sets:,} simulated sets; of an exact 95 % interval this table would show 95 ± {margin:.1f} %\n")
    print("| interval | holds the truth |\n|---|---:|")
    for name, share in simulate(sets).items():
        print(f"| {name} | {100 * share:.1f} % |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
