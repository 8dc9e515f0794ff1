"""Peak memory over 100, 1,000 and 2,000 clips: `mmla run`, plain lm-eval, and lm-eval with frames decoded at once.

Run as ``python benchmarks/clip_memory_stock.py [--requests 100 1000 2000] [--frames run lazy eager]``.

A tiny random Qwen2-VL and drawn clips, one process for each line: `run` is `mmla-hf`, the others are unmodified lm-eval
with its `hf-multimodal`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from decode_memory import Held, watch

ROOT = Path(__file__).parents[1]
TASK = "mmla_emotion_meld"
SIDE, FRAMES, BATCH, NEW_TOKENS = 168, 4, 16, 1
DRAWN = 50
"""Clips of different content; every request has a file of its own."""
NAMES = {
    "run": "one batch ahead: `mmla run`",
    "lazy": "when touched: plain lm-eval",
    "eager": "all at the start: lm-eval with ready images",
}
ALLOWED = 1.10
"""Peak over the most requests, as a multiple of that over the fewest."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[100, 1000, 2000])
    parser.add_argument("--frames", nargs="+", default=list(NAMES), choices=tuple(NAMES))
    parser.add_argument("--measure", nargs=3, metavar=("FRAMES", "MODEL", "DATA"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(*args.measure, args.requests[0])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model, data = tiny_model(Path(folder) / "model"), drawn_data(Path(folder) / "data", max(args.requests))
        print(
            f"Tiny Qwen2-VL in float32, {FRAMES} frames of {SIDE} x {SIDE}, batches of {BATCH}, "
            f"{NEW_TOKENS} new token, samples logged.\n"
        )
        print("| frames | requests | frames held | peak memory | to the fewest |\n|---|---:|---:|---:|---:|")
        good = True
        for way in args.frames:
            fewest = 0.0
            for requests in args.requests:
                found = in_own_process(way, requests, model, data)
                fewest = fewest or found["peak"]
                ratio = found["peak"] / fewest
                memory = f"{found['held']:,.1f} MiB | {found['peak']:,.0f} MiB"
                print(f"| {NAMES[way]} | {requests:,} | {memory} | {ratio:.2f} |", flush=True)
                good = good and (way == "eager" or ratio <= ALLOWED)
    return 0 if good else 1


def in_own_process(way: str, requests: int, model: Path, data: Path) -> dict[str, float]:
    """Measure in a process that did nothing before."""
    command = [sys.executable, __file__, "--requests", str(requests), "--measure", way, str(model), str(data)]
    settings = {"HF_HUB_OFFLINE": "1", "MMLA_DATA_DIR": str(data), "MMLA_FRAME_CACHE_GB": "0"}
    environment = {**os.environ, **settings}  # every line decodes: nothing is left of the line before
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(way: str, model: str, data: str, requests: int) -> dict[str, float]:
    """Evaluate, and give in MiB what the process and what frames held at their peaks."""
    held = Held()
    (decode_at_once if way == "eager" else watch)(held)
    asked = ask_with_mmla(model, requests) if way == "run" else ask_with_lm_eval(model, requests)
    assert asked == requests
    return {"peak": peak_mebibytes(), "held": held.most / 2**20}


def ask_with_mmla(model: str, requests: int) -> int:
    from harness_ext import evaluate

    done = evaluate(
        "mmla-hf",
        TASK,
        model_args={"pretrained": model, "dtype": "float32", "num_frames": FRAMES, "max_pixels": SIDE * SIDE},
        batch_size=BATCH,
        device="cpu",
        limit=requests,
        gen_kwargs={"max_gen_toks": NEW_TOKENS},
    )
    return len(done["samples"][TASK])


def ask_with_lm_eval(model: str, requests: int) -> int:
    """lm-eval's own function and model."""
    import lm_eval.models  # noqa: F401  # registers hf-multimodal
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager

    from harness_ext.catalogue import yaml_folder

    lm = get_model("hf-multimodal")(pretrained=model, dtype="float32", device="cpu", batch_size=BATCH)
    metadata = {"num_frames": FRAMES, "max_pixels": SIDE * SIDE}
    manager = TaskManager(include_path=[str(yaml_folder())], include_defaults=False, metadata=metadata)
    done = simple_evaluate(
        lm,
        tasks=[TASK],
        task_manager=manager,
        limit=requests,
        gen_kwargs={"max_gen_toks": NEW_TOKENS},
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )
    return len(done["samples"][TASK])


def decode_at_once(held: Held) -> None:
    """Give lm-eval ready frames, as tasks with pictures do, and note them."""
    from harness_ext.task import LabelTask

    by_reference = LabelTask.doc_to_image

    def ready(self: Any, doc: Any, doc_to_image: Any = None) -> Any:
        images = [image.copy() for image in by_reference(self, doc)]
        for image in images:
            held.note(image, 3 * image.width * image.height)
        return images

    LabelTask.doc_to_image = ready


def peak_mebibytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def tiny_model(folder: Path) -> Path:
    """The random Qwen2-VL of the tests."""
    from harness_ext.models import smollm2_folder

    path: Path = by_path("integration/tiny_models.py").tiny_qwen2_vl(folder, smollm2_folder())
    return path


def drawn_data(folder: Path, rows: int) -> Path:
    """A data root of one dataset, with a clip file for each row."""
    videos = folder / "MELD" / "video"
    videos.mkdir(parents=True)
    draw = by_path("media/draw.py")
    drawn = [draw.draw_clip(folder / f"{n}.mp4", frames=8 + n % 5, size=(SIDE, SIDE), fps=8) for n in range(DRAWN)]
    lines = ["id\ttext\tlabel"]
    for n in range(rows):
        os.link(drawn[n % DRAWN], videos / f"MELD_{n:05}_0.mp4")
        lines.append(f"{n:05}_0\tSentence number {n:05}.\tjoy")
    (folder / "MELD" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def by_path(name: str) -> ModuleType:
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "tests" / name)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
