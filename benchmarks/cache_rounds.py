"""Two runs and a download at the same time on one cache and one data root, round after round: is anything corrupt?

    python benchmarks/cache_rounds.py --rounds 50

In every round the cache starts empty. Two `mmla run` processes send frames of the same clips to a server on loopback,
while `mmla data download` writes a data root from a Hub on loopback. Then every cached entry must prove its digest,
both runs must have seen the frames that an undisturbed run sees, and the data root must equal an undisturbed one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness_ext.frame_cache import FrameCache
from tests.harness.loopback import Loopback
from tests.harness.loopback_datasets import dataset_hub
from tests.harness.miniatures import miniature_hub

TASKS = "mmla_speaking_style_mustard,mmla_emotion_meld"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--rows", type=int, default=8, help="clips of each of the two tasks")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        dataset_hub(miniature_hub(2_000, rows=1)) as hub,
        Loopback().serving() as server,
    ):
        at = Path(folder)
        environment = {
            **os.environ,
            **hub.environment,
            "HF_HOME": str(at / "hf"),
            "MMLA_FRAME_CACHE_GB": "1",
            "OMP_NUM_THREADS": "1",
        }
        expected = a_round(at / "expected", server, args.rows, environment, runs=1)
        bad = 0
        for n in range(args.rounds):
            got = a_round(at / f"round{n}", server, args.rows, environment, runs=2)
            as_expected = got["runs"] == expected["runs"] * 2 and got["data"] == expected["data"]
            bad += not as_expected or bool(got["faults"])
            said = "as undisturbed" if as_expected else "other frames or data than undisturbed"
            print(f"round {n + 1}: {said}", *got["faults"], sep="\n  ", flush=True)
            shutil.rmtree(at / f"round{n}")
    print(f"{args.rounds} rounds of 2 runs and a download on one cache: {bad} with a fault")
    sys.exit(bool(bad))


def a_round(at: Path, server: str, rows: int, environment: dict[str, str], runs: int) -> dict[str, list[str]]:
    """Run all at once, and say what came of it."""
    mmla = [sys.executable, "-m", "harness_ext.cli"]
    environment = {**environment, "MMLA_CACHE_DIR": str(at / "cache")}
    commands = [
        [*mmla, "run", "--model", "mmla-api", "--model_args", f"model=m,base_url={server},num_frames=2",
         "--tasks", TASKS, "--data_dir", f"sample:{rows}", "--run_dir", str(at / f"run{n}")]
        for n in range(runs)
    ]  # fmt: skip
    commands.append([*mmla, "data", "download", "--data_dir", str(at / "data")])
    started = [subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for c in commands]
    told = [process.communicate()[0].decode() for process in started]
    faults = [text for process, text in zip(started, told, strict=True) if process.returncode]
    return {
        "runs": [frames_seen(at / f"run{n}") for n in range(runs)],
        "data": [digest_of(at / "data")],
        "faults": faults + cache_faults(at / "cache"),
    }


def frames_seen(run: Path) -> str:
    """Digest over the fingerprints of all rows of a run."""
    seen = [
        [json.loads(line)["response"].get("frames") for line in file.read_text().splitlines()]
        for file in sorted(run.glob("samples/*.jsonl"))
    ]
    if not any(frames for rows in seen for frames in rows):
        sys.exit(f"{run}: no row shows frames; the benchmark would prove nothing")
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def digest_of(root: Path) -> str:
    """Digest over all texts and clips below a data root."""
    files = [file for kind in ("*.tsv", "*.mp4") for file in root.rglob(kind)]
    parts = [f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def cache_faults(cache: Path) -> list[str]:
    """Entries of the cache whose digest does not hold, and stores that do not open."""
    files = [file for file in (cache / "frames").rglob("*") if file.is_file()]
    faults = [] if files else ["no frames were kept: the round proves nothing"]
    kept = FrameCache(cache / "frames", 1 << 30)
    faults += [f"{file.name} does not prove its digest" for file in files if kept.get(file.name) is None]
    for store in cache.glob("*.sqlite"):
        if sqlite3.connect(store).execute("PRAGMA integrity_check").fetchone() != ("ok",):
            faults.append(f"{store.name} is damaged")
    return faults


if __name__ == "__main__":
    main()
