"""A real model learns on real texts: SmolLM2-135M-Instruct, LoRA rank 16, one dataset at a time, then its test split.

    MMLA_DATA_DIR=/data/mmla python benchmarks/learns_texts.py MIntRec MUStARD --work runs/learns

For each dataset one `mmla finetune run`: training, selection on dev and evaluation on test by ranked labels. It goes on
where it stopped. Then one table over all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness_ext.models import smollm2_folder

SETTINGS = {
    # dataset: task, epochs, steps between looks at dev
    "MIntRec": ("mmla_intent_mintrec", 1, 56),
    "MUStARD": ("mmla_speaking_style_mustard", 2, 26),
    "MOSI": ("mmla_sentiment_mosi", 1, 54),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", choices=SETTINGS)
    parser.add_argument("--work", type=Path, default=Path("runs/learns"))
    args = parser.parse_args()
    for dataset in args.datasets:
        subprocess.run(command(dataset, args.work / dataset), check=True)
    print("| dataset | train rows | steps | dev before | dev selected | test | 95 % | majority |")
    print("|---|---|---|---|---|---|---|---|")
    for dataset in args.datasets:
        print(row(dataset, args.work / dataset))


def command(dataset: str, folder: Path) -> list[str]:
    """The words of the run."""
    task, epochs, every = SETTINGS[dataset]
    keys = {
        "model": smollm2_folder(),
        "tasks": task,
        "modality": "text",
        "output_dir": folder,
        "learning_rate": "1.0e-3",
        "epochs": epochs,
        "batch_size": 8,
        "dtype": "float32",
        "selection.every": every,
        "evaluate.test": "true",
        "evaluate.model_args": "{answer: rank, batch_size: 8, dtype: float32}",
    }
    flags = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "harness_ext.cli", "finetune", "run", *flags]


def row(dataset: str, folder: Path) -> str:
    """One line of the table."""
    record: dict[str, Any] = json.loads((folder / "training.json").read_text())
    results: dict[str, Any] = json.loads((folder / "evaluation" / "results.json").read_text())
    (name, task), selection = next(iter(results["mmla"]["tasks"].items())), record["selection"]
    low, high = task["intervals"]["acc"]
    start = next(look["acc"] for look in selection["looks"] if look["step"] == 0)
    cells = [
        dataset, next(iter(record["data"].values()))["train"]["rows"], record["steps"],
        f"{100 * start:.1f}", f"{100 * selection['value']:.1f} at step {selection['step']}",
        f"{100 * results['results'][name]['acc,none']:.1f}", f"{100 * low:.1f}–{100 * high:.1f}",
        f"{100 * task['baselines']['majority']['accuracy']:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
