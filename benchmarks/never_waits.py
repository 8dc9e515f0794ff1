"""Does a model ever wait for a decoder? 500 clips of 720p through `mmla-hf`, with a stand-in that takes a fixed time.

python benchmarks/never_waits.py [--clips 500] [--batch_size 16] [--workers N]

The road is that of `mmla run` from requests to answers: decoding and processor in threads, batches, responses. Only
the model's own work is replaced by a sleep for each batch, which uses no core, as if it were done on a GPU. Three
models are tried: one that takes twice the time of decoding, as much, and half. Decoding alone uses the same number of
threads and makes the same tensors; it is measured before and after, and the mean counts, since machines change their
pace. Every run starts with nothing decoded; there is no frame cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALLOWED = 1.15
"""Wall time, as a multiple of the larger of decoding alone and the model alone."""
MODELS = {"twice as slow as decoding": 2.0, "as fast as decoding": 1.0, "twice as fast as decoding": 0.5}
FRAMES_OF_A_CLIP, SIZE = 50, (1280, 720)


@dataclass(frozen=True)
class Measured:
    """One run, in seconds."""

    decode: float
    """Decoding alone."""
    model: float
    """The model alone."""
    wall: float
    waits: float
    """In which the model waited for frames."""

    @property
    def ratio(self) -> float:
        """Wall time to what could not be avoided."""
        return self.wall / max(self.decode, self.model)


def stand_in(model: Path, batch_size: int) -> Any:
    """`mmla-hf` whose model is a sleep of `seconds` for each batch."""
    from harness_ext.backends.hf import HFLabelLM
    from harness_ext.requests import Response

    class StandIn(HFLabelLM):
        seconds = 0.0

        def _ask(self, prepared: Sequence[Any]) -> list[Response]:
            time.sleep(self.seconds)
            return [Response("", **one.question.evidence) for one in prepared]

    return StandIn(str(model), dtype="float32", num_frames=4, batch_size=batch_size)


def requests_for(lm: Any, clips: Sequence[Path]) -> list[Any]:
    """One request for each clip."""
    from harness_ext.requests import Request
    from mmla_tasks.records import Clip

    prompt = lm.apply_chat_template([{"role": "user", "content": "<video>What is the intent of this speaker?"}])
    made = []
    for path in clips:
        stat = path.stat()
        clip = Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        made.append(Request("stand_in", path.stem, prompt, ("joke", "agree"), "intent:", {}, clip=clip, chat=True))
    return made


def decode_seconds(lm: Any, requests: Sequence[Any], workers: int) -> float:
    """Seconds of decoding alone, everything else idle."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda request: lm.tensors_of(request) is not None, requests):
            pass
    return time.perf_counter() - began


def measure(lm: Any, requests: Sequence[Any], batch_size: int, workers: int, speed: float) -> Measured:
    """Decode alone, answer with a model that takes `speed` times as long, and decode alone again."""
    from harness_ext.prefetch import DecodeLimits
    from harness_ext.session import Session, session

    decode = decode_seconds(lm, requests, workers)
    batches = -(-len(requests) // batch_size)
    lm.seconds = speed * decode / batches
    lm.decode_wait_seconds = 0.0
    with session(Session(decode_limits=DecodeLimits(workers=workers))):
        began = time.perf_counter()
        answered = sum(1 for _ in lm.answer(list(requests)))
        wall = time.perf_counter() - began
    assert answered == len(requests)
    decode = (decode + decode_seconds(lm, requests, workers)) / 2
    return Measured(decode, lm.seconds * batches, wall, lm.decode_wait_seconds)


def draw_clips(folder: Path, count: int) -> list[Path]:
    """Draw clips that are all different files."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "media"))
    import draw

    folder.mkdir()
    drawn = draw.draw_clip(folder / "drawn.mp4", frames=FRAMES_OF_A_CLIP, size=SIZE, gop=25, b_frames=2).read_bytes()
    paths = [folder / f"clip_{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        unlike = b"%08d" % number
        path.write_bytes(drawn + (8 + len(unlike)).to_bytes(4, "big") + b"free" + unlike)
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    args = parser.parse_args()
    os.environ["MMLA_FRAME_CACHE_GB"] = "0"
    sys.path.insert(0, str(Path(__file__).parent))
    from clip_memory import tiny_model

    good = True
    with tempfile.TemporaryDirectory() as folder:
        clips = draw_clips(Path(folder) / "clips", args.clips)
        lm = stand_in(tiny_model(Path(folder) / "model"), args.batch_size)
        requests = requests_for(lm, clips)
        print(f"{args.clips} clips, {args.workers} decode workers, batches of {args.batch_size}\n")
        print("| the model is | decoding alone | model alone | wall time | to the larger | of it waits |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        for name, speed in MODELS.items():
            run = measure(lm, requests, args.batch_size, args.workers, speed)
            print(
                f"| {name} | {run.decode:.1f} s | {run.model:.1f} s | {run.wall:.1f} s | {run.ratio:.2f} "
                f"| {run.waits:.1f} s |",
                flush=True,
            )
            good = good and run.ratio <= ALLOWED
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
