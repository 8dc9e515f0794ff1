"""The next batch is loaded in threads while the model works on this one: `prefetched`, for every backend.

PyAV, hashing and reading let other threads run, so decoding costs no time where a core is free or the model is on a
GPU. At most two batches are alive: the one in use and the one ahead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Final, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Used = TypeVar("Used")

THREADS: Final = min(4, os.cpu_count() or 1)
"""Clips that are decoded at once; each decoder also keeps some frames of its own."""


def prefetched(
    batches: Iterable[Sequence[Item]],
    load: Callable[[Item], Loaded],
    use: Callable[[Sequence[Item], list[Loaded]], Used],
    waited: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Used]:
    """Use batch after batch, in order, loading the items of the next one meanwhile.

    Args:
        batches: Asked for one batch ahead of what is in use, never further.
        load: Called in a thread for each item. What it raises is raised here when its batch has its turn: every
            batch before has been used and yielded then.
        use: Called in this thread with a batch and what its items were loaded as. The loaded things are dropped when
            it returns.
        waited: Called with the seconds that each batch was waited for.

    Yields:
        What `use` returns.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mmla-prefetch")
    ahead: tuple[Sequence[Item], list[Future[Loaded]]] | None = None
    try:
        for batch in chain(batches, [()]):  # the last one has nothing ahead of it
            loading = [pool.submit(load, item) for item in batch]
            if ahead is not None:
                yield use(ahead[0], _results(ahead[1], waited))
            ahead = batch, loading
    finally:
        pool.shutdown(cancel_futures=True)


def _results(loading: list[Future[Loaded]], waited: Callable[[float], object]) -> list[Loaded]:
    began = time.perf_counter()
    try:
        return [future.result() for future in loading]
    finally:
        waited(time.perf_counter() - began)
