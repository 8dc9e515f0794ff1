"""The order in which a prompt lists the labels: as declared, or drawn from a seed.

Only the prompt sees it. Scoring, parsing, ranking and confusion matrices keep to the declared list.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmla_tasks.errors import UsageError


@dataclass(frozen=True)
class LabelOrder:
    """As declared, or shuffled with a seed."""

    seed: int | None = None
    """None: as declared."""

    @classmethod
    def read(cls, text: str | None) -> LabelOrder:
        """Read what ``--label_order`` takes; None is ``declared``.

        Raises:
            UsageError: it is neither ``declared`` nor ``shuffled:SEED``.

        >>> str(LabelOrder.read("shuffled:7"))
        'shuffled:7'
        """
        if text in (None, "declared"):
            return cls()
        shuffled = re.fullmatch(r"shuffled:([0-9]+)", str(text))
        if shuffled is None:
            raise UsageError(
                f"--label_order {text} is not known",
                choices="declared, shuffled:SEED",
                next="write a whole number as SEED, such as --label_order shuffled:7",
            )
        return cls(int(shuffled[1]))

    @property
    def is_shuffled(self) -> bool:
        """Whether it may differ from the declared order."""
        return self.seed is not None

    def later(self, count: int) -> LabelOrder:
        """The order `count` seeds further on; the declared one stays as it is."""
        return self if self.seed is None else replace(self, seed=self.seed + count)

    def arrange(self, labels: Sequence[str], dataset: str) -> tuple[str, ...]:
        """Put labels into this order: one permutation per dataset and seed, whatever the document, limit or process."""
        if self.seed is None:
            return tuple(labels)
        return tuple(random.Random(f"{self.seed}:{dataset}").sample(labels, len(labels)))

    def __str__(self) -> str:
        return "declared" if self.seed is None else f"shuffled:{self.seed}"
