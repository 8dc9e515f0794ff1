"""How much a score hangs on the order of the labels in the prompt: SmolLM2-135M-Instruct, labels ranked, five orders.

Run as ``MMLA_DATA_DIR=... python benchmarks/label_order.py [--limit 100] [--repeats 5] [--run_dir runs/label_order]``.

Interrupted, the same command goes on from its journal.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

TASKS = ("mmla_emotion_meld_text", "mmla_intent_mintrec_text")
METRICS = ("acc", "macro_f1", "weighted_f1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/label_order"))
    args = parser.parse_args()
    if "MMLA_DATA_DIR" not in os.environ:
        print("set MMLA_DATA_DIR to a folder in the Hub layout")
        return 2
    from rich.console import Console

    from harness_ext.cli.progress import RunProgress
    from harness_ext.models import smollm2_folder
    from harness_ext.run import RunOptions, run

    options = RunOptions(
        model="mmla-hf",
        model_args={"pretrained": str(smollm2_folder()), "dtype": "float32"},
        batch_size=8,
        tasks=TASKS,
        answer="rank",
        label_order="shuffled:0",
        repeats=args.repeats,
        limit=args.limit,
        run_dir=args.run_dir,
    )
    results = run(options, progress=RunProgress(Console(stderr=True, width=120))).results
    print(f"First {args.limit} test rows of each dataset: a partial set, no benchmark score.\n")
    print("| dataset | labels | score | mean | sd | min | max | agreement |\n|---|---:|---|---:|---:|---:|---:|---:|")
    for task in TASKS:
        repeats, block = results["mmla"]["repeats"]["tasks"][task], results["mmla"]["tasks"][task]
        for metric in METRICS:
            spread = [f"{100 * repeats['metrics'][metric][name]:.1f}" for name in ("mean", "sd", "min", "max")]
            cells = [
                block["dataset"],
                str(len(block["labels"])),
                metric,
                *spread,
                f"{100 * repeats['agreement']:.1f} %",
            ]
            print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
