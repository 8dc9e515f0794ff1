"""Score every test row of the twelve text tasks with `mmla-echo`: wall time, memory, and whether torch was imported.

MMLA_DATA_DIR=... python benchmarks/all_texts.py
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

CODE = (
    "import sys; from harness_ext.cli import main; "
    "status = main(['run', '--model', 'mmla-echo', '--tasks', 'mmla_text']); "
    "print('torch imported:', 'torch' in sys.modules); sys.exit(status)"
)
LIMIT_SECONDS, LIMIT_MEGABYTES = 25.0, 1000.0


def main() -> int:
    if "MMLA_DATA_DIR" not in os.environ:
        print("set MMLA_DATA_DIR to a folder in the Hub layout")
        return 2
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    imported = done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr
    print("| tasks | rows | wall time | peak memory | torch |")
    print("|---:|---:|---:|---:|---|")
    print(f"| 12 | 15,710 | {seconds:.1f} s | {megabytes:.0f} MB | {imported} |")
    good = done.returncode == 0 and seconds <= LIMIT_SECONDS and megabytes <= LIMIT_MEGABYTES and "False" in imported
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
