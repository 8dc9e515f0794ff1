"""SmolLM2-135M-Instruct ranks the labels of 200 real rows; killed four times, gone on with, and compared.

Run as ``MMLA_DATA_DIR=... python benchmarks/kill_smollm2.py [--run_dir runs/kill_smollm2]``. The kills are ``kill -9``
at random moments (from a seed), each time with another batch size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = {"mmla_intent_mintrec_text": 80, "mmla_emotion_meld_text": 60, "mmla_sentiment_chsims2_text": 60}
KILLS = 4
TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/kill_smollm2"))
    args = parser.parse_args()
    if "MMLA_DATA_DIR" not in os.environ:
        print("set MMLA_DATA_DIR to a folder in the Hub layout")
        return 2
    shutil.rmtree(args.run_dir, ignore_errors=True)
    whole, killed = args.run_dir / "whole", args.run_dir / "killed"
    start(whole, batch_size=8).wait()
    print("| kill | answers in the journal before | at the kill |\n|---:|---:|---:|")
    rng = random.Random(0)
    stops = sorted(rng.sample(range(1, sum(ROWS.values())), KILLS))
    for number, (stop, batch_size) in enumerate(zip(stops, (8, 4, 1, 6), strict=True), start=1):
        before = answers(killed)
        process = start(killed, batch_size)
        while answers(killed) < max(stop, before + 1) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"| {number} | {before} | {answers(killed)} |")
    start(killed, batch_size=8).wait()
    return report(whole, killed)


def start(run_dir: Path, batch_size: int) -> subprocess.Popen[bytes]:
    from harness_ext.models import smollm2_folder

    model = f"pretrained={smollm2_folder()},dtype=float32"
    rows = json.dumps({task: list(range(count)) for task, count in ROWS.items()})
    command = ["run", "--model", "mmla-hf", "--model_args", model, "--answer", "rank", "--tasks", ",".join(ROWS),
               "--samples", rows, "--batch_size", str(batch_size), "--run_dir", str(run_dir)]  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "harness_ext.cli", *command], stdout=subprocess.DEVNULL)


def answers(run_dir: Path) -> int:
    from harness_ext.journal import answer_count

    return answer_count(run_dir / "journal")


def report(whole: Path, killed: Path) -> int:
    """Say how the two runs differ; 0 when they do not."""
    first, second = (json.loads((run / "results.json").read_text())["results"] for run in (whole, killed))
    pairs = list(zip(samples(whole), samples(killed), strict=True))
    same = sum(a["filtered_resps"] == b["filtered_resps"] for a, b in pairs)
    apart = max(abs(p - b["probabilities"][label]) for a, b in pairs for label, p in a["probabilities"].items())
    lines = sum(file.read_bytes().count(b"\n") for file in (killed / "journal").iterdir())
    print(f"\n{same} of {len(pairs)} answers are the same, metrics {'too' if first == second else 'DIFFER'}")
    print(f"probabilities differ by {apart:.1e} at most; {lines} lines in the journal for {len(pairs)} rows")
    return 0 if same == len(pairs) == lines and first == second and apart <= TOLERANCE else 1


def samples(run: Path) -> Iterator[dict[str, Any]]:
    for task in ROWS:
        yield from map(json.loads, (run / "samples" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
