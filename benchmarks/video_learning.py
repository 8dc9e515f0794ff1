"""A tiny video model learns the drawn sample, from several starts; what it knows when clips are shuffled, or not shown.

python benchmarks/video_learning.py [--seeds 1 2 3 4] [--with_texts]

The runs of tests/training/test_video_learning.py, each with other weights and another order of the rows. Chance is
50.0 % for two labels and 14.3 % for seven. Exit status 1 if a run misses what the test asks.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TASKS = {
    "MUStARD": ("mmla_speaking_style_mustard", "speaking style", 5),
    "MELD": ("mmla_emotion_meld", "emotion", 10),
}
"""Dataset -> its task, dimension and epochs, as in the test."""


def measure(dataset: str, seed: int, with_texts: bool, folder: Path) -> bool:
    """Print a row of the table, and say whether it is good."""
    from tests.training import test_video_learning as learning
    from tests.training.learner import tiny_learner

    task, dimension, epochs = TASKS[dataset]
    sample = f"sample:{learning.TEST_ROWS}"
    learner = tiny_learner(folder / "learner", seed)
    began = time.perf_counter()
    how = {"data_dir": sample, "epochs": epochs, "seed": seed}
    seeing = learning.learnt(learner, task, folder / "seeing", **how)
    seconds = time.perf_counter() - began
    accuracy = learning.accuracy(seeing, task, sample)
    documents = learning.documents_of_test(dataset, dimension, sample)
    blind = [learning.accuracy(seeing, task, learning.with_shuffled_clips(documents, dataset, folder / "shuffled"))]
    if with_texts:
        reading = learning.learnt(learner, task, folder / "reading", modality="text", **how)
        blind.append(learning.accuracy(reading, f"{task}_text", sample))
    cells = " | ".join(f"{100 * value:.1f} %" for value in (accuracy, *blind))
    print(f"| {dataset} | {seed} | {cells} | {seconds:.0f} s |", flush=True)
    chance = 1 / len({document["label"] for document in documents})
    return accuracy >= learning.LEARNT and all(abs(value - chance) <= learning.CHANCE for value in blind)


def main() -> int:
    """Print a table for docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--with_texts", action="store_true", help="train a text-only run beside each")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    names = ["video", "shuffled clips", *(["text only"] if args.with_texts else []), "training"]
    print(f"| dataset | seed | {' | '.join(names)} |\n|---|---|{'---:|' * len(names)}")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MMLA_CACHE_DIR=f"{folder}/cache", MMLA_FRAME_CACHE_GB="1")
        for dataset in TASKS:
            for seed in args.seeds:
                good &= measure(dataset, seed, args.with_texts, Path(folder) / f"{dataset}{seed}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
