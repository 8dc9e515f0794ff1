from __future__ import annotations

import threading

import pytest

from harness_ext.prefetch import Ahead, DecodeLimits
from harness_ext.session import Session, session, timings
from harness_ext.timings import Timings


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_counts_once_however_many_are_in_it() -> None:
    clock = Clock()
    measured = Timings(clock)
    measured.begin("decode")
    clock.now = 1.0
    measured.begin("decode")
    clock.now = 2.0
    measured.end("decode")
    clock.now = 5.0
    assert measured.seconds == {}
    measured.end("decode")
    clock.now = 7.0
    with measured.measure("decode"):
        clock.now = 8.0
    assert measured.seconds == {"decode": 6.0}


def test_stages_stand_in_the_order_of_a_samples_life_and_an_error_ends_one() -> None:
    measured = Timings()
    with pytest.raises(ValueError), measured.measure("generate"):
        raise ValueError
    with measured.measure("decode"):
        pass
    assert list(measured.seconds) == ["decode", "generate"]


def test_what_is_loaded_ahead_is_measured_in_its_own_threads() -> None:
    def load(number: int) -> str:
        with timings().measure("decode"):
            return threading.current_thread().name

    active = Session()
    with session(active), Ahead(range(3), load, limits=DecodeLimits(2, 100), depth=2) as ahead:
        assert {ahead.take()[1].startswith("mmla-prefetch") for _ in range(3)} == {True}
    assert list(active.timings.seconds) == ["decode"]


def test_without_a_run_measuring_is_harmless() -> None:
    with timings().measure("decode"):
        pass
