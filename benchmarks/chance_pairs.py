"""How often `mmla compare` finds a difference between runs that differ by chance alone.

    python benchmarks/chance_pairs.py [DATA_DIR] [LIMIT]

Makes 101 runs of `mmla-echo` on all twelve text tasks (the embedded sample unless DATA_DIR names real texts; LIMIT
rows per task, 100 unless given), each row wrong with probability 0.3, seeds 0 to 100, and compares run s with run
s + 1. Prints how many of the 100 pairs show no significant task; at least 95 should.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness_ext import evaluate
from harness_ext.reports.comparison import compare_runs
from harness_ext.reports.run_files import Run, read_run


def made(folder: Path, seed: int, data_dir: str, limit: int) -> Run:
    options = {"model_args": {"rule": "gold", "error_rate": 0.3, "seed": seed}, "data_dir": data_dir, "limit": limit}
    evaluate("mmla-echo", "mmla_text", run_dir=folder / str(seed), **options)
    return read_run(folder / str(seed))


def main(data_dir: str = "sample:100", limit: int = 100) -> None:
    quiet = 0
    with tempfile.TemporaryDirectory() as folder:
        earlier = made(Path(folder), 0, data_dir, limit)
        for seed in range(100):
            later = made(Path(folder), seed + 1, data_dir, limit)
            compared = compare_runs(earlier, later)
            quiet += not compared.scores.significant
            for task in compared.scores.significant:
                print(f"seeds {seed} and {seed + 1}: {task}, p {compared.scores.tasks[task].corrected:.3f}")
            earlier = later
    print(f"{quiet} of 100 pairs without a significant task")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
