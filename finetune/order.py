"""Which examples make which batch: the whole run's order, worked out from the seed before the first step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.mixture import Mixture

WINDOW = 8
"""Steps among which examples are sorted by length: batches of equal lengths pad little, and stay mixed."""


@dataclass(frozen=True)
class Order:
    """Row indices of every batch of a run.

    The examples of a step do not depend on how many processes share it, only on its size.
    """

    steps: tuple[tuple[int, ...], ...]
    """Rows of each optimizer step."""
    batch_size: int
    """Rows of one process at once."""
    processes: int

    def of_process(self, index: int) -> list[list[int]]:
        """The batches of one process, in order."""
        batches = []
        for rows in self.steps:
            micro = self.batch_size * self.processes
            for start in range(0, len(rows), micro):
                batches.append(list(rows[start + index * self.batch_size :][: self.batch_size]))
        return batches


def order_of(
    mixture: Mixture,
    lengths: Sequence[int],
    *,
    steps: int,
    batch_size: int,
    accumulation: int = 1,
    processes: int = 1,
) -> Order:
    """Work out the order of a run.

    Rows of a single dataset are sorted by length among `WINDOW` steps, whose order is then drawn; with several datasets
    the mixture's own order stays, which holds the weights in every batch.

    Args:
        mixture: The endless sequence of rows.
        lengths: Tokens of each row, or what grows with them.
        steps: Optimizer steps of the run.
        batch_size: Rows of one process at once.
        accumulation: Batches in a step.
        processes: That share each step.
    """
    size = batch_size * accumulation * processes
    rows = [int(row) for row in mixture.rows(0, steps * size)]
    made = [tuple(rows[n * size : (n + 1) * size]) for n in range(steps)]
    if len(mixture.sizes) == 1:
        made = [step for n in range(0, steps, WINDOW) for step in _by_length(made[n : n + WINDOW], lengths, mixture, n)]
    return Order(tuple(made), batch_size, processes)


def _by_length(
    steps: Sequence[tuple[int, ...]], lengths: Sequence[int], mixture: Mixture, first: int
) -> list[tuple[int, ...]]:
    """The same rows in as many steps, those of a step about equally long."""
    size = len(steps[0])
    rows = sorted((row for step in steps for row in step), key=lambda row: lengths[row])
    sorted_steps = [tuple(rows[n : n + size]) for n in range(0, len(rows), size)]
    random.Random(f"{mixture.seed}:{first}").shuffle(sorted_steps)
    return sorted_steps
