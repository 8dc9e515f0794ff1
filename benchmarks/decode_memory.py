"""Bytes of frames alive in `mmla run` over 5,000 clip requests, for several bounds (`--decode_memory`). Linux.

python benchmarks/decode_memory.py [--requests 5000] [--bounds 64M 256M]

Every row is another clip of 640 x 360 pixels and 48 frames; four frames of at most 100,000 pixels are shown to a tiny
Qwen2-VL in batches of 16, and one token is generated. Counted is whatever holds pixels: decoded frames until they are
dropped, and the tensors that the processor made of them. The process itself also holds the model, a batch's
activations, and what decoders and processor work with; what it grew by is its peak less its size when the model was
loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

from clip_memory import ROOT, TASK, peak_megabytes, tiny_model, write_data

MODEL_ARGS = "dtype=float32,num_frames=4,max_pixels=100000"
ALLOWED = 1.10
"""Bytes held, as a multiple of the bound."""


class Held:
    """Bytes of things that are alive, and the most there ever were. For any number of threads."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.RLock()  # a thing may go while another is noted

    def note(self, thing: Any, size: int) -> None:
        """Count `size` bytes until `thing` is gone."""
        with self._lock:
            self.now += size
            self.most = max(self.most, self.now)
        weakref.finalize(thing, self._drop, size)

    def _drop(self, size: int) -> None:
        with self._lock:
            self.now -= size


def watch(held: Held) -> None:
    """Count the frames of every decoded clip, and the tensors of every question."""
    from harness_ext import video
    from harness_ext.backends.hf import HFLabelLM

    decode, prepared = video.decode, HFLabelLM.prepared

    def decoded(*args: Any, **kwargs: Any) -> Any:
        frames = decode(*args, **kwargs)
        held.note(frames.frames_THWC, frames.frames_THWC.nbytes)
        return frames

    def made_ready(self: Any, question: Any) -> Any:
        ready = prepared(self, question)
        for tensor in ready.inputs.values():
            held.note(tensor, tensor.nbytes)
        return ready

    video.decode, HFLabelLM.prepared = decoded, made_ready  # type: ignore[method-assign]


def child(arguments: list[str]) -> int:
    """Run `mmla`, and print what was held and by how much the process grew."""
    from harness_ext.backends import hf
    from harness_ext.cli import main as mmla

    held, loaded = Held(), []
    watch(held)
    answer = hf.HFLabelLM.answer

    def from_here(self: Any, requests: Any) -> Any:
        loaded.append(peak_megabytes())
        return answer(self, requests)

    hf.HFLabelLM.answer = from_here  # type: ignore[method-assign]
    status = mmla(arguments)
    print("\n" + json.dumps({"held": held.most / 2**20, "grown": peak_megabytes() - loaded[0]}))
    return status


def measure(requests: int, bound: str, *, model: Path, data: Path, batch_size: int = 16) -> dict[str, float]:
    """MiB held by frames at most, and MiB by which the process grew, in a new process."""
    command = [
        sys.executable, __file__, "--child", "run", "--model", "mmla-hf", "--tasks", TASK, "--data_dir", str(data),
        "--model_args", f"pretrained={model},{MODEL_ARGS}", "--gen_kwargs", "max_gen_toks=1",
        "--batch_size", str(batch_size), "--limit", str(requests), "--decode_memory", bound,
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "MMLA_FRAME_CACHE_GB": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> int:
    from harness_ext.prefetch import read_bytes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--bounds", nargs="+", default=["64M", "256M"])
    args = parser.parse_args()
    print("| `--decode_memory` | requests | frames held at most | to the bound | process grew by |")
    print("|---|---:|---:|---:|---:|", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", args.requests)
        model = tiny_model(Path(folder) / "model")
        for bound in args.bounds:
            for requests in (args.requests // 10, args.requests):
                found = measure(requests, bound, model=model, data=Path(folder) / "data")
                ratio = found["held"] * 2**20 / read_bytes(bound)
                print(
                    f"| {bound} | {requests:,} | {found['held']:.1f} MiB | {ratio:.2f} | {found['grown']:,.0f} MiB |",
                    flush=True,
                )
                good = good and ratio <= ALLOWED
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
