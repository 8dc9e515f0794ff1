"""Peak memory of `mmla run` over 200 and 2,000 clips, with a tiny Qwen2-VL; eager frames for comparison. Linux.

python benchmarks/clip_memory.py [FEW MANY]

Every row is another clip of 640 x 360 pixels and 48 frames: the same picture, but another file by content, so that no
cache answers for two. Two frames are shown, at most 50,000 pixels each, and one token is generated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL_ARGS = "dtype=float32,num_frames=2,max_pixels=50000"
TASK = "mmla_speaking_style_mustard"


@dataclass(frozen=True)
class Measured:
    """One `mmla run`."""

    requests: int
    peak_megabytes: float
    seconds: float
    """Of asking and scoring, start and loading left out."""
    wait_seconds: float
    """In which the model waited for frames."""


# ── what is measured, in a process of its own ─────────────────────────────────────────────────────────────────────


def in_turn(batches: Any, load: Any, use: Any, *, waited: Any, **bounds: Any) -> Iterator[Any]:
    """`prefetched` without prefetch."""
    for batch in batches:
        began = time.perf_counter()
        loaded = [load(item) for item in batch]
        waited(time.perf_counter() - began)
        yield use(batch, loaded)


def eager(batches: Any, load: Any, use: Any, *, waited: Any, **bounds: Any) -> Iterator[Any]:
    """All frames are decoded first and kept, as a harness does that puts ready images into its requests."""
    began = time.perf_counter()
    everything = [(batch, [load(item) for item in batch]) for batch in batches]
    waited(time.perf_counter() - began)
    for batch, loaded in everything:
        yield use(batch, loaded)


def child(way: str, arguments: list[str]) -> int:
    """Run `mmla` with frames loaded in this way, and print the peak of this process."""
    from harness_ext.backends import hf
    from harness_ext.cli import main as mmla

    if way != "prefetched":
        hf.prefetched = {"in turn": in_turn, "eager": eager}[way]  # type: ignore[attr-defined]
    status = mmla(arguments)
    print(f"peak {peak_megabytes():.1f} MB")
    return status


def peak_megabytes() -> float:
    """Most memory that this process has held so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ── the runs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write_data(folder: Path, rows: int) -> None:
    """Write MUStARD's test split with `rows` rows and a clip for each."""
    sys.path.insert(0, str(ROOT / "tests" / "media"))
    import draw

    videos = folder / "MUStARD" / "video"
    videos.mkdir(parents=True)
    drawn = draw.draw_clip(folder / "drawn.mp4", frames=48, size=(640, 360), gop=12, b_frames=2).read_bytes()
    labels = ("sincere", "sarcastic")
    lines = ["id\ttext\tlabel"]
    for row in range(rows):
        unlike = b"%08d" % row
        free_box = (8 + len(unlike)).to_bytes(4, "big") + b"free" + unlike  # which every reader of MP4 skips
        (videos / f"MUStARD_{row}_1.mp4").write_bytes(drawn + free_box)
        lines.append(f"{row}_1\tSure.\t{labels[row % 2]}")
    (folder / "MUStARD" / "test.tsv").write_text("\n".join(lines) + "\n")


def tiny_model(folder: Path) -> Path:
    """Give the folder of a random Qwen2-VL, the one of the tests."""
    sys.path.insert(0, str(ROOT / "tests" / "integration"))
    import tiny_models

    from harness_ext.models import smollm2_folder

    made: Path = tiny_models.tiny_qwen2_vl(folder, smollm2_folder())
    return made


def measure(way: str, requests: int, *, model: Path, data: Path, work: Path, cache_gigabytes: float = 0) -> Measured:
    """Run `mmla run` over the first `requests` rows in a new process; a run folder of its own, caches in `work`."""
    run_dir = Path(tempfile.mkdtemp(dir=work))
    command = [
        sys.executable, __file__, "--child", way, "run", "--model", "mmla-hf", "--tasks", TASK, "--data_dir", str(data),
        "--model_args", f"pretrained={model},{MODEL_ARGS}", "--gen_kwargs", "max_gen_toks=1", "--batch_size", "4",
        "--limit", str(requests), "--run_dir", str(run_dir),
    ]  # fmt: skip
    environment = {"MMLA_CACHE_DIR": str(work / "cache"), "MMLA_FRAME_CACHE_GB": str(cache_gigabytes)}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment, "PYTHONPATH": path}, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    results = json.loads((run_dir / "results.json").read_text())
    journal = [line for path in (run_dir / "journal").rglob("*.jsonl") for line in path.read_text().splitlines()]
    asked = sum('"response"' in line for line in journal)
    if asked != requests:
        raise RuntimeError(f"{asked} requests were asked, not {requests}")
    timings = results["timings"]
    peak = float(done.stdout.rsplit("peak ", 1)[1].split()[0])
    return Measured(requests, peak, timings["answer and score"], timings["decode waits"])


WAYS = (
    ("one batch ahead: `mmla run`", "cold", "prefetched", 4),
    ("one batch ahead: `mmla run`", "warm", "prefetched", 4),
    ("batch after batch, none ahead", "off", "in turn", 0),
    ("all at the start: eager", "off", "eager", 0),
)


def main() -> int:
    few, many = (int(count) for count in sys.argv[1:3]) if len(sys.argv) > 2 else (200, 2000)
    print("| frames are decoded | frame cache | requests | peak memory | to the fewer | a request | of it waits |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_data(work / "data", many)
        model = tiny_model(work / "model")
        for name, cache, way, gigabytes in WAYS:
            runs = []
            for count in (few, many):
                caches = work / f"{gigabytes} {count}"
                caches.mkdir(exist_ok=True)
                run = measure(way, count, model=model, data=work / "data", work=caches, cache_gigabytes=gigabytes)
                runs.append(run)
                ratio = run.peak_megabytes / runs[0].peak_megabytes
                each, wait = (1000 * seconds / count for seconds in (run.seconds, run.wait_seconds))
                print(
                    f"| {name} | {cache} | {count:,} | {run.peak_megabytes:,.0f} MB | {ratio:.2f} "
                    f"| {each:.0f} ms | {wait:.0f} ms |",
                    flush=True,
                )
                good = good and (way == "eager" or ratio <= 1.1)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(child(sys.argv[2], sys.argv[3:]) if sys.argv[1:2] == ["--child"] else main())
