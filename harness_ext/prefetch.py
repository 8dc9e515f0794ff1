"""What a model will be asked next is loaded in threads meanwhile, within a bound of bytes: `Ahead`, for every backend.

Videos are decoded in other processes, and hashing and reading let other threads run, so that decoding costs no time
where a core is free or the model is on a GPU. What is loading, loaded, or taken and not yet done with, counts towards
the bound.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from mmla_tasks.errors import UsageError

SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter from another that wants it, while something is loaded ahead. Picking up
frames and making tensors of them want it several times a clip: with Python's 5 ms two threads gave 20 clips a second
beside busy Python code, and 23 with this."""
UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Used = TypeVar("Used")


@dataclass(frozen=True)
class DecodeLimits:
    """How much is decoded at once; changes no answer.

    Raises:
        UsageError: No clip could be decoded within these.
    """

    workers: int = min(4, os.cpu_count() or 1)
    """Clips decoded at the same time; each decoder also keeps some frames of its own."""
    memory: int = 1 << 30
    """Bytes of frames, decoded or made ready for the model, that may be alive at once. One clip is always let
    through."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--decode_workers {self.workers} decodes nothing", next="write a number of at least 1")
        if self.memory < 1:
            raise UsageError(f"--decode_memory {self.memory} holds nothing", next="write a size such as 512M or 2G")


def read_bytes(text: str, flag: str = "size") -> int:
    """Bytes of a size as people write it.

    Args:
        text: A number, with K, M, G or T for powers of 1024.
        flag: Where it was written, for the error.

    Raises:
        UsageError: It is no size.

    >>> [read_bytes(size) for size in ("512M", "1.5 GiB", "4096")]
    [536870912, 1610612736, 4096]
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), flags=re.IGNORECASE)
    if found is None:
        raise UsageError(
            f"{flag} {text} is no size", next="write bytes, or a number with K, M or G, such as 512M or 2G"
        )
    return int(float(found[1]) * UNITS[found[2].upper()])


class Ahead(Generic[Item, Loaded]):
    """Items loaded in order, some ahead of their use.

    Args:
        items: All different; asked for an item when there is room for it, from any thread, one at a time.
        load: Called in a thread for each item. What it raises is raised by `take` when the item has its turn.
        cost: Bytes that an item holds while it is loaded and after, at most.
        size: Bytes that a loaded thing really holds, which count from then on; None keeps to the cost.
        limits: Threads and bytes.
        depth: How many items may be loading or loaded that nobody has taken; may be changed at any time.
    """

    def __init__(
        self,
        items: Iterable[Item],
        load: Callable[[Item], Loaded],
        *,
        cost: Callable[[Item], int] = lambda item: 0,
        size: Callable[[Loaded], int] | None = None,
        limits: DecodeLimits | None = None,
        depth: int,
    ) -> None:
        limits = limits or DecodeLimits()
        self.depth = depth
        self.workers = limits.workers
        self.waited_seconds = 0.0
        self._items: Iterator[Item] = iter(items)
        self._load, self._cost, self._size, self._memory = load, cost, size, limits.memory
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="mmla-prefetch")
        self._context = copy_context()
        self._lock = threading.RLock()  # for all that follows: loading threads advance too
        self._loading: deque[tuple[Item, Future[Loaded]]] = deque()
        self._held: dict[Item, int] = {}
        self._total = 0
        self._next: list[Item] = []  # what was asked of `items` and does not fit yet
        self._closed = False
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_SECONDS, self._switch_seconds))
        self.advance()

    def __enter__(self) -> Ahead[Item, Loaded]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        """Whether items are left to take."""
        with self._lock:
            return bool(self._loading or self._next or self._ask())

    @property
    def head(self) -> Future[Loaded] | None:
        """What `take` gives next; None while the bound lets nothing in, or when nothing is left."""
        with self._lock:
            return self._loading[0][1] if self._loading else None

    @property
    def held_bytes(self) -> int:
        """Bytes that count towards the bound now."""
        return self._total

    def wait(self) -> None:
        """Wait until what `take` gives next is there."""
        if (head := self.head) is not None:
            began = time.perf_counter()
            wait([head])
            self.waited_seconds += time.perf_counter() - began

    def take(self) -> tuple[Item, Loaded]:
        """Wait for the next item. It counts as held until `done` is told.

        Raises:
            RuntimeError: The bound lets nothing in until something that was taken is done with.
        """
        self.wait()
        with self._lock:
            if not self._loading:
                raise RuntimeError("nothing may be loaded before something is done with")
            item, future = self._loading.popleft()
            self.advance()
        return item, future.result()

    def done(self, item: Item) -> None:
        """Say that nobody holds what this item was loaded as."""
        with self._lock:
            self._count(item, None)
            self.advance()

    def advance(self) -> None:
        """Start loading whatever may be loaded now."""
        with self._lock:
            while not self._closed and len(self._loading) < self.depth and (self._next or self._ask()):
                cost = self._cost(self._next[0])
                if self._held and self._total + cost > self._memory:
                    return
                item = self._next.pop()
                self._count(item, cost)
                self._loading.append((item, self._pool.submit(self._context.copy().run, self._loaded, item)))

    def _loaded(self, item: Item) -> Loaded:
        loaded = self._load(item)
        if self._size is not None:
            with self._lock:
                self._count(item, self._size(loaded))
                self.advance()
        return loaded

    def _count(self, item: Item, size: int | None) -> None:
        """Say what an item holds; None ends it."""
        self._total += (size or 0) - self._held.pop(item, 0)
        if size is not None:
            self._held[item] = size

    def _ask(self) -> bool:
        self._next.extend(islice(self._items, 1))
        return bool(self._next)

    def close(self) -> None:
        """Drop what is not taken and end the threads; what is loading is waited for."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._loading.clear()
        sys.setswitchinterval(self._switch_seconds)


def in_batches(
    ahead: Ahead[Item, Loaded],
    full: Callable[[Sequence[Loaded]], bool],
    joins: Callable[[Sequence[Loaded], Loaded], bool],
    use: Callable[[dict[Item, Loaded]], Used],
) -> Iterator[Used]:
    """Fill batches with what is loaded, in order, and use each while the next is loaded.

    Args:
        ahead: As much as the largest batch so far is kept loaded, and one more for each of its threads, which then need
            not stop at the end of a batch.
        full: Whether nothing more can join a batch, whatever it is: then nothing more is waited for.
        joins: Whether a loaded thing still fits into a batch that is not full; one is always let in.
        use: Called in this thread. The loaded things are dropped when it returns.

    Yields:
        What `use` returns.

    Raises:
        Exception: What loading raised, when everything before it has been used and yielded.
    """
    while ahead:
        batch = _filled(ahead, full, joins)
        ahead.depth = max(ahead.depth, len(batch) + ahead.workers)
        ahead.advance()
        used = use(batch)
        items = list(batch)
        del batch
        for item in items:
            ahead.done(item)
        yield used


def _filled(
    ahead: Ahead[Item, Loaded],
    full: Callable[[Sequence[Loaded]], bool],
    joins: Callable[[Sequence[Loaded], Loaded], bool],
) -> dict[Item, Loaded]:
    batch = dict([ahead.take()])
    while ahead and (head := ahead.head) is not None and not full(list(batch.values())):
        ahead.wait()
        if head.exception() is not None or not joins(list(batch.values()), head.result()):
            break
        batch.update([ahead.take()])
    return batch
