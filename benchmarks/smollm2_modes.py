"""SmolLM2-135M-Instruct on the first 150 test rows of MIntRec, MELD and CH-SIMS, in the three answer modes.

Run as ``MMLA_DATA_DIR=... python benchmarks/smollm2_modes.py [--limit 150] [--run_dir runs/smollm2]``.

Interrupted, the same command goes on from its journals.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

TASKS = ("mmla_intent_mintrec_text", "mmla_emotion_meld_text", "mmla_sentiment_chsims2_text")
MODES = ("generate", "constrained", "rank")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/smollm2"))
    args = parser.parse_args()
    if "MMLA_DATA_DIR" not in os.environ:
        print("set MMLA_DATA_DIR to a folder in the Hub layout")
        return 2
    from rich.console import Console

    from harness_ext.cli.progress import RunProgress
    from harness_ext.models import smollm2_folder
    from harness_ext.run import RunOptions, run

    rows, unparsed = [], 0.0
    for mode in MODES:
        options = RunOptions(
            model="mmla-hf",
            model_args={"pretrained": str(smollm2_folder()), "dtype": "float32"},
            batch_size=16,
            tasks=TASKS,
            answer=mode,
            limit=args.limit,
            run_dir=args.run_dir / mode,
        )
        results = run(options, progress=RunProgress(Console(stderr=True, width=120))).results
        for task in TASKS:
            scores, block = results["results"][task], results["mmla"]["tasks"][task]
            low, high = block["intervals"]["acc"]
            rows.append(
                f"| {block['dataset']} | {mode} | {100 * scores['acc,none']:.1f} | {100 * low:.1f}–{100 * high:.1f} "
                f"| {100 * scores['macro_f1,none']:.1f} | {100 * (1 - scores['unparsed,none']):.1f} % "
                f"| {100 * block['baselines']['majority']['accuracy']:.1f} |"
            )
            unparsed += scores["unparsed,none"] if mode != "generate" else 0.0
    print(f"First {args.limit} test rows of each dataset: a partial set, no benchmark score.\n")
    print("| dataset | answers | acc | 95 % | macro F1 | parsed | majority |\n|---|---|---:|---:|---:|---:|---:|")
    print("\n".join(sorted(rows)))
    return 0 if unparsed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
