from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from itertools import islice

import pytest

from harness_ext.prefetch import Ahead, DecodeLimits, prefetched


class Thing:
    """Something large, such as the frames of a clip."""

    def __init__(self, item: int) -> None:
        self.item = item


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mmla-prefetch")]


def test_batches_come_in_order_with_their_items() -> None:
    batches = [[3, 1], [2], [9, 8, 7]]
    used = prefetched(batches, Thing, lambda batch, things: (list(batch), [thing.item for thing in things]))
    assert list(used) == [(batch, batch) for batch in batches]
    assert list(prefetched([], Thing, lambda batch, things: batch)) == []
    assert ours() == []


def test_the_next_batch_is_loaded_while_this_one_is_used_and_no_other() -> None:
    loaded: list[int] = []
    second = threading.Event()

    def load(item: int) -> int:
        loaded.append(item)
        if len(loaded) == 4:
            second.set()
        return item

    def use(batch: object, items: list[int]) -> list[int]:
        if items == [0, 1]:
            assert second.wait(10)  # would never come without prefetch
            time.sleep(0.05)
            assert sorted(loaded) == [0, 1, 2, 3]
        return items

    assert list(prefetched(([n, n + 1] for n in range(0, 8, 2)), load, use)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_two_batches_are_alive_at_most() -> None:
    alive: list[weakref.ref[Thing]] = []
    most = 0

    def load(item: int) -> Thing:
        thing = Thing(item)
        alive.append(weakref.ref(thing))
        return thing

    def use(batch: object, things: list[Thing]) -> int:
        nonlocal most
        time.sleep(0.01)  # time enough to load what may be loaded
        most = max(most, sum(ref() is not None for ref in alive))
        return len(things)

    assert sum(prefetched([[n] * 3 for n in range(9)], load, use)) == 27
    assert 3 < most <= 6


def test_batches_are_planned_one_ahead() -> None:
    size, planned = 4, []

    def plan() -> Iterator[list[int]]:
        left = list(range(12))
        while left:
            planned.append(size)
            batch, left = left[:size], left[size:]
            yield batch

    def use(batch: list[int], items: list[int]) -> list[int]:
        nonlocal size
        size = 2
        return items

    assert list(prefetched(plan(), int, use)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11]]
    assert planned == [4, 4, 2, 2]


def load_but_not_5(item: int) -> int:
    if item == 5:
        raise ValueError("5 is bad")
    return item


def test_an_error_is_raised_when_its_batch_has_its_turn() -> None:
    got = []
    with pytest.raises(ValueError, match="5 is bad"):
        for items in prefetched([[1, 2], [3, 4], [5, 6], [7, 8]], load_but_not_5, lambda batch, items: items):
            got.append(items)
    assert got == [[1, 2], [3, 4]]
    assert ours() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_use_and_an_early_stop_leave_no_thread(error: type[BaseException]) -> None:
    def use(batch: list[int], items: list[int]) -> list[int]:
        if items == [2]:
            raise error
        return items

    with pytest.raises(error):
        list(prefetched([[n] for n in range(5)], int, use))
    assert ours() == []
    stopped = prefetched([[n] for n in range(5)], int, lambda batch, items: items)
    assert list(islice(stopped, 2)) == [[0], [1]]
    assert ours()
    stopped.close()  # type: ignore[attr-defined]
    assert ours() == []


def test_waits_are_counted() -> None:
    waits: list[float] = []
    list(prefetched([[0.05], [0.0]], time.sleep, lambda batch, items: time.sleep(0.01), waited=waits.append))
    assert len(waits) == 2
    assert waits[0] >= 0.04
    assert waits[1] < 0.04


def test_no_more_bytes_are_alive_than_the_bound() -> None:
    alive = most = 0
    lock = threading.Lock()

    def load(item: int) -> int:
        nonlocal alive, most
        with lock:
            alive += 30
            most = max(most, alive)
        return item

    with Ahead(range(40), load, cost=lambda n: 30, limits=DecodeLimits(3, 100), depth=99) as ahead:
        taken = []
        while ahead:
            while ahead.head is not None:
                taken.append(ahead.take()[0])
            time.sleep(0.001)
            with lock:
                alive -= 30
            ahead.done(0)
    assert taken == list(range(40))
    assert most == 90


def test_one_item_larger_than_the_bound_is_let_through_alone() -> None:
    used = prefetched(
        [[n] for n in range(4)], int, lambda batch, items: items, cost=lambda n: 500, limits=DecodeLimits(2, 100)
    )
    assert list(used) == [[0], [1], [2], [3]]


def test_taking_what_may_not_be_loaded_is_an_error_and_no_hang() -> None:
    with Ahead(range(3), int, cost=lambda n: 60, limits=DecodeLimits(1, 100), depth=2) as ahead:
        ahead.take()
        assert ahead and ahead.head is None
        with pytest.raises(RuntimeError, match="nothing may be loaded"):
            ahead.take()
