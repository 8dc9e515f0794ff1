"""What a clip costs at its first visit and at every later one, beside decoding it: training visits it 10 to 60 times.

python benchmarks/frames_once.py [--clips FOLDER ...]

Drawn clips of 2.5 s, and the sample's own, are read through `frames_of`, as training and evaluation do: four frames of
at most 151,200 pixels. Opens of video files are counted by the kernel (inotify, Linux), whichever process does it. Exit
status 1 if a later visit opens a file or is less than five times as fast as decoding.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

VISITS = 5
WANTED = 5.0
"""How many times as fast as decoding a later visit must be."""
DRAWN = {"drawn, 1280 x 720, 75 frames": (1280, 720), "drawn, 640 x 360, 75 frames": (640, 360)}
CLIPS = 8


@dataclass(frozen=True)
class Measured:
    """Milliseconds of a clip, medians."""

    clips: int
    decode: float
    first_visit: float
    """Decoded, and kept."""
    later_visit: float
    opens: int
    """Of video files, by all later visits."""

    @property
    def ratio(self) -> float:
        """Decoding to a later visit."""
        return self.decode / self.later_visit


def milliseconds(act: Callable[..., Any], clips: Iterable[Any], *args: Any) -> list[float]:
    """Of one call for each clip."""
    spent = []
    for clip in clips:
        began = time.perf_counter()
        act(clip, *args)
        spent.append(1000 * (time.perf_counter() - began))
    return spent


def measure(paths: Sequence[Path]) -> Measured:
    """Read all clips of one folder with nothing kept, then `VISITS` times; decoding in between, under like load."""
    from opens import Opens

    from harness_ext import video
    from harness_ext.frame_cache import frames_of
    from harness_ext.frame_policy import FramePolicy
    from mmla_tasks.records import Clip

    clips = [Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None) for path in paths]
    policy = FramePolicy()
    video.decode(clips[0], policy)  # starts what reads
    decode, later, opens = [], [], 0
    first = milliseconds(frames_of, clips, policy)
    for _ in range(VISITS):
        decode += milliseconds(video.decode, clips, policy)
        with Opens(paths[0].parent) as watched:
            later += milliseconds(frames_of, clips, policy)
            opens += watched.since_last().total()
    return Measured(len(clips), median(decode), median(first), median(later), opens)


def clip_sets(folder: Path, given: Sequence[Path]) -> dict[str, list[Path]]:
    """Name -> clips of one folder: drawn ones, the sample's, and those of the folders that were named."""
    import draw

    from harness_ext.catalogue import packaged_labels
    from mmla_tasks.root import DataRoot

    sets = {}
    for name, size in DRAWN.items():
        place = folder / str(size[0])
        place.mkdir()
        sets[name] = [
            draw.draw_clip(place / f"{n}.mp4", frames=75, first_tick=n, size=size, gop=25, b_frames=2)
            for n in range(CLIPS)
        ]
    sample = DataRoot.choose("sample").dataset("MUStARD", labels_of=packaged_labels, with_clips=True)
    split = sample.read("test", labels=packaged_labels()["MUStARD"], dimension="speaking style", with_clips=True)
    sets["the sample, 112 x 112, 12 frames"] = [Path(document["clip"]["path"]) for document in split.documents]
    return sets | {f"`{place.name}`": sorted(place.glob("*.mp4")) for place in given}


def main() -> int:
    """Print a table for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="folders with .mp4 files to read too")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "media"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MMLA_CACHE_DIR=folder, MMLA_FRAME_CACHE_GB="1")
        table = {name: measure(paths) for name, paths in clip_sets(Path(folder), args.clips).items()}
    print("| clips | number | decoding | first visit | later visit | decoding to it | opens |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, m in table.items():
        cells = (f"{m.decode:.1f} ms", f"{m.first_visit:.1f} ms", f"{m.later_visit:.2f} ms", f"{m.ratio:.0f}", m.opens)
        print(f"| {name} | {m.clips} | {' | '.join(map(str, cells))} |")
    return int(any(m.opens or m.ratio < WANTED for m in table.values()))


if __name__ == "__main__":
    sys.exit(main())
