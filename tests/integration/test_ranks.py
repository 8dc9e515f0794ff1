"""Runs shared by two processes, started by torchrun or accelerate: the results of one, whatever happens to either."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ..folders import journaled, lines, written

pytestmark = pytest.mark.slow

TASK = "mmla_emotion_meld_text"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
MMLA = ["-m", "harness_ext.cli"]


def launched(arguments: Sequence[object], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *MMLA, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def on_two_machines(arguments: Sequence[object], folders: Sequence[Path]) -> list[subprocess.CompletedProcess[str]]:
    """Two launchers that meet on the loopback, each with one process and in a folder of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launchers = []
    for rank, folder in enumerate(folders):
        where = ["--num_machines", "2", "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"]
        command = [*ACCELERATE, *where, "--main_process_port", str(port), *MMLA, *map(str, arguments)]
        launchers.append(
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    done = [launcher.communicate(timeout=240) for launcher in launchers]
    return [
        subprocess.CompletedProcess(launcher.args, launcher.returncode, *texts)
        for launcher, texts in zip(launchers, done, strict=True)
    ]


@pytest.fixture
def alone(mmla: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in this process, from a folder."""

    def run(arguments: Sequence[object], cwd: Path) -> None:
        cwd.mkdir(exist_ok=True)
        monkeypatch.chdir(cwd)
        ran = mmla(*arguments)
        assert ran.status == 0, ran.err

    return run


def echo(root: Path, model_args: str = "history_file=asked.log") -> list[object]:
    return ["run", "--model", "mmla-echo", "--model_args", model_args, "--tasks", "mmla_emotion_text",
            "--data_dir", root, "--run_dir", "run", "--answer", "rank"]  # fmt: skip


@pytest.fixture
def root(data_root: Callable[..., Path], meld_root: Path) -> Path:
    return data_root(IEMOCAP=[(str(n), f"Line {n}.", "Happy" if n % 3 else "Sad") for n in range(300)])


def test_two_processes_give_the_results_of_one(root: Path, tmp_path: Path, alone: Callable[..., None]) -> None:
    alone(echo(root), tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    alone([*echo(root), "--limit", 10], two)  # what one process answered is not asked again by two
    ran = launched(echo(root), two)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("2 processes share the requests") == 1 and ran.stdout.count("wrote run/results.json") == 1
    assert written(two / "run") == written(tmp_path / "one" / "run")
    asked = lines(two / "asked.log")
    assert len(asked) == len(set(asked)) == 342
    parts = [len(lines(two / "run" / "journal" / f"answers{part}.jsonl")) for part in ("", "-1")]
    assert parts == [20 + 161, 161]
    alone(echo(root), two)  # nor by one again
    assert len(lines(two / "asked.log")) == 342


def test_machines_without_a_common_disk(root: Path, tmp_path: Path, alone: Callable[..., None]) -> None:
    """The first one's folder gets every answer. A folder of the second that cannot be used stops both, with one message."""
    first, second = folders = [tmp_path / "machine0", tmp_path / "machine1"]
    for folder in folders:
        folder.mkdir()
    alone(echo(root), tmp_path / "one")
    (second / "run").write_text("in the way")
    stopped = on_two_machines(echo(root), folders)
    assert all(launcher.returncode != 0 for launcher in stopped)
    assert stopped[0].stderr.count("error: the run folder cannot be written") == 1, stopped[0].stderr
    assert "rank 1 of 2" in stopped[0].stderr and "error: the run" not in stopped[1].stderr
    assert not lines(first / "asked.log")

    (second / "run").unlink()
    ran = on_two_machines(echo(root), folders)
    assert [launcher.returncode for launcher in ran] == [0, 0], ran
    assert written(first / "run") == written(tmp_path / "one" / "run")
    assert len(journaled(first / "run")) == 342
    assert len(journaled(second / "run")) == 171
    assert not (second / "run" / "results.json").exists()


def test_a_killed_process_ends_the_other_and_the_run_goes_on(
    root: Path, tmp_path: Path, alone: Callable[..., None]
) -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    command = echo(root, "history_file=asked.log,delay_ms=8")
    alone(command, tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    launcher = subprocess.Popen(
        [*ACCELERATE, "--num_machines", "1", "--main_process_port", "0", *MMLA, *map(str, command)],
        cwd=two,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while len(lines(two / "asked.log")) < 60:
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(launcher.pid).children()
    second = next(worker for worker in workers if worker.environ().get("RANK") == "1")
    os.kill(second.pid, signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode != 0, errors
    assert not any(worker.is_running() for worker in workers)
    known, before = journaled(two / "run"), len(lines(two / "asked.log"))
    assert 0 < len(known) < 342
    ran = launched(command, two)
    assert ran.returncode == 0, ran.stderr
    assert not known & set(lines(two / "asked.log")[before:])
    assert written(two / "run") == written(tmp_path / "one" / "run")


def test_two_processes_with_a_real_model(
    smollm2: Path, shared: Path, tmp_path: Path, alone: Callable[..., None]
) -> None:
    """Equal questions among them; the same answers and metrics, probabilities within 1e-4."""
    command = ["run", "--model", "mmla-hf", "--model_args", f"pretrained={smollm2},dtype=float32", "--answer", "rank",
               "--tasks", "mmla_communication_behavior_annomi_client_text", "--data_dir", shared / "mmla_data",
               "--limit", 24, "--batch_size", 4]  # fmt: skip
    alone([*command, "--run_dir", "run"], tmp_path / "one")
    ran = launched([*command, "--run_dir", "run"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    one, two = (json.loads((folder / "run" / "results.json").read_text()) for folder in (tmp_path / "one", tmp_path))
    assert one["results"] == two["results"]
    first, second = (rows(folder / "run") for folder in (tmp_path / "one", tmp_path))
    for a, b in zip(first, second, strict=True):
        assert (a["doc_id"], a["filtered_resps"]) == (b["doc_id"], b["filtered_resps"])
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted((run / "samples").iterdir()) for line in lines(file)]
