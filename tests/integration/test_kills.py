"""Runs that are killed, with ``kill -9`` at random moments, and gone on with: nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from harness_ext.cli import main

from ..folders import journaled, lines, written

pytestmark = pytest.mark.slow

TASK = "mmla_emotion_meld_text"
ROWS = 2_000
LABELS = ["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"]
Start = Callable[..., BaseProcess]


@pytest.fixture(scope="module")
def start() -> Start:
    """Start `mmla` in a process of its own. One process imports everything once; the others are forked from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["harness_ext.run", "harness_ext.results", "harness_ext.reports.scorecard", "harness_ext.cli.progress",
         "lm_eval.evaluator", "lm_eval.models", "lm_eval._cli.utils", "harness_ext.backends.hf_load", "transformers",
         "harness_ext.backends.hf"]
    )  # fmt: skip

    def begin(*arguments: object) -> BaseProcess:
        process = context.Process(target=main, args=([str(a) for a in arguments],))
        process.start()
        return process

    begin("where").join()
    return begin


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a folder of its own, so that equal commands with relative paths make runs of their own."""

    def go(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        return folder

    return go


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    rng = random.Random(4)
    return data_root(MELD=[(f"{n // 20}_{n % 20}", f"Sentence {n}.", rng.choice(LABELS)) for n in range(ROWS)])


def command(root: Path) -> list[object]:
    model = "rule=gold,error_rate=0.4,delay_ms=4,history_file=asked.log"
    return ["run", "--model", "mmla-echo", "--model_args", model, "--tasks", TASK, "--data_dir", root,
            "--answer", "rank", "--run_dir", "run"]  # fmt: skip


def shards(count: int) -> list[list[object]]:
    return [["--shard", f"{i}/{count}"] for i in range(1, count + 1)] if count > 1 else [[]]


def kill(process: BaseProcess) -> bool:
    """Kill it and tell whether it was still alive."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode != 0


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(("processes", "rounds"), [(1, 8), (2, 3), (3, 2)])  # 8 + 6 + 6 kills
def test_kill_at_random_moments(
    processes: int, rounds: int, start: Start, place: Callable[[str], Path], root: Path
) -> None:
    undisturbed = place("undisturbed")
    whole = start(*command(root))
    killed, rng, kills = place("killed"), random.Random(processes), 0
    log, run = killed / "asked.log", killed / "run"
    for number in range(rounds + 1):
        known, before = journaled(run), len(lines(log))
        running = [start(*command(root), *shard) for shard in shards(processes)]
        if number == rounds:  # once more while results are scored and written
            wait_until(lambda: len(journaled(run)) == ROWS)
        elif number % 2:
            wait_until(lambda before=before: len(lines(log)) > before)
        for process in running:
            time.sleep(rng.uniform(0, 0.8))
            kills += kill(process)
        asked = lines(log)[before:]
        assert not known & set(asked), "an answer of the journal was asked again"
        assert len(set(asked) - journaled(run)) <= processes  # those in flight
    finish(start, root, processes)
    whole.join()
    assert written(run) == written(undisturbed / "run")
    asked = lines(log)
    assert len(set(asked)) == ROWS == len(lines(undisturbed / "asked.log"))
    print(f"{processes} processes: {kills} kills, {len(asked) - ROWS} requests in flight asked again")
    assert len(asked) - ROWS <= kills and kills >= processes * rounds


def finish(start: Start, root: Path, processes: int) -> None:
    for running in [start(*command(root), *shard) for shard in shards(processes)]:
        running.join()
        assert running.exitcode == 0
    if processes > 1:
        merging = start("merge", "run")
        merging.join()
        assert merging.exitcode == 0


def test_a_second_run_in_the_folder_stops(start: Start, place: Callable[[str], Path], root: Path) -> None:
    folder = place("both")
    first = start(*command(root))
    wait_until(lambda: len(lines(folder / "asked.log")) > 5)
    done = subprocess.run(
        [sys.executable, "-m", "harness_ext.cli", *map(str, command(root))], capture_output=True, text=True
    )
    assert done.returncode == 2 and "another process is at work in run" in done.stderr, done.stderr
    assert first.is_alive()
    kill(first)  # its lock ends with it
    asked = len(lines(folder / "asked.log"))
    again = start(*command(root), "--limit", 1)
    again.join()
    assert again.exitcode == 0 and len(lines(folder / "asked.log")) == asked


def test_kill_a_real_model(start: Start, place: Callable[[str], Path], smollm2: Path, shared: Path) -> None:
    """SmolLM2 ranks 40 real rows; killed twice, gone on with, also with another batch size."""
    mmla = ["run", "--model", "mmla-hf", "--model_args", f"pretrained={smollm2},dtype=float32", "--answer", "rank",
            "--tasks", "mmla_speaking_style_mustard_text", "--data_dir", shared / "mmla_data", "--limit", 40,
            "--run_dir", "run"]  # fmt: skip
    undisturbed = place("undisturbed")
    whole = start(*mmla, "--batch_size", 4)
    whole.join()
    assert whole.exitcode == 0
    killed = place("killed")
    for count, size in ((9, 4), (23, 5)):
        running = start(*mmla, "--batch_size", size)
        wait_until(lambda count=count: len(journaled(killed / "run")) >= count)
        kill(running)
    found = len(journaled(killed / "run"))
    assert 23 <= found < 40
    last = start(*mmla, "--batch_size", 8)
    last.join()
    assert last.exitcode == 0
    assert len(lines(killed / "run" / "journal" / "answers.jsonl")) == 40
    assert_same_answers(undisturbed / "run", killed / "run")


def assert_same_answers(one: Path, other: Path) -> None:
    """The same labels and metrics, probabilities within 1e-4."""
    first, second = (json.loads((run / "results.json").read_text()) for run in (one, other))
    assert first["results"] == second["results"]
    for a, b in zip(samples(one), samples(other), strict=True):
        assert (a["doc_id"], a["filtered_resps"], a["prompt_hash"]) == (b["doc_id"], b["filtered_resps"], b["prompt_hash"])  # fmt: skip
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)


def samples(run: Path) -> Iterator[dict[str, Any]]:
    for file in sorted((run / "samples").iterdir()):
        yield from map(json.loads, lines(file))
