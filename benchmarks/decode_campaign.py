"""What 2,000 corrupted files do to a run: frames or a named error, within bounds of time and memory. Linux.

python benchmarks/decode_campaign.py [--cases 2000] [--seed 0] [--readers pyav decord] [--clips FOLDER]

A file is one of the drawn ones of `tests/media/oddities.py`, or a clip of the folder, corrupted in one of the ways
below; which, where and how is drawn from the seed. Four frames are asked for, as `mmla run` does, two files at a time,
with the default bounds. Files that were made to do harm come first. Fails when anything but frames or a `ClipError`
comes out, when one file takes more than 10 s, or when a process grows beyond the bound of memory.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "media")]

HANG_SECONDS = 10.0
"""In which there must be an outcome."""
OWN_MEGABYTES = 300
"""By which this process may grow: frames of two clips, and what Python keeps."""


# ── corruptions ───────────────────────────────────────────────────────────────────────────────────────────────────


def cut_short(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def without_its_start(data: bytearray, rng: random.Random) -> bytearray:
    return data[rng.randrange(1, len(data)) :]


def few_bits(data: bytearray, rng: random.Random) -> bytearray:
    return _flipped(data, rng, rng.randrange(1, 9))


def many_bits(data: bytearray, rng: random.Random) -> bytearray:
    return _flipped(data, rng, max(2, len(data) // rng.choice([50, 200, 1000])))


def _flipped(data: bytearray, rng: random.Random, count: int) -> bytearray:
    for _ in range(count):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def swapped_blocks(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice([16, 64, 512, 4096])
    for _ in range(rng.randrange(1, 5)):
        a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
        if abs(a - b) >= size:
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def zeroed_start(data: bytearray, rng: random.Random) -> bytearray:
    count = min(len(data), rng.choice([4, 8, 16, 32, 64, 256, 1024]))
    data[:count] = bytes(count)
    return data


def zeroed_header(data: bytearray, rng: random.Random) -> bytearray:
    """Zeroes within what describes the film: the boxes of an MP4, else the first 4,096 bytes."""
    start, end = _header(data)
    at = rng.randrange(start, end)
    count = min(rng.choice([1, 4, 16, 64]), len(data) - at)
    data[at : at + count] = bytes(count)
    return data


def zeroed_stretch(data: bytearray, rng: random.Random) -> bytearray:
    at, count = rng.randrange(len(data)), rng.choice([64, 512, 4096, 65_536])
    count = min(count, len(data) - at)
    data[at : at + count] = bytes(count)
    return data


def lost_stretch(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 100, 5000])]
    return data or bytearray(b"\0")


def great_numbers(data: bytearray, rng: random.Random) -> bytearray:
    """A few numbers in the header become the largest there are, or negative ones."""
    start, end = _header(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(start, max(start + 1, end - 4))
        great = rng.choice([0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x10000000, 0x00FFFFFF])
        data[at : at + 4] = struct.pack(">I", great)
    return data


def random_bytes(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    count = min(rng.choice([4, 64, 1024]), len(data) - at)
    data[at : at + count] = rng.randbytes(count)
    return data


def _header(data: bytearray) -> tuple[int, int]:
    at = data.find(b"moov")
    return (at, min(len(data), at + 3000)) if at >= 0 else (0, min(len(data), 4096))


CORRUPTIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "cut short": cut_short,
    "without its start": without_its_start,
    "a few bits flipped": few_bits,
    "many bits flipped": many_bits,
    "blocks swapped": swapped_blocks,
    "start zeroed": zeroed_start,
    "zeroes in the header": zeroed_header,
    "a stretch zeroed": zeroed_stretch,
    "a stretch lost": lost_stretch,
    "great numbers in the header": great_numbers,
    "random bytes": random_bytes,
}


# ── files that were made to do harm ───────────────────────────────────────────────────────────────────────────────


def harmful(folder: Path) -> dict[str, Path]:
    """Name -> file; each asks for what no machine should give."""
    import draw

    whole = draw.draw_clip(folder / "whole.mp4", frames=24, gop=5, container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    return {
        "says it has 2^31 frames of one byte": _written(folder / "frames.mp4", _with_frames(data, 1, 2**31 - 1)),
        "says it has 2^31 frames in a table": _written(folder / "table.mp4", _with_frames(data, 0, 2**31 - 1)),
        "says a frame lasts 2^31 ticks": _written(folder / "long.mp4", _patched(data, b"stts", 12, 2**31 - 1)),
        "says a tick lasts a second": _written(folder / "tick.mp4", _patched(data, b"mdhd", 12, 1)),
        "says its pictures are 16,000 x 16,000": _written(
            folder / "large.mp4", _patched(data, b"avc1", 24, 16_000 << 16 | 16_000)
        ),
        "pictures of 16,000 x 16,000": _large_jpeg(folder / "large.avi", draw),
        "one gigabyte of zeroes": _sparse(folder / "zeroes.mp4", b"", 2**30),
        "MP4 and then a gigabyte of zeroes": _sparse(folder / "zeroes_after.mp4", data, 2**30),
        "a list of other files": _written(folder / "list.mp4", b"#EXTM3U\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n"),
        "a list of other files (concat)": _written(folder / "concat.mp4", b"ffconcat version 1.0\nfile whole.mp4\n"),
        "a pipe that nobody writes to": _pipe(folder / "pipe.mp4"),
        "a link to endless zeroes": _link(folder / "endless.mp4", "/dev/zero"),
    }


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _patched(data: bytes, box: bytes, offset: int, number: int) -> bytes:
    """Overwrite 32 bits, `offset` bytes behind the box's name and version."""
    at = data.index(box) + 4 + offset
    return data[:at] + struct.pack(">I", number) + data[at + 4 :]


def _with_frames(data: bytes, size: int, count: int) -> bytes:
    for box, offset, number in [(b"stsz", 4, size), (b"stsz", 8, count), (b"stts", 8, count)]:
        data = _patched(data, box, offset, number)
    return data


def _large_jpeg(path: Path, draw: Any) -> Path:
    data = bytearray(draw.draw_clip(path, frames=4, codec="mjpeg").read_bytes())
    at = 0
    while (at := data.find(b"\xff\xc0\x00\x11", at)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", 16_000, 16_000)
        at += 9
    return _written(path, bytes(data))


def _sparse(path: Path, data: bytes, size: int) -> Path:
    path.write_bytes(data)
    os.truncate(path, size)
    return path


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


# ── the campaign ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Outcomes:
    """What came of all cases of one reader."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """Corruption -> outcome -> cases."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the faults `unforeseen`, `timeout`, `memory` and `crash`: what the message says -> cases."""
    harm: dict[str, str] = field(default_factory=dict)
    """File that was made to do harm -> outcome."""
    worker_megabytes: float = 0.0
    """The most memory that a worker ever had."""
    longest: tuple[float, str] = (0.0, "")
    """Seconds of the slowest case, and which it was."""

    def note(self, kind: str, name: str, outcome: str, seconds: float) -> None:
        """Count one case."""
        if kind in CORRUPTIONS:
            self.counts.setdefault(kind, Counter())[outcome] += 1
        else:
            self.harm[kind] = outcome
        self.longest = max(self.longest, (seconds, name))

    @property
    def total(self) -> Counter[str]:
        """Outcome -> corrupted files."""
        return sum(self.counts.values(), Counter())


def outcome_of(path: Path, reader: str, reasons: Counter[str]) -> tuple[str, float]:
    """``frames``, a fault, or the class of whatever else was raised; and seconds."""
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import decode
    from mmla_tasks.errors import ClipError
    from mmla_tasks.records import Clip

    clip = Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)
    began = time.perf_counter()
    try:
        decode(clip, FramePolicy(reader=reader))  # type: ignore[arg-type]
        outcome = "frames"
    except ClipError as error:
        outcome = error.fault
        if outcome in ("unforeseen", "timeout", "memory", "crash"):
            reasons[f"{outcome}: {error.details['why']}"] += 1
    except Exception as error:
        outcome = f"! {type(error).__name__}"
    return outcome, time.perf_counter() - began


def sources(folder: Path, clips: Path | None) -> list[Path]:
    """What is corrupted: all drawn files, and each given clip as often as it takes to be a fifth of the cases."""
    import oddities

    drawn = [oddity.path for oddity in oddities.drawn(folder).values()]
    given = sorted(clips.glob("*.mp4")) if clips is not None else []
    return drawn + given * (len(drawn) // (4 * len(given))) if given else drawn


def corrupted(originals: Sequence[Path], folder: Path, cases: int, seed: int) -> Iterator[tuple[str, Path]]:
    """(Corruption, file), the same for the same seed. A file is there until the next but seven is asked for."""
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        original, kind = rng.choice(originals), rng.choice(list(CORRUPTIONS))
        path = folder / f"{number:05}_{original.name}"
        path.write_bytes(CORRUPTIONS[kind](bytearray(original.read_bytes()), rng))
        yield kind, path


def campaign(
    reader: str, cases: int, seed: int, clips: Path | None, advance: Callable[[], None] = lambda: None
) -> Outcomes:
    """Ask for frames of every file, two at a time."""
    from harness_ext.video import WORKERS

    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        originals = sources(_folder(folder, "originals"), clips)

        def run(case: tuple[str, Path]) -> tuple[str, Path, str, float]:
            kind, path = case
            found = outcome_of(path, reader, outcomes.reasons)
            path.unlink()
            return kind, path, *found

        harm = list(harmful(_folder(folder, "harmful")).items())
        corrupt = corrupted(originals, _folder(folder, "corrupted"), cases, seed)
        for some in _by(32, harm, corrupt):
            for kind, path, outcome, seconds in pool.map(run, some):
                outcomes.note(kind, path.name, outcome, seconds)
                if kind in CORRUPTIONS:
                    advance()
            outcomes.worker_megabytes = max(outcomes.worker_megabytes, *map(peak_megabytes, WORKERS.processes))
    return outcomes


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def _by(size: int, first: list[Any], rest: Iterator[Any]) -> Iterator[list[Any]]:
    """The cases, a few at a time, so that not all files are on the disk at once."""
    yield first
    while some := list(islice(rest, size)):
        yield some


def table(outcomes: Outcomes) -> str:
    """Markdown: corruptions down, outcomes across."""
    names = [name for name, _ in outcomes.total.most_common()]
    lines = [f"| corruption | cases | {' | '.join(names)} |", "|---|---:|" + "---:|" * len(names)]
    for kind, counts in [*sorted(outcomes.counts.items()), ("all", outcomes.total)]:
        cells = (f"{counts[name]:,}" if counts[name] else "" for name in names)
        lines.append(f"| {kind} | {counts.total():,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def peak_megabytes(process: int | str = "self") -> float:
    """The most memory that a process ever had."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def faults(outcomes: Outcomes, grown: float) -> list[str]:
    """What must not be."""
    from harness_ext.video.isolation import bounds

    allowed = bounds().bytes / 2**20 + 200  # and what a worker has before it decodes
    ends = outcomes.total + Counter(outcomes.harm.values())
    wrong = {name: count for name, count in ends.items() if name == "unforeseen" or name.startswith("!")}
    found = [f"{count} cases end as {name}" for name, count in wrong.items()]
    if outcomes.longest[0] > HANG_SECONDS:
        found.append(f"{outcomes.longest[1]} takes {outcomes.longest[0]:.1f} s")
    if grown > OWN_MEGABYTES:
        found.append(f"this process grows by {grown:,.0f} MB")
    if outcomes.worker_megabytes > allowed:
        found.append(f"a worker had {outcomes.worker_megabytes:,.0f} MB")
    return found


def main() -> int:
    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", default=["pyav", "decord"], choices=["pyav", "decord"])
    parser.add_argument("--clips", type=Path, help="a folder of MP4 clips that are corrupted too")
    args = parser.parse_args()

    good = True
    for reader in args.readers:
        before = peak_megabytes()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(reader, total=args.cases)
            outcomes = campaign(reader, args.cases, args.seed, args.clips, lambda task=task: progress.advance(task))
        grown = peak_megabytes() - before
        print(f"\n{reader}, seed {args.seed}\n\n{table(outcomes)}\n")
        print("| made to do harm: the file | outcome |\n|---|---|")
        print("\n".join(f"| {what} | {outcome} |" for what, outcome in outcomes.harm.items()) + "\n")
        for reason, count in outcomes.reasons.most_common():
            print(f"{count:5} {reason}")
        seconds, name = outcomes.longest
        had = f"this process grew by {grown:,.0f} MB, a worker had {outcomes.worker_megabytes:,.0f} MB at most"
        print(f"slowest {seconds:.1f} s ({name}); {had}")
        for fault in faults(outcomes, grown):
            print(f"FAULT {fault}")
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
