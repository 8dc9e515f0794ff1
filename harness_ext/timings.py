"""Where the time of a run goes: for each stage, the seconds in which at least one thread or request was in it.

Stages overlap (a clip is decoded while the model generates), so they need not add up to the time of the run: a stage
that ran wholly beside another cost nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["answer", "decode", "preprocess", "prefill", "generate", "request"]
"""``answer``: from the first request to the last answer; the others are parts of it. ``request``: an answer of a
server, which does not tell its prefill from its generation."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class Timings:
    """Seconds by stage. Safe to use from many threads and from coroutines.

    Args:
        clock: Gives seconds that only grow.

    >>> ticks = iter([0.0, 1.0, 3.0, 4.0])
    >>> timings = Timings(lambda: next(ticks))
    >>> with timings.measure("decode"), timings.measure("generate"):
    ...     pass
    >>> timings.seconds
    {'decode': 4.0, 'generate': 2.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._inside: dict[Stage, int] = {}
        self._since: dict[Stage, float] = {}
        self._seconds: dict[Stage, float] = {}

    def begin(self, stage: Stage) -> None:
        """Say that one more thread or request is in `stage`."""
        with self._lock:
            now = self._clock()
            if not self._inside.get(stage):
                self._since[stage] = now
            self._inside[stage] = self._inside.get(stage, 0) + 1

    def end(self, stage: Stage) -> None:
        """Say that one of those has left it."""
        with self._lock:
            now = self._clock()
            self._inside[stage] -= 1
            if not self._inside[stage]:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._since[stage]

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Be in `stage` inside the block."""
        self.begin(stage)
        try:
            yield
        finally:
            self.end(stage)

    @property
    def seconds(self) -> dict[Stage, float]:
        """Seconds of every stage that somebody left, in the order of a sample's life."""
        with self._lock:
            return {stage: self._seconds[stage] for stage in STAGES if stage in self._seconds}
