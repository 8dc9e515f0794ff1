from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from harness_ext.prefetch import Ahead, DecodeLimits, in_batches, read_bytes
from mmla_tasks.errors import UsageError


class Thing:
    """Something large, such as the frames of a clip."""

    def __init__(self, item: int) -> None:
        self.item = item


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mmla-prefetch")]


def of(size: int) -> Callable[[Sequence[object]], bool]:
    return lambda batch: len(batch) >= size


def always(batch: Sequence[object], another: object) -> bool:
    return True


def keys(batch: dict[int, object]) -> list[int]:
    return list(batch)


def test_batches_come_in_order_and_one_thing_always_fits() -> None:
    with Ahead([3, 1, 2, 9, 8], Thing, depth=2) as ahead:
        batches = in_batches(ahead, of(2), always, lambda batch: [(item, thing.item) for item, thing in batch.items()])
        assert list(batches) == [[(3, 3), (1, 1)], [(2, 2), (9, 9)], [(8, 8)]]
    with Ahead(range(3), int, depth=2) as ahead:
        assert list(in_batches(ahead, of(9), lambda batch, another: False, keys)) == [[0], [1], [2]]
    with Ahead([], int, depth=2) as ahead:
        assert list(in_batches(ahead, of(2), always, keys)) == []
    assert ours() == []


def test_a_batch_is_filled_by_what_was_loaded() -> None:
    """Lengths are known only then; none above the bound shares a batch."""
    lengths = [7, 2, 2, 1, 5, 5, 1]
    with Ahead(range(7), lengths.__getitem__, depth=1) as ahead:
        batches = in_batches(ahead, of(9), lambda batch, another: sum(batch) + another <= 6, keys)
        assert list(batches) == [[0], [1, 2, 3], [4], [5, 6]]


def test_the_next_batch_is_loaded_while_this_one_is_used_and_one_more_for_each_thread() -> None:
    loaded: list[int] = []
    second = threading.Event()

    def load(item: int) -> int:
        loaded.append(item)
        if len(loaded) == 4:
            second.set()
        return item

    def use(batch: dict[int, int]) -> list[int]:
        if 0 in batch:
            assert second.wait(10)  # would never come without prefetch
            time.sleep(0.05)
            assert sorted(loaded) == [0, 1, 2, 3, 4]
        return list(batch)

    with Ahead(range(8), load, limits=DecodeLimits(1), depth=3) as ahead:
        assert list(in_batches(ahead, of(2), always, use)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_two_batches_are_alive_at_most_and_one_more_for_each_thread() -> None:
    alive: list[weakref.ref[Thing]] = []
    most = 0

    def load(item: int) -> Thing:
        thing = Thing(item)
        alive.append(weakref.ref(thing))
        return thing

    def use(batch: dict[int, Thing]) -> int:
        nonlocal most
        time.sleep(0.01)  # time enough to load what may be loaded
        most = max(most, sum(ref() is not None for ref in alive))
        return len(batch)

    with Ahead(range(27), load, limits=DecodeLimits(1), depth=4) as ahead:
        assert sum(in_batches(ahead, of(3), always, use)) == 27
    assert 3 < most <= 7


def load_but_not_5(item: int) -> int:
    if item == 5:
        raise ValueError("5 is bad")
    return item


def test_an_error_is_raised_when_everything_before_it_has_been_used() -> None:
    got = []
    with Ahead(range(8), load_but_not_5, depth=3) as ahead, pytest.raises(ValueError, match="5 is bad"):
        for items in in_batches(ahead, of(3), always, keys):
            got.append(items)
    assert got == [[0, 1, 2], [3, 4]]
    assert ours() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_use_and_an_early_stop_leave_no_thread(error: type[BaseException]) -> None:
    def use(batch: dict[int, int]) -> list[int]:
        if 2 in batch:
            raise error
        return list(batch)

    with pytest.raises(error), Ahead(range(5), int, depth=1) as ahead:
        list(in_batches(ahead, of(2), always, use))
    assert ours() == []
    with Ahead(range(5), int, depth=1) as ahead:
        assert next(in_batches(ahead, of(2), always, keys)) == [0, 1]
        assert ours()
    assert ours() == []


def test_waits_are_counted() -> None:
    with Ahead([0.05, 0.0], time.sleep, limits=DecodeLimits(1), depth=2) as ahead:
        ahead.take()
        assert ahead.waited_seconds >= 0.04
        time.sleep(0.02)
        before = ahead.waited_seconds
        ahead.take()
        assert ahead.waited_seconds - before < 0.02


@pytest.mark.parametrize("speed", [2.0, 1.0, 0.5])
def test_a_model_and_its_decoders_work_at_the_same_time(speed: float) -> None:
    """Both are sleeps, measured where they happen, so that other work on this machine counts for both sides alike."""
    clips, size, workers = 160, 8, 2
    planned = [0.006 + 0.012 * (n * 7 % 11) / 11 for n in range(clips)]  # unlike, as real clips are
    decoding: list[float] = []
    modelling: list[float] = []

    def slept(seconds: float, noted: list[float]) -> None:
        began = time.perf_counter()
        time.sleep(seconds)
        noted.append(time.perf_counter() - began)

    began = time.perf_counter()
    with Ahead(range(clips), lambda n: slept(planned[n], decoding), limits=DecodeLimits(workers), depth=size) as ahead:
        each = speed * sum(planned) / workers / (clips / size)
        for _ in in_batches(ahead, of(size), always, lambda batch: slept(each, modelling)):
            pass
    assert time.perf_counter() - began <= 1.3 * max(sum(decoding) / workers, sum(modelling))


def test_what_is_held_counts_by_its_real_size_once_loaded() -> None:
    """The bound lets one in at its cost of 60; three are held when they turn out to be 20 each, and no fourth."""
    loaded: list[int] = []

    def load(item: int) -> int:
        loaded.append(item)
        return 20

    with Ahead(range(6), load, cost=lambda item: 60, size=int, limits=DecodeLimits(2, 110), depth=6) as ahead:
        deadline = time.monotonic() + 10
        while ahead.held_bytes != 60 or len(loaded) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.05)
        assert loaded == [0, 1, 2]
        item, _ = ahead.take()
        ahead.done(item)
        assert [ahead.take()[0] for _ in range(2)] == [1, 2]


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
        taken: deque[int] = deque()
        done = []
        while ahead or taken:
            while ahead.head is not None:
                taken.append(ahead.take()[0])
            time.sleep(0.001)
            with lock:
                alive -= 30
            done.append(taken.popleft())
            ahead.done(done[-1])
    assert done == list(range(40))
    assert most == 90


def test_one_item_larger_than_the_bound_is_let_through_alone() -> None:
    with Ahead(range(4), int, cost=lambda n: 500, limits=DecodeLimits(2, 100), depth=3) as ahead:
        assert list(in_batches(ahead, of(2), always, keys)) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 512 << 20), ("2G", 2 << 30), ("1.5k", 1536), ("70000", 70_000), ("64 MiB", 64 << 20)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1G", "3Q", "1e9", "two"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"--decode_memory .*is no size"):
        read_bytes(text, "--decode_memory")


def test_taking_what_may_not_be_loaded_is_an_error_and_no_hang() -> None:
    with Ahead(range(3), int, cost=lambda n: 60, limits=DecodeLimits(1, 100), depth=2) as ahead:
        ahead.take()
        assert ahead and ahead.head is None
        with pytest.raises(RuntimeError, match="nothing may be loaded"):
            ahead.take()
