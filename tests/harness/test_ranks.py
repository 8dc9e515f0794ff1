"""What one process of several knows of itself. Whole runs over several: tests/integration/test_ranks.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness_ext.ranks import Ranks
from harness_ext.requests import Request
from harness_ext.session import _share
from mmla_tasks.records import Clip


class Model:
    def __init__(self, deterministic: bool) -> None:
        self.deterministic = deterministic


def request(number: int, prompt: str) -> Request:
    return Request("t", str(number), prompt, ("a", "b"), "x:", {"do_sample": False})


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some clusters export for every job
    assert Ranks.of_environment() == Ranks(0, 1)
    assert Ranks().gather("x") == ["x"] and Ranks().share([1, 2, 3]) == [1, 2, 3]
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "host"}.items():
        monkeypatch.setenv(name, value)
    assert Ranks.of_environment() == Ranks(3, 8, 1) and not Ranks.of_environment().is_first


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_requests_are_shared_out_once_and_evenly(count: int) -> None:
    requests = [request(n, "word " * (n * 37 % 100)) for n in range(100)]
    todo = [n for n in range(100) if n % 3]
    parts = [_share(Model(True), requests, todo, Ranks(i, count)) for i in range(count)]  # type: ignore[arg-type]
    assert sorted(n for part in parts for n in part) == todo
    lengths = [sum(len(requests[n].prompt) for n in part) for part in parts]
    assert max(lengths) - min(lengths) <= 500  # the longest prompt


def test_equal_questions_stay_together() -> None:
    requests = [request(n, f"prompt {n % 5}") for n in range(50)]
    parts = [_share(Model(True), requests, list(range(50)), Ranks(i, 2)) for i in range(2)]  # type: ignore[arg-type]
    questions = [{requests[n].prompt for n in part} for part in parts]
    assert not questions[0] & questions[1] and sorted(map(len, parts)) == [20, 30]
    parts = [_share(Model(False), requests, list(range(50)), Ranks(i, 2)) for i in range(2)]  # type: ignore[arg-type]
    assert sorted(map(len, parts)) == [25, 25]


def test_a_backend_that_spreads_by_itself_is_started_once(
    mmla: Callable[..., Any], meld_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from harness_ext.backends.echo import EchoLM

    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "host"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Ranks, "together", lambda self: nullcontext())
    monkeypatch.setattr(EchoLM, "own_parallel", "data_parallel_size=N", raising=False)
    ran = mmla("run", "--model", "mmla-echo", "--tasks", "mmla_emotion_meld_text", "--data_dir", meld_root)
    assert ran.status == 2 and "start it once, not as 4 processes" in ran.err
    assert "--model_args data_parallel_size=N" in ran.err


def test_questions_about_one_clip_stay_together() -> None:
    clips = [Clip(path=f"{n % 6}.mp4", start_seconds=0.0, end_seconds=None, size=9, mtime_ns=1) for n in range(24)]
    requests = [replace(request(n, f"prompt {n}"), clip=clip) for n, clip in enumerate(clips)]
    parts = [_share(Model(True), requests, list(range(24)), Ranks(i, 2)) for i in range(2)]  # type: ignore[arg-type]
    files = [{clips[n]["path"] for n in part} for part in parts]
    assert not files[0] & files[1] and list(map(len, parts)) == [12, 12]
