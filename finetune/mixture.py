"""In which order the rows of several datasets are trained on: weights held in every batch, resumable at any position.

One endless sequence of positions 0, 1, 2, ...; which row stands at position k depends on the seed, the sizes and the
weights alone, not on the number of processes, the batch or where a run was interrupted. A dataset of weight w comes
once in every 1/w positions, from a seeded phase on, so that any window of the sequence, be it one rank's share of a
batch, a step or an epoch, holds nearly w of it: no batch is all of one dataset. Which of its rows comes is drawn
without replacement: every row once, in a seeded permutation, before the next permutation begins.

An epoch is as many positions as the datasets have rows, whatever the weights, rounded up to whole optimizer steps:
with weights by size every row stands once in it (and the few that fill the last step already belong to the next round),
with other weights it costs the same, while rows of small datasets come several times and those of large ones not all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from finetune.config import Weighting

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


def shares(sizes: Sequence[int], weighting: Weighting, temperature: float = 1.0) -> list[float]:
    """Share of each dataset in the mixture; they sum to 1.

    Args:
        sizes: Rows of each dataset, each at least 1.
        weighting: See `Weighting`.
        temperature: Of ``temperature``, above 0; ignored by the others.

    Raises:
        ValueError: No dataset, an empty one, or a temperature that is not above 0.

    >>> shares([300, 100], "size"), shares([300, 100], "equal")
    ([0.75, 0.25], [0.5, 0.5])
    >>> shares([900, 100], "temperature", 2.0)
    [0.75, 0.25]
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"a mixture is made of datasets with at least one row each, not of sizes {list(sizes)}")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"no weights {weighting!r}; there are {', '.join(WEIGHTINGS)}")
    if weighting == "temperature" and not temperature > 0:
        raise ValueError(f"a temperature is above 0, not {temperature}")
    exponent = {"size": 1.0, "equal": 0.0, "temperature": 1 / temperature}[weighting]
    largest = max(sizes)
    masses = [(size / largest) ** exponent for size in sizes]
    total = math.fsum(masses)
    return [mass / total for mass in masses]


@dataclass(frozen=True)
class Mixture:
    """An endless sequence of rows; a row is named by its index in the datasets laid end to end.

    Attributes:
        sizes: Rows of each dataset.
        shares: Share of each dataset, as `shares` gives them.
        seed: Of phases and permutations.
    """

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    seed: int

    @classmethod
    def of(cls, sizes: Sequence[int], weighting: Weighting = "size", *, temperature: float = 1.0, seed: int) -> Mixture:
        """Mix datasets of these sizes.

        Raises:
            ValueError: See `shares`.
        """
        return cls(tuple(sizes), tuple(shares(sizes, weighting, temperature)), seed)

    def steps_per_epoch(self, rows_per_step: int) -> int:
        """Optimizer steps of one epoch.

        Args:
            rows_per_step: Batch size x gradient accumulation x processes.
        """
        return -(-sum(self.sizes) // rows_per_step)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Row indices at the positions from `start` to before `stop`, int64 [stop - start]."""
        datasets, occurrences = self._occurrences(start, stop)
        rows = np.empty(stop - start, dtype=np.int64)
        first_row = 0
        for dataset, size in enumerate(self.sizes):
            here = datasets == dataset
            rounds, at = np.divmod(occurrences[here], size)
            drawn = np.empty(len(at), dtype=np.int64)
            for number in np.unique(rounds):
                of_round = rounds == number
                drawn[of_round] = _permutation(self.seed, dataset, int(number), size)[at[of_round]]
            rows[here] = first_row + drawn
            first_row += size
        return rows

    def datasets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which dataset each row belongs to, int64 of the same shape."""
        return np.searchsorted(np.cumsum(self.sizes), rows, side="right")

    def _occurrences(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Dataset at each position, and how often that dataset has come before.

        Occurrence j of a dataset has the time (j + phase) / share. Before time t a dataset has come `t * share` times
        up to less than one, and therefore all have together come `t` times up to less than their number: only the
        occurrences near the window need to be sorted.
        """
        slack = len(self.sizes) + 1
        before, times, datasets, occurrences = 0, [], [], []
        for dataset, share in enumerate(self.shares):
            phase = self._phases[dataset]
            first = _occurrences_before(start - slack, share, phase)
            last = _occurrences_before(stop + slack, share, phase)
            before += first
            numbers = np.arange(first, last, dtype=np.int64)
            occurrences.append(numbers)
            times.append((numbers + phase) / share)
            datasets.append(np.full(len(numbers), dataset, dtype=np.int64))
        in_time = np.argsort(np.concatenate(times), kind="stable")[start - before : stop - before]
        return np.concatenate(datasets)[in_time], np.concatenate(occurrences)[in_time]

    @property
    def _phases(self) -> Sequence[float]:
        return _phases(self.seed, len(self.sizes))


def _occurrences_before(time: float, share: float, phase: float) -> int:
    """Count the whole j >= 0 with (j + phase) / share < time, in the arithmetic in which times are sorted."""
    count = max(0, math.floor(time * share - phase) - 1)
    while (count + phase) / share < time:
        count += 1
    return count


@lru_cache(maxsize=64)
def _phases(seed: int, count: int) -> tuple[float, ...]:
    # Below 0.999: a dataset's last row of an epoch stays inside it also after rounding.
    return tuple(np.random.default_rng([seed, count]).uniform(0.0, 0.999, count).tolist())


@lru_cache(maxsize=64)
def _permutation(seed: int, dataset: int, number: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, dataset, number]).permutation(size)
