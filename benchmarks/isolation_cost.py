"""What it costs that videos are read in processes of their own: clips a second, here and in workers.

python benchmarks/isolation_cost.py [--clips 40] [--rounds 3]

Two threads ask for four frames of drawn clips, as `mmla run` does: by reading in this process, and through workers;
with this process otherwise idle, and with Python code running in a third thread all the time. The ways take turns, and
medians count, since machines change their pace; CPU time tells more where others use the cores. At last, how long a
worker takes to start, and to be ended.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "media")]
KINDS = {
    "1280 x 720, 50 frames": ((1280, 720), 50),
    "640 x 360, 75 frames": ((640, 360), 75),
    "96 x 64, 25 frames": ((96, 64), 25),
}
ALLOWED = 1.10
"""CPU time through workers, as a multiple of that in this process, where a clip is of real size."""


class Stack:
    """Images of one clip, kept here."""

    def begin(self) -> None:
        """Forget what came so far."""
        self.images: list[Any] = []

    def add(self, image_HWC: Any) -> None:
        """Keep one more."""
        self.images.append(image_HWC)


def read_here(clip: Any) -> int:
    """Decode in this process, as `decode` did before there were workers."""
    import numpy as np

    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video.frames import fingerprint
    from harness_ext.video.reading import read_clip

    stack = Stack()
    shown = read_clip(clip, FramePolicy(), stack)
    frames_THWC = np.stack(stack.images)
    return len(fingerprint(frames_THWC, tuple(shown.indices), "pyav"))


def read_apart(clip: Any) -> int:
    """Decode through a worker."""
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import decode

    return len(decode(clip, FramePolicy()).fingerprint)


class Took(NamedTuple):
    """Of reading all clips, two at a time."""

    seconds: float
    cpu_seconds: float
    """Of this process and its workers."""


def took(read: Callable[[Any], int], clips: Sequence[Any]) -> Took:
    """Read all clips."""
    began, cpu = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(read, clips)) == {5}
    return Took(time.perf_counter() - began, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Used so far by this process and the workers that it has."""
    from harness_ext.video.isolation import WORKERS

    ticks = 0
    for process in WORKERS.processes:
        user, system = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def busy() -> Iterator[None]:
    """Python code in another thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def measure(clips: Sequence[Any], rounds: int) -> tuple[Took, Took]:
    """Medians of reading here, and apart."""
    took(read_apart, clips[:4])
    took(read_here, clips[:4])
    rows = [(took(read_here, clips), took(read_apart, clips)) for _ in range(rounds)]
    here, apart = (Took(*map(statistics.median, zip(*column, strict=True))) for column in zip(*rows, strict=True))
    return here, apart


def start_milliseconds() -> tuple[float, float]:
    """Of a worker until it is ready, and of ending one."""
    from harness_ext.video.isolation import Worker

    times = []
    for _ in range(7):
        began = time.perf_counter()
        worker = Worker()
        ready = time.perf_counter()
        worker.end()
        times.append((ready - began, time.perf_counter() - ready))
    starts, ends = zip(*times, strict=True)
    return statistics.median(starts) * 1000, statistics.median(ends) * 1000


def main() -> int:
    import draw

    from harness_ext.prefetch import SWITCH_SECONDS
    from mmla_tasks.records import Clip

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)  # as while something is loaded ahead
    good = True
    print("| clips | this process is | in this process | in workers | time to it | CPU time to it |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, (size, frames)) in enumerate(KINDS.items()):
            path = draw.draw_clip(Path(folder) / f"{number}.mp4", frames=frames, size=size, gop=25, b_frames=2)
            clip = Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)
            for how, meanwhile in [("idle", nullcontext), ("busy", busy)]:
                with meanwhile():
                    here, apart = measure([clip] * args.clips, args.rounds)
                rates = f"{args.clips / here.seconds:.1f}/s | {args.clips / apart.seconds:.1f}/s"
                cpu = apart.cpu_seconds / here.cpu_seconds
                told = f"{cpu:.2f}" if how == "idle" else ""
                print(f"| {kind} | {how} | {rates} | {apart.seconds / here.seconds:.2f} | {told} |", flush=True)
                good = good and (how == "busy" or cpu <= ALLOWED or size[0] < 100)
    start, end = start_milliseconds()
    print(f"\na worker starts in {start:.0f} ms and is ended in {end:.0f} ms")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
