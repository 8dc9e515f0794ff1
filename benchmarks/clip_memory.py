"""Peak memory of `mmla run` over 200 and 2,000 clips, with a tiny Qwen2-VL. Linux.

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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODEL_ARGS = "dtype=float32,num_frames=2,max_pixels=50000"
TASK = "mmla_speaking_style_mustard"


@dataclass(frozen=True)
class Measured:
    """One `mmla run`."""

    requests: int
    peak_megabytes: float
    seconds: float
    """Of asking; start, loading and scoring left out."""
    wait_seconds: float
    """In which the model waited for frames."""


# ── what is measured, in a process of its own ─────────────────────────────────────────────────────────────────────


def child(arguments: list[str]) -> int:
    """Run `mmla`, and print the peak of this process."""
    from harness_ext.cli import main as mmla

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


def measure(requests: int, *, model: Path, data: Path, work: Path, cache_gigabytes: float = 0) -> Measured:
    """Run `mmla run` over the first `requests` rows in a new process; a run folder of its own, caches in `work`."""
    run_dir = Path(tempfile.mkdtemp(dir=work))
    command = [
        sys.executable, __file__, "--child", "run", "--model", "mmla-hf", "--tasks", TASK, "--data_dir", str(data),
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
    return Measured(requests, peak, timings["answer"], timings["stages of answer"]["decode waits"])


def main() -> int:
    few, many = (int(count) for count in sys.argv[1:3]) if len(sys.argv) > 2 else (200, 2000)
    print("| frame cache | requests | peak memory | to the fewer | a request | of it waits |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_data(work / "data", many)
        model = tiny_model(work / "model")
        for cache in ("cold", "warm"):
            fewer = 0.0
            for count in (few, many):
                caches = work / str(count)
                caches.mkdir(exist_ok=True)
                run = measure(count, model=model, data=work / "data", work=caches, cache_gigabytes=4)
                fewer = fewer or run.peak_megabytes
                ratio = run.peak_megabytes / fewer
                each, wait = (1000 * seconds / count for seconds in (run.seconds, run.wait_seconds))
                print(
                    f"| {cache} | {count:,} | {run.peak_megabytes:,.0f} MB | {ratio:.2f} | {each:.0f} ms "
                    f"| {wait:.0f} ms |",
                    flush=True,
                )
                good = good and ratio <= 1.1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
