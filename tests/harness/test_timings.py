from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness_ext import evaluate
from harness_ext.prefetch import Ahead, DecodeLimits
from harness_ext.reports.console import time_line
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


def test_the_time_line_says_what_was_part_of_answering() -> None:
    timings = {
        "total": 9.0, "tasks": 1.0, "load": 2.0, "answer": 5.0, "score": 1.0,
        "stages of answer": {"decode": 4.0, "generate": 3.5, "decode waits": 0.25}, "questions a second": 40.0,
    }  # fmt: skip
    assert time_line(timings, 69.4) == (
        "time 1:09: tasks 1.0 s, load 2.0 s, answer 5.0 s (decode 4.0 s, generate 3.5 s, decode waits 0.2 s), "
        "score 1.0 s; 40.0 questions a second"
    )
    assert time_line({**timings, "stages of answer": {}, "questions a second": None}, 1) == (
        "time 0:01: tasks 1.0 s, load 2.0 s, answer 5.0 s, score 1.0 s"
    )


def test_a_run_tells_its_stages(tmp_path: Path) -> None:
    results = evaluate("mmla-echo", "mmla_emotion_meld", data_dir="sample:7", run_dir=tmp_path)
    told = results["timings"]
    assert told["total"] >= told["tasks"] + told["load"] + told["answer"] and told["questions a second"] > 0
    again = evaluate("mmla-echo", "mmla_emotion_meld", data_dir="sample:7", run_dir=tmp_path)
    assert again["timings"]["questions a second"] is None  # all found in the journal
