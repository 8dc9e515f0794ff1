"""What it costs to keep IEMOCAP's dialogues whole, against utterances cut into files of their own.

    python benchmarks/imported_segments.py CLIP

CLIP is shown over and over for `--minutes` in 720x480 pixels, in an AVI of MPEG-4 with a keyframe every ten seconds, as
DivX makes them. Utterances of 4.5 s, spread over it, are then read with four frames each, in both ways, nothing cached.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av

from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode, unpack
from mmla_tasks.records import Clip

RATE = Fraction(30000, 1001)
SECONDS = 4.5
FOUR_FRAMES = FramePolicy(num_frames=4)
CUTS: Mapping[str, Mapping[str, str]] = {
    "cut, x264 crf 12": {"preset": "veryfast", "crf": "12"},
    "cut, x264 without loss": {"preset": "veryfast", "qp": "0"},
}


def main() -> int:
    """Make the dialogue, read from it in each way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--utterances", type=int, default=20)
    args = parser.parse_args()
    os.environ["MMLA_FRAME_CACHE_GB"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        dialogue = _dialogue(args.clip, Path(folder, "dialogue.avi"), args.minutes)
        step = (args.minutes * 60 - SECONDS) / args.utterances
        spans = [(round(n * step, 4), round(n * step + SECONDS, 4)) for n in range(args.utterances)]
        print(f"a dialogue of {args.minutes:g} minutes, {_megabytes(dialogue):.1f} MB; {len(spans)} utterances\n")
        print("| way | making it | MB | a clip of 4 frames |\n|---|---:|---:|---:|")
        _row("whole, with segments", 0, _megabytes(dialogue), [_clip(dialogue, *span) for span in spans])
        for name, options in CUTS.items():
            began = time.perf_counter()
            files = list(_cut(dialogue, spans, Path(folder), options))
            taken = time.perf_counter() - began
            _row(name, taken, sum(map(_megabytes, files)), [_clip(file) for file in files])
        _packed_rows(dialogue, spans, Path(folder))
    return 0


def _packed_rows(dialogue: Path, spans: list[tuple[float, float]], folder: Path) -> None:
    packed, unpacked = folder / "packed.avi", folder / "unpacked.avi"
    _originals().pack(dialogue, packed)
    _row("packed, as it is", 0, _megabytes(packed), [_clip(packed, *span) for span in spans[:: len(spans) // 5 or 1]])
    began = time.perf_counter()
    unpack(packed, unpacked)
    taken = time.perf_counter() - began
    _row("packed, unpacked by the import", taken, _megabytes(unpacked), [_clip(unpacked, *span) for span in spans])


def _row(name: str, making: float, megabytes: float, clips: list[Clip]) -> None:
    began = time.perf_counter()
    for clip in clips:
        decode(clip, FOUR_FRAMES)
    each = (time.perf_counter() - began) / len(clips)
    print(f"| {name} | {making:.1f} s | {megabytes:.1f} | {each * 1000:,.0f} ms |", flush=True)


def _dialogue(clip: Path, path: Path, minutes: float) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 720, 480, "yuv420p", 2_000_000
        stream.codec_context.gop_size = 300
        stream.options = {"bf": "1", "sc_threshold": "1000000000"}
        for number, picture in zip(range(int(minutes * 60 * RATE)), _over_and_over(clip), strict=False):
            frame = picture.reformat(720, 480, "yuv420p")
            frame.pts, frame.time_base, frame.pict_type = number, 1 / RATE, 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _over_and_over(clip: Path) -> Iterator[Any]:
    while True:
        with av.open(str(clip)) as container:
            yield from container.decode(video=0)


def _cut(dialogue: Path, spans: list[tuple[float, float]], folder: Path, options: Mapping[str, str]) -> Iterator[Path]:
    """Each utterance in a file of its own; the dialogue is decoded once."""
    waiting, path, out = list(spans), None, None
    with av.open(str(dialogue)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if waiting and number / RATE >= waiting[0][0] and out is None:
                path = folder / f"{options.get('crf', 'whole')}-{len(waiting)}.mp4"
                out = av.open(str(path), "w")
                stream = out.add_stream("libx264", rate=RATE)
                stream.width, stream.height, stream.pix_fmt = 720, 480, "yuv420p"
                stream.options = dict(options)
                first = number
            if out is not None and path is not None:
                picture.pts, picture.time_base, picture.pict_type = number - first, 1 / RATE, 0
                out.mux(stream.encode(picture))
                if (number + 1) / RATE >= waiting[0][1]:
                    out.mux(stream.encode(None))
                    out.close()
                    yield path
                    out, _ = None, waiting.pop(0)


def _clip(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    stat = path.stat()
    return Clip(path=str(path), start_seconds=start, end_seconds=end, size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def _originals() -> ModuleType:
    path = Path(__file__).parents[1] / "tests" / "harness" / "originals.py"
    spec = importlib.util.spec_from_file_location("originals", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
