"""decord's frames are PyAV's: arrays, indices and seconds, on real clips and on 200 drawn ones.

decord runs in a process of its own with a time limit, for it is known to hang within native code.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SIZES = [(32, 32), (64, 48), (96, 64), (64, 98), (128, 72), (176, 144), (320, 180), (426, 240), (640, 360)]
RATES = [
    Fraction(25), Fraction(24), Fraction(30), Fraction(15), Fraction(60), Fraction(10), Fraction(50),
    Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001), Fraction(15, 2), Fraction(23976, 1000),
]  # fmt: skip
LENGTHS = [1, 2, 3, 5, 8, 13, 24, 40, 67, 100]
CODECS = [
    {"suffix": "mp4", "codec": "libx264"},
    {"suffix": "mp4", "codec": "libx264", "container_options": {"movflags": "faststart"}},
    {"suffix": "mkv", "codec": "libx264"},
    {"suffix": "mp4", "codec": "mpeg4"},
    {"suffix": "avi", "codec": "mpeg4"},
]
COMPARED = """
import json, sys
from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode
from mmla_tasks.errors import ClipError
for path in json.load(sys.stdin):
    clip = {"path": path, "start_seconds": 0.0, "end_seconds": None, "size": None, "mtime_ns": None}
    for count in (4, 9):
        by_pyav = decode(clip, FramePolicy(num_frames=count))
        try:
            by_decord = decode(clip, FramePolicy(num_frames=count, reader="decord"))
        except ClipError as error:
            print(json.dumps({"path": path, "refused": error.details}), flush=True)
            continue
        equal = {
            name: getattr(by_pyav, name) == getattr(by_decord, name)
            for name in ("seconds", "indices", "first_index", "source_frames", "source_fps", "duration_seconds")
        }
        shape = by_pyav.frames_THWC.shape == by_decord.frames_THWC.shape
        equal["pixels"] = shape and bool((by_pyav.frames_THWC == by_decord.frames_THWC).all())
        print(json.dumps({"path": path, "differs": [name for name, same in equal.items() if not same]}), flush=True)
"""


def compared(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Decode with both readers in another process; one row for each file and policy."""
    # Not imported here: its own libvpx would take the place of PyAV's for the rest of the process.
    if find_spec("decord") is None:
        pytest.skip("decord is not installed: pip install -e '.[decord]'")
    names = json.dumps([str(path) for path in paths])
    done = subprocess.run(
        [sys.executable, "-c", COMPARED], input=names, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def mixed_clips(draw: ModuleType, folder: Path, count: int) -> list[Path]:
    """Draw clips of mixed size, rate, length, codec, GOP and B-frames; the same ones every time."""
    rng = random.Random(20250416)
    paths = []
    for number in range(count):
        settings = dict(rng.choice(CODECS))
        path = folder / f"{number:03}.{settings.pop('suffix')}"
        b_frames = rng.choice([0, 0, 1, 2, 3])
        if settings["codec"] == "mpeg4":
            settings["options"] = {"bf": str(b_frames), "q": "5"}
        settings |= {"size": rng.choice(SIZES), "fps": rng.choice(RATES), "frames": rng.choice(LENGTHS)}
        settings |= {"gop": rng.choice([1, 5, 12, 25, 250]), "b_frames": b_frames}
        settings["sound_seconds"] = rng.choice([0, 0, 0.5])
        paths.append(draw.draw_clip(path, **settings))
    return paths


def test_on_real_clips(real_clips: list[Path]) -> None:
    rows = compared(real_clips)
    assert len(rows) == 2 * len(real_clips)
    assert [row["differs"] for row in rows] == [[]] * len(rows)


@pytest.mark.slow
def test_on_200_drawn_clips(draw: ModuleType, tmp_path: Path) -> None:
    rows = compared(mixed_clips(draw, tmp_path, 200))
    assert len(rows) == 400
    refused = {row["path"]: row["refused"]["why"].split("] ")[-1] for row in rows if "refused" in row}
    print(f"{len(refused)} of 200 clips refused:", dict(Counter(refused.values())))
    assert [row for row in rows if row.get("differs")] == []
    assert len(refused) <= 10
    assert all(row["refused"]["next"].startswith("use video_reader=pyav") for row in rows if "refused" in row)
