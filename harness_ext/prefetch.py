"""What a model will be asked next is loaded in threads meanwhile, within a bound of bytes: `Ahead`, for every backend.

PyAV, hashing and reading let other threads run, so decoding costs no time where a core is free or the model is on a
GPU. What is loading, loaded, or taken and not yet done with, counts towards the bound.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter from another that wants it, while something is loaded ahead. A decoder
wants it after every frame: with Python's 5 ms one decoding thread gave 5.5 clips a second beside a busy model, and 8.4
with this."""

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Used = TypeVar("Used")


@dataclass(frozen=True)
class DecodeLimits:
    """How much is decoded at once; changes no answer."""

    workers: int = min(4, os.cpu_count() or 1)
    """Clips decoded at the same time; each decoder also keeps some frames of its own."""
    memory: int = 1 << 30
    """Bytes of decoded frames that may be alive at once. One clip is always let through."""


class Ahead(Generic[Item, Loaded]):
    """Items loaded in order, some ahead of their use.

    Args:
        items: Asked for an item when there is room for it.
        load: Called in a thread for each item. What it raises is raised by `take` when the item has its turn.
        cost: Bytes that a loaded item holds, at most.
        limits: Threads and bytes.
        depth: How many items may be loading or loaded that nobody has taken; may be changed at any time.
    """

    def __init__(
        self,
        items: Iterable[Item],
        load: Callable[[Item], Loaded],
        *,
        cost: Callable[[Item], int] = lambda item: 0,
        limits: DecodeLimits | None = None,
        depth: int,
    ) -> None:
        limits = limits or DecodeLimits()
        self.depth = depth
        self.waited_seconds = 0.0
        self._items: Iterator[Item] = iter(items)
        self._load, self._cost, self._memory = load, cost, limits.memory
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="mmla-prefetch")
        self._loading: deque[tuple[Item, Future[Loaded]]] = deque()
        self._held = 0
        self._next: list[Item] = []  # what was asked of `items` and does not fit yet
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_SECONDS, self._switch_seconds))
        self.advance()

    def __enter__(self) -> Ahead[Item, Loaded]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        """Whether items are left to take."""
        return bool(self._loading or self._next or self._ask())

    @property
    def head(self) -> Future[Loaded] | None:
        """What `take` gives next; None while the bound lets nothing in, or when nothing is left."""
        return self._loading[0][1] if self._loading else None

    def take(self) -> tuple[Item, Loaded]:
        """Wait for the next item. It counts as held until `done` is told.

        Raises:
            RuntimeError: The bound lets nothing in until something that was taken is done with.
        """
        if not self._loading:
            raise RuntimeError("nothing may be loaded before something is done with")
        began = time.perf_counter()
        item, future = self._loading.popleft()
        self.advance()
        try:
            return item, future.result()
        finally:
            self.waited_seconds += time.perf_counter() - began

    def done(self, item: Item) -> None:
        """Say that nobody holds what this item was loaded as."""
        self._held -= self._cost(item)
        self.advance()

    def advance(self) -> None:
        """Start loading whatever may be loaded now."""
        while len(self._loading) < self.depth and (self._next or self._ask()):
            cost = self._cost(self._next[0])
            if self._held and self._held + cost > self._memory:
                return
            item = self._next.pop()
            self._held += cost
            self._loading.append((item, self._pool.submit(copy_context().run, self._load, item)))

    def _ask(self) -> bool:
        self._next.extend(islice(self._items, 1))
        return bool(self._next)

    def close(self) -> None:
        """Drop what is not taken and end the threads; what is loading is waited for."""
        self._pool.shutdown(cancel_futures=True)
        self._loading.clear()
        sys.setswitchinterval(self._switch_seconds)


def prefetched(
    batches: Iterable[Sequence[Item]],
    load: Callable[[Item], Loaded],
    use: Callable[[Sequence[Item], list[Loaded]], Used],
    *,
    cost: Callable[[Item], int] = lambda item: 0,
    limits: DecodeLimits | None = None,
    waited: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Used]:
    """Use batch after batch, in order, loading as much again meanwhile.

    Args:
        batches: No batch may cost more than the bound, unless it is of one item.
        load: As in `Ahead`. What it raises is raised here when its batch has its turn: every batch before has been
            used and yielded then.
        use: Called in this thread with a batch and what its items were loaded as. The loaded things are dropped when
            it returns.
        cost: As in `Ahead`.
        limits: As in `Ahead`.
        waited: Called with the seconds that each batch was waited for.

    Yields:
        What `use` returns.
    """
    planned: deque[Sequence[Item]] = deque()

    def in_order() -> Iterator[Item]:
        for batch in batches:
            planned.append(batch)
            yield from batch

    with Ahead(in_order(), load, cost=cost, limits=limits, depth=1) as ahead:
        while ahead:
            batch, before = planned.popleft(), ahead.waited_seconds
            ahead.depth = len(batch)
            loaded = [ahead.take()[1] for _ in batch]
            waited(ahead.waited_seconds - before)
            used = use(batch, loaded)
            del loaded
            for item in batch:
                ahead.done(item)
            yield used
