"""Two processes share a run under ZeRO-3, as torchrun starts them, on the CPU."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate

from .learner import tiny_learner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed's operators for the CPU are built on Linux"),
]
TASK = "mmla_emotion_meld"


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("deepspeed", reason="the extra `finetune` is not installed")
    return tiny_learner(tmp_path_factory.mktemp("learner"))


def command(learner: Path, folder: Path, batch: int, *more: str, processes: int = 1) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
    flags: dict[str, Any] = {
        "model": learner,
        "tasks": TASK,
        "data_dir": "sample",
        "modality": "text",
        "output_dir": folder,
        "learning_rate": 1e-3,
        "batch_size": batch,
        "max_steps": 5,
        "selection.every": 5,
        "selection.rows": 15,  # an odd number: one process asks a question twice, for company
        "save_every": 100,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    return [
        sys.executable,
        *(torchrun if processes > 1 else []),
        "-m",
        "harness_ext.cli",
        "finetune",
        "run",
        *words,
        *more,
    ]


def ran(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows_of(folder: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    file = folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows_of(folder)]


def test_zero3_agrees_with_one_process_and_goes_on_exactly(learner: Path, tmp_path: Path) -> None:
    ran(command(learner, tmp_path / "one", 8))
    ran(command(learner, tmp_path / "two", 4, "--deepspeed", "zero3", processes=2))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == 5 and two == pytest.approx(one, abs=1e-2)
    looks = [rows_of(tmp_path / name, "selection.jsonl") for name in ("one", "two")]
    assert [[look["step"], look["acc"]] for look in looks[0]] == [[look["step"], look["acc"]] for look in looks[1]]

    args = {"pretrained": str(learner), "dtype": "float32", "peft": str(tmp_path / "two/adapter")}
    results = evaluate("mmla-hf", [f"{TASK}_text"], model_args=args, data_dir="sample", answer="rank", limit=4)
    assert results["n-samples"][f"{TASK}_text"]["effective"] == 4

    cut = command(learner, tmp_path / "cut", 4, "--deepspeed", "zero3", processes=2)
    process = subprocess.Popen(cut, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(rows_of(tmp_path / "cut")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # as Ctrl-C; torchrun passes it on
    assert process.wait(timeout=240) != 0
    (stopped_at,) = [int(path.name.split("-")[1]) for path in (tmp_path / "cut/checkpoints").iterdir()]
    assert 2 <= stopped_at < 5
    ran(cut)
    assert losses(tmp_path / "cut") == pytest.approx(two, abs=1e-4) and len(losses(tmp_path / "cut")) == 5


def test_a_killed_process_ends_all_with_a_message(learner: Path, tmp_path: Path) -> None:
    words = command(learner, tmp_path / "run", 4, "--max_steps", "200", "--save_every", "2", processes=2)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "run/checkpoints/checkpoint-2").exists():
        assert process.poll() is None
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    subprocess.run(["kill", "-9", children.split()[-1]], check=True)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0 and "SIGKILL" in output
    left = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir() if not path.name.endswith(".part"))
    assert left and all((tmp_path / "run/checkpoints" / name / "trainer_state.json").exists() for name in left)


def test_zero3_trains_whole_weights(learner: Path, tmp_path: Path) -> None:
    """They are ranked on dev first: what is kept of that must not stand in the way of a gradient."""
    more = ("--deepspeed", "zero3", "--adapter", "none", "--max_steps", "2", "--selection.every", "1")
    ran(command(learner, tmp_path / "two", 4, *more, processes=2))
    assert len(losses(tmp_path / "two")) == 2 and (tmp_path / "two/model/config.json").is_file()
