from __future__ import annotations

import doctest
import hashlib
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_ext import frame_policy, video
from harness_ext.frame_policy import FramePolicy
from harness_ext.video import Frames, decode, digests, files, pixels, reading, timeline
from harness_ext.video import frames as frames_module
from mmla_tasks.errors import ClipError, MissingExtraError, UsageError
from mmla_tasks.records import Clip

COUNTS = st.integers(1, 5000)
BUDGETS = st.integers(1, 80)
ALL_FRAMES = FramePolicy(num_frames=10_000)


def clip_of(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    return Clip(path=str(path), start_seconds=start, end_seconds=end, size=None, mtime_ns=None)


def numbers(draw: ModuleType, frames: Frames) -> list[int]:
    return [draw.read_number(image) for image in frames.frames_THWC]


# ── arithmetic, without any video ─────────────────────────────────────────────────────────────────────────────────


def test_doctests() -> None:
    assert doctest.testmod(frame_policy).attempted >= 9
    assert doctest.testmod(frame_policy).failed == 0


@given(COUNTS, BUDGETS)
def test_sample_indices_laws(num_frames: int, budget: int) -> None:
    chosen = frame_policy.sample_indices(num_frames, budget)
    assert len(chosen) == min(budget, num_frames)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert len(chosen) == 1 or chosen[-1] == num_frames - 1
    gaps = [b - a for a, b in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(COUNTS, BUDGETS)
def test_linspace_indices_are_what_was_released(num_frames: int, budget: int) -> None:
    assert (
        frame_policy.linspace_indices(num_frames, budget) == np.linspace(0, num_frames - 1, budget).astype(int).tolist()
    )


@given(st.integers(4, 10**6))
def test_the_default_is_the_released_rule_wherever_a_clip_has_enough_frames(num_frames: int) -> None:
    assert frame_policy.sample_indices(num_frames, 4) == frame_policy.linspace_indices(num_frames, 4)


@given(COUNTS, BUDGETS)
def test_midpoint_indices_are_what_was_released(num_frames: int, budget: int) -> None:
    segment = float(num_frames - 1) / budget
    middles = [(segment * i + segment * (i + 1)) / 2 for i in range(budget)]
    assert frame_policy.midpoint_indices(num_frames, budget) == np.round(np.array(middles) + 1e-6).astype(int).tolist()


@given(COUNTS, st.integers(1, 60), BUDGETS)
def test_stride_indices_are_what_was_released(num_frames: int, stride: int, cap: int) -> None:
    every = list(range(0, num_frames, stride))
    gap = len(every) / cap
    released = every if len(every) <= cap else [every[int(i * gap + gap / 2)] for i in range(cap)]
    assert frame_policy.stride_indices(num_frames, stride, cap) == released


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.fractions(Fraction(1, 3), 200), st.integers(1, 70))
def test_fps_indices_take_the_frame_nearest_to_each_time(gaps: list[int], step: Fraction, cap: int) -> None:
    ticks = [1000 + sum(gaps[:i]) for i in range(len(gaps))]
    end = ticks[-1] + gaps[-1]
    times = [ticks[0] + step * k for k in range(math.ceil((end - ticks[0]) / step))]
    nearest = sorted({min(range(len(ticks)), key=lambda i: (abs(ticks[i] - time), i)) for time in times})
    uncapped = frame_policy.fps_indices(ticks, end, step, max_frames=10_000)
    assert uncapped == nearest
    capped = frame_policy.fps_indices(ticks, end, step, cap)
    assert len(capped) == min(cap, len(nearest))
    assert set(capped) <= set(nearest)
    assert capped[0] == 0


def test_fps_indices_do_not_walk_through_a_hostile_duration() -> None:
    assert frame_policy.fps_indices([0, 10**15], end=10**18, step=Fraction(1, 1000), max_frames=64) == [0, 1]
    assert frame_policy.fps_indices([], end=0, step=Fraction(1), max_frames=64) == []


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(4, 10**6), st.sampled_from([1, 2]))
def test_resized_shape_laws(height: int, width: int, max_pixels: int, factor: int) -> None:
    high, wide = frame_policy.resized_shape(height, width, max_pixels, factor)
    assert 0 < high * wide <= max_pixels
    assert (high, wide) == (height, width) or high * wide < height * width
    if height * width > max_pixels:
        assert high % factor == 0 or high == height
        assert wide % factor == 0 or wide == width
    assert frame_policy.resized_shape(width, height, max_pixels, factor) in [(wide, high), (high, wide)]


@given(st.integers(100, 4000), st.integers(100, 4000))
def test_resized_shape_keeps_the_proportion_and_uses_the_bound(height: int, width: int) -> None:
    high, wide = frame_policy.resized_shape(height, width, max_pixels=100_000, factor=2)
    if height * width > 100_000:
        assert abs(wide * height / (high * width) - 1) < 0.06
        assert high * wide > 0.9 * 100_000


# ── the policy ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_policy_from_args() -> None:
    assert FramePolicy.from_args() == FramePolicy()
    assert FramePolicy.from_args(num_frames="8", video_reader="decord").describe() == "8 frames ≤ 151,200 px (decord)"
    by_rate = FramePolicy.from_args(fps="0.5", max_pixels=50_000.0)
    assert by_rate.describe() == "0.5 fps up to 64 frames ≤ 50,000 px"
    released = FramePolicy.from_args(rule="released_stride")
    assert (released.fps, released.max_frames, released.num_frames) == (1.0, 64, None)
    assert FramePolicy.from_args(num_frames=1, rule="released_midpoint").describe() == (
        "1 frame ≤ 151,200 px (released_midpoint)"
    )
    for policy in (FramePolicy(), by_rate, released):
        assert FramePolicy(**json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_frames": 4, "fps": 1}, "fps=1 can't be used\n  why   num_frames=4 is given too; give one of them"),
        ({"num_frames": 0}, "num_frames=0 can't be used\n  why   it must be a whole number of at least 1"),
        ({"num_frames": "four"}, "num_frames=four can't be used"),
        ({"num_frames": 2.5}, "num_frames=2.5 can't be used"),
        ({"num_frames": True}, "num_frames=True can't be used"),
        ({"num_frames": float("inf")}, "num_frames=inf can't be used"),
        ({"fps": -1}, "fps=-1.0 can't be used\n  why   it must be a number above 0"),
        ({"fps": "nan"}, "fps=nan can't be used"),
        ({"fps": "fast"}, "fps=fast can't be used"),
        ({"max_frames": 8}, "max_frames=8 can't be used\n  why   the frame rule `uniform` does not take it"),
        ({"fps": 1, "max_frames": 0}, "max_frames=0 can't be used"),
        ({"max_pixels": 3}, "max_pixels=3 can't be used\n  why   it must be a whole number of at least 4"),
        ({"max_pixels": 0}, "max_pixels=0 can't be used"),
        ({"video_reader": "decrod"}, "it must be one of pyav, decord\n  next   did you mean `decord`?"),
        ({"rule": "released"}, "it must be one of uniform, fps, released_linspace"),
        ({"num_frames": 4, "rule": "fps"}, "the frame rule `fps` does not take it"),
        ({"fps": 1, "rule": "uniform"}, "the frame rule `uniform` does not take it"),
    ],
)
def test_policy_refuses(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        FramePolicy.from_args(**args)
    assert message in str(refused.value)


def test_frames_check_themselves() -> None:
    facts: dict[str, Any] = {
        "first_index": 0, "source_frames": 9, "source_fps": 25.0, "duration_seconds": 1.0, "fingerprint": {},
    }  # fmt: skip
    black = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    frames = Frames(frames_THWC=black, seconds=(0.0, 1.0), indices=(0, 8), **facts)
    assert repr(frames) == "Frames([2, 4, 6, 3], indices=(0, 8), of 9 frames)"
    assert len(frames) == 2
    with pytest.raises(ValueError, match=r"must be uint8 \[T, H, W, 3\], not float64 \[2, 4, 6, 3\]"):
        Frames(frames_THWC=black.astype(float), seconds=(0.0, 1.0), indices=(0, 8), **facts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 frames, 1 times, 2 indices"):
        Frames(frames_THWC=black, seconds=(0.0,), indices=(0, 8), **facts)


# ── frames known by construction ──────────────────────────────────────────────────────────────────────────────────

DRAWN: dict[str, dict[str, Any]] = {
    "one_gop.mp4": {},
    "b_frames.mp4": {"frames": 50, "b_frames": 3, "fps": Fraction(24000, 1001)},
    "short_gops.mp4": {"frames": 60, "gop": 5, "b_frames": 2, "fps": 30},
    "open_gops.mp4": {"frames": 60, "gop": 6, "b_frames": 2, "options": {"x264-params": "open-gop=1:keyint=6"}},
    "recovery.mp4": {"frames": 60, "gop": 10, "options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "every_frame_key.mp4": {"frames": 12, "gop": 1, "fps": Fraction(15, 2)},
    "portrait.mp4": {"frames": 20, "size": (64, 98), "sound_seconds": 1.5},
    "large.mp4": {"frames": 10, "size": (854, 480), "options": {"preset": "ultrafast"}},
    "one_frame.mp4": {"frames": 1},
    "two_frames.mp4": {"frames": 2},
    "late_start.mp4": {"frames": 30, "b_frames": 2, "first_tick": 50},
    "fragmented.mp4": {"frames": 30, "gop": 6, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "matroska.mkv": {"frames": 47, "gop": 7, "b_frames": 3, "fps": Fraction(30000, 1001)},
    "transport.ts": {"frames": 30, "gop": 6, "b_frames": 2},
    "no_times.avi": {"frames": 30, "codec": "mpeg4", "options": {"bf": "2"}, "gop": 8},
    "motion_jpeg.avi": {"frames": 9, "codec": "mjpeg", "options": {"q": "2"}},
    "hidden_frames.webm": {
        "frames": 40, "codec": "libvpx", "gop": 20,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "good", "cpu-used": "5", "b": "300k"},
    },
    "varying.mp4": {
        "frames": 24, "b_frames": 2, "tick_seconds": Fraction(1, 1000),
        "ticks": [i * 40 + (i % 3) * 11 + (i > 12) * 900 for i in range(24)],
    },
}  # fmt: skip
POLICIES = [
    FramePolicy(),
    FramePolicy(num_frames=1),
    FramePolicy(num_frames=7),
    ALL_FRAMES,
    FramePolicy.from_args(fps=2),
    FramePolicy.from_args(fps=10, max_frames=3),
    FramePolicy.from_args(rule="released_linspace"),
    FramePolicy.from_args(rule="released_midpoint", num_frames=8),
    FramePolicy.from_args(rule="released_stride", fps=4),
]


@pytest.fixture(scope="module")
def drawn(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    return {name: draw.draw_clip(folder / name, **options) for name, options in DRAWN.items()}


@pytest.mark.parametrize("policy", POLICIES, ids=FramePolicy.describe)
@pytest.mark.parametrize("name", DRAWN)
def test_frames_are_those_the_policy_names(
    drawn: dict[str, Path], draw: ModuleType, name: str, policy: FramePolicy
) -> None:
    frames = decode(clip_of(drawn[name]), policy)
    count = DRAWN[name].get("frames", 24)
    assert frames.source_frames == count
    assert numbers(draw, frames) == list(frames.indices)
    if policy.rule == "uniform":
        assert list(frames.indices) == frame_policy.sample_indices(count, policy.num_frames or 0)
    assert frames.seconds == tuple(sorted(frames.seconds))
    assert 0 <= frames.seconds[0] <= frames.seconds[-1] < frames.duration_seconds


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "varying.mp4"])
def test_times_of_frames_at_a_constant_rate(drawn: dict[str, Path], name: str) -> None:
    frames = decode(clip_of(drawn[name]), ALL_FRAMES)
    fps = float(DRAWN[name].get("fps", 25))
    assert frames.source_fps == pytest.approx(fps)
    assert frames.seconds == pytest.approx([i / fps for i in frames.indices], abs=0.002)
    assert frames.duration_seconds == pytest.approx(frames.source_frames / fps, abs=0.002)


def test_times_of_frames_at_a_varying_rate(drawn: dict[str, Path], draw: ModuleType) -> None:
    ticks = DRAWN["varying.mp4"]["ticks"]
    every = decode(clip_of(drawn["varying.mp4"]), ALL_FRAMES)
    assert every.seconds == pytest.approx([tick / 1000 for tick in ticks])
    frames = decode(clip_of(drawn["varying.mp4"]), FramePolicy.from_args(fps=5))
    end = round(every.duration_seconds * 1000)
    assert numbers(draw, frames) == frame_policy.fps_indices(ticks, end, Fraction(200), 64)


SEGMENTS = [(0.0, 0.4), (0.4, 0.8), (0.36, 0.44), (1.04, 1.08), (1.04, None), (0.33, 1.5), (1.9, 99.0)]


@pytest.mark.parametrize(("start", "end"), SEGMENTS)
@pytest.mark.parametrize(
    "options",
    [
        {"name": "plain.mp4"},
        {"name": "short.mp4", "gop": 4, "b_frames": 2},
        {"name": "late.mp4", "gop": 10, "first_tick": 30},
        {"name": "short.mkv", "gop": 4, "b_frames": 2},
        {"name": "old.avi", "gop": 6, "codec": "mpeg4", "options": {"bf": "2"}},
    ],
    ids=lambda options: options["name"],
)
def test_a_segment_holds_the_frames_shown_in_it(
    draw: ModuleType, tmp_path: Path, options: dict[str, Any], start: float, end: float | None
) -> None:
    path = draw.draw_clip(tmp_path / options["name"], frames=50, **{k: v for k, v in options.items() if k != "name"})
    shown = [i for i in range(50) if Fraction(str(start)) <= Fraction(i, 25) < Fraction(str(min(end or 9, 9)))]
    for policy in (ALL_FRAMES, FramePolicy(num_frames=3)):
        frames = decode(clip_of(path, start, end), policy)
        assert numbers(draw, frames) == [
            shown[i] for i in frame_policy.sample_indices(len(shown), policy.num_frames or 0)
        ]
        assert frames.first_index == shown[0]
        assert frames.source_frames == len(shown)
        assert frames.seconds == pytest.approx([i / 25 - start for i in frames.indices], abs=1e-6)
        assert frames.duration_seconds == pytest.approx(min(2.0, end or 2.0) - start)


def test_a_long_file_is_entered_near_the_segment(draw: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    path = draw.draw_clip(tmp_path / "long.mp4", frames=500, gop=10, b_frames=2)
    decoded: list[int] = []
    monkeypatch.setattr(pixels, "_matched", _counting(pixels._matched, decoded))
    assert read_here(draw, clip_of(path, 16.0, 16.4)).numbers == [400, 403, 406, 409]
    assert len(decoded) < 30
    decoded.clear()
    assert read_here(draw, clip_of(path)).numbers == [0, 166, 332, 499]
    assert len(decoded) < 90


class Kept:
    """Numbers of the images that were read in this process, where a test can look at how."""

    def __init__(self, draw: ModuleType) -> None:
        self.draw = draw
        self.numbers: list[int] = []

    def begin(self) -> None:
        self.numbers = []

    def add(self, image_HWC: Any) -> None:
        self.numbers.append(self.draw.read_number(image_HWC))


def read_here(draw: ModuleType, clip: Clip) -> Any:
    kept = Kept(draw)
    shown = reading.read_clip(clip, FramePolicy(), kept)
    assert kept.numbers == shown.indices
    return SimpleNamespace(numbers=kept.numbers, seconds=shown.seconds)


def _counting(function: Any, seen: list[int]) -> Any:
    def wrapped(*args: Any) -> Any:
        for index, frame in function(*args):
            seen.append(index)
            yield index, frame

    return wrapped


@pytest.mark.parametrize("name", ["short_gops.mp4", "open_gops.mp4", "recovery.mp4", "matroska.mkv", "transport.ts"])
def test_entering_late_and_skipping_change_no_pixel(drawn: dict[str, Path], name: str) -> None:
    every = decode(clip_of(drawn[name]), ALL_FRAMES).frames_THWC
    for count in (2, 3, 4, 7):
        frames = decode(clip_of(drawn[name]), FramePolicy(num_frames=count))
        assert (frames.frames_THWC == every[list(frames.indices)]).all()
    for start in (0.5, 0.7, 0.9):
        frames = decode(clip_of(drawn[name], start), FramePolicy(num_frames=2))
        assert (frames.frames_THWC == every[list(frames.indices)]).all()


def test_sound_that_starts_earlier_sets_the_time_to_zero(draw: ModuleType, tmp_path: Path) -> None:
    path = draw.draw_clip(tmp_path / "late_picture.mkv", frames=25, first_tick=10, sound_seconds=1.5)
    assert decode(clip_of(path), FramePolicy()).seconds[0] == pytest.approx(0.4, abs=0.03)
    assert numbers(draw, decode(clip_of(path, 0.85, 1.05), ALL_FRAMES)) in ([12, 13, 14, 15, 16], [11, 12, 13, 14, 15])


def test_a_file_that_breaks_its_word_is_counted_by_decoding(
    drawn: dict[str, Path], draw: ModuleType, monkeypatch: Any
) -> None:
    path = drawn["b_frames.mp4"]
    told = timeline.timeline_of(files.source_of(str(path)))
    later = told.ticks[:5] + tuple(t + 1 for t in told.ticks[5:])
    liar = timeline.Timeline(later, told.end + 1, 0, told.tick_seconds, told.rate)
    monkeypatch.setattr(reading, "timeline_of", lambda _: liar)
    frames = read_here(draw, clip_of(path))
    assert frames.numbers == [0, 16, 32, 49]
    assert frames.seconds == pytest.approx([i * 1001 / 24000 for i in (0, 16, 32, 49)])


# ── real clips ────────────────────────────────────────────────────────────────────────────────────────────────────

UNRESIZED = {"max_pixels": 10**9}


def test_real_clips_equal_a_full_decode(real_clips: list[Path]) -> None:
    import av

    policies = [
        FramePolicy(**UNRESIZED),
        FramePolicy(num_frames=9, **UNRESIZED),
        FramePolicy.from_args(fps=1, **UNRESIZED),
    ]
    for path in real_clips:
        chosen = [decode(clip_of(path), policy) for policy in policies]
        chosen.append(decode(clip_of(path, 1.3, 2.7), policies[0]))
        with av.open(str(path)) as container:
            count = 0
            for index, frame in enumerate(container.decode(video=0)):
                count += 1
                for frames in chosen:
                    if index in frames.indices:
                        image = frames.frames_THWC[frames.indices.index(index)]
                        assert (image == frame.to_ndarray(format="rgb24")).all(), (path.name, index)
        assert [frames.source_frames for frames in chosen[:3]] == [count] * 3
        assert list(chosen[0].indices) == frame_policy.sample_indices(count, 4)


def _has_decord() -> bool:
    return subprocess.run([sys.executable, "-c", "import decord"], capture_output=True, check=False).returncode == 0


def test_decord_gives_equal_frames_or_refuses(drawn: dict[str, Path]) -> None:
    """More, on real and on 200 mixed clips, in test_decord.py."""
    if not _has_decord():
        pytest.skip("decord is not installed: pip install -e '.[decord]'")
    for name, path in drawn.items():
        if name == "transport.ts":
            message = refusal(path, reader="decord")
            assert "why    decord reads MP4, Matroska and AVI here, not mpegts" in message
            assert "next   use video_reader=pyav      or run with" in message
            continue
        by_pyav, by_decord = (decode(clip_of(path), FramePolicy(num_frames=5, reader=r)) for r in ("pyav", "decord"))
        assert (by_pyav.frames_THWC == by_decord.frames_THWC).all(), name
        assert (by_pyav.indices, by_pyav.seconds) == (by_decord.indices, by_decord.seconds)
        assert by_pyav.fingerprint["digest"] == by_decord.fingerprint["digest"]
        assert by_decord.fingerprint["reader"] == "decord"


# ── size, fingerprint, metadata ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("max_pixels", [10**6, 151_200, 10_000, 600])
def test_max_pixels_is_honoured(drawn: dict[str, Path], draw: ModuleType, max_pixels: int) -> None:
    frames = decode(clip_of(drawn["large.mp4"]), FramePolicy(max_pixels=max_pixels))
    _, height, width, _ = frames.frames_THWC.shape
    assert (height, width) == frame_policy.resized_shape(480, 854, max_pixels, factor=2)
    assert height * width <= max_pixels
    assert numbers(draw, frames) == [0, 3, 6, 9]


def test_fingerprint_is_stable_and_plain(drawn: dict[str, Path]) -> None:
    import av

    first, second = (decode(clip_of(drawn["large.mp4"]), FramePolicy()) for _ in range(2))
    assert first.fingerprint == second.fingerprint == json.loads(json.dumps(first.fingerprint))
    digest = hashlib.sha256(first.frames_THWC.tobytes()).hexdigest()[:32]
    expected = {"reader": "pyav", "version": av.__version__, "indices": [0, 3, 6, 9], "size": [290, 516]}
    assert first.fingerprint == {**expected, "digest": digest}
    other = decode(clip_of(drawn["large.mp4"]), FramePolicy(num_frames=3))
    assert other.fingerprint["digest"] != digest


def test_metadata_counts_from_the_start_of_the_clip(drawn: dict[str, Path]) -> None:
    frames = decode(clip_of(drawn["one_gop.mp4"], 0.4, 0.8), FramePolicy())
    assert frames.indices == (10, 13, 16, 19)
    assert video.frames_metadata(frames) == {
        "total_num_frames": 10, "fps": 25.0, "width": 96, "height": 64, "duration": pytest.approx(0.4),
        "video_backend": "pyav", "frames_indices": [0, 3, 6, 9],
    }  # fmt: skip


def test_contact_sheet(drawn: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    frames = decode(clip_of(drawn["short_gops.mp4"]), FramePolicy(num_frames=10))
    video.contact_sheet(frames, tmp_path / "sheet.png", "mmla_emotion_meld id 1 · 情感: 开心")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (8 + 8 * 104, 2 * (64 + 26) + 34)
        cell = np.asarray(sheet)[8 : 8 + 64, 8 + 104 : 8 + 104 + 96]
        assert (cell == frames.frames_THWC[1]).all()


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(path: Path, start: float = 0.0, end: float | None = None, **policy: Any) -> str:
    with pytest.raises(ClipError) as refused:
        decode(clip_of(path, start, end), FramePolicy(**policy), who="mmla_emotion_meld id 1153_0")
    return str(refused.value)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refusal(path) == (
        "clip for mmla_emotion_meld id 1153_0 can't be read\n"
        f"  file   {path} (0 bytes)\n"
        "  why    the file is empty; the archive may have been extracted only in part\n"
        "  next   get the file again      or run with --on_bad_clip skip"
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    message = refusal(tmp_path / "no.mp4")
    assert f"file   {tmp_path}/no.mp4\n" in message
    assert "why    the file is missing\n  next   put the file there" in message
    assert "it is not a file" in refusal(tmp_path)
    with pytest.raises(ClipError, match=r"^clip can't be read"):
        decode(clip_of(tmp_path / "no.mp4"), FramePolicy())


def test_not_a_video(tmp_path: Path, draw: ModuleType) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello world\n" * 99)
    assert "why    the file is not a video, or its beginning is damaged" in refusal(text)
    assert "(1,188 bytes)" in refusal(text)
    sound = draw.draw_sound(tmp_path / "sound.mp4")
    assert "why    the file holds audio but no video" in refusal(sound)


def test_a_file_cut_short_is_never_taken_for_a_shorter_one(tmp_path: Path, draw: ModuleType) -> None:
    index_last = draw.draw_clip(tmp_path / "last.mp4", frames=40, sound_seconds=1).read_bytes()
    index_first = draw.draw_clip(
        tmp_path / "first.mp4", frames=40, sound_seconds=1, container_options={"movflags": "faststart"}
    ).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(index_last[: len(index_last) // 2])
    assert "the file is cut short or damaged: it starts as MP4, but its index can't be read" in refusal(cut)
    media_starts = index_first.index(b"mdat") + 4
    for kept in range(media_starts + 1, len(index_first) - 2000, 97):
        cut.write_bytes(index_first[:kept])
        os.utime(cut, ns=(kept, kept))
        assert re.search(r"the file is cut short: \d+ of its 40 frames lie beyond its end", refusal(cut)), kept


def test_damage_gives_frames_or_a_named_error(tmp_path: Path, draw: ModuleType) -> None:
    whole = draw.draw_clip(tmp_path / "whole.mp4", frames=40, gop=8, b_frames=2).read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.mp4"
    outcomes = []
    for round_number in range(60):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), size=8):
            data[position] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(data)
        os.utime(damaged, ns=(round_number, round_number))
        try:
            outcomes.append(len(decode(clip_of(damaged), FramePolicy())))
        except ClipError as error:
            outcomes.append(0)
            assert "\n  why " in str(error)
    assert 0 in outcomes
    assert len(set(outcomes)) > 1


def test_a_segment_outside_the_file(drawn: dict[str, Path]) -> None:
    message = refusal(drawn["one_gop.mp4"], 5.0, 6.5)
    assert "why    no frame is shown from 5 s to 6.5 s; the file ends at 0.960 s" in message
    assert "no frame is shown from 7 s to its end" in refusal(drawn["one_gop.mp4"], 7.0)
    assert "no frame is shown from 0.5 s to 0.5 s" in refusal(drawn["one_gop.mp4"], 0.5, 0.5)


def test_missing_packages_name_the_extra(drawn: dict[str, Path], monkeypatch: Any) -> None:
    clip = clip_of(drawn["large.mp4"])
    for package, extra, policy in [
        ("decord", "decord", FramePolicy(reader="decord")),
        ("PIL", "hf", FramePolicy()),
        ("av", "hf", FramePolicy()),
    ]:
        frames_module._version.cache_clear()
        with monkeypatch.context() as patch, pytest.raises(MissingExtraError, match=f"`{package}`") as missing:
            patch.setitem(sys.modules, package, None)
            decode(clip, policy)
        assert f"pip install 'mmla-eval[{extra}]'" in str(missing.value)


def test_this_process_loads_no_decoder(drawn: dict[str, Path]) -> None:
    code = (
        "import sys; from harness_ext.video import decode, probe; from harness_ext.frame_policy import FramePolicy\n"
        "clip = {'path': sys.argv[1], 'start_seconds': 0.0, 'end_seconds': None}\n"
        "assert len(decode(clip, FramePolicy())) == 4 and probe(sys.argv[1]).frames == 10\n"
        "print(sorted({'av', 'decord', 'PIL'} & set(sys.modules)))"
    )
    path = str(drawn["large.mp4"])
    assert subprocess.check_output([sys.executable, "-c", code, path], text=True).strip() == "[]"


def test_import_is_light() -> None:
    code = "import sys, harness_ext.video; print(sorted({'av', 'decord', 'PIL', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# ── digests ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "cache"))
    digests._digest.cache_clear()
    return tmp_path / "cache" / "digests.sqlite"


def test_clip_digest_is_cached_until_the_file_changes(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    assert video.clip_digest(clip_of(path)) == hashlib.sha256(b"one").hexdigest()
    with sqlite3.connect(cache) as store:
        store.execute("UPDATE digests SET sha256 = 'from the cache'")
    store.close()
    digests._digest.cache_clear()
    assert video.clip_digest(clip_of(path)) == "from the cache"
    path.write_bytes(b"three")
    assert video.clip_digest(clip_of(path)) == hashlib.sha256(b"three").hexdigest()


def test_clip_digest_survives_a_cache_that_cannot_be_used(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    cache.parent.mkdir()
    cache.write_bytes(b"this is no database" * 99)
    assert video.clip_digest(clip_of(path)) == hashlib.sha256(b"one").hexdigest()
    digests._digest.cache_clear()
    monkeypatch.setenv("MMLA_CACHE_DIR", str(path))
    assert video.clip_digest(clip_of(path)) == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(ClipError, match="clip for who can't be read"):
        video.clip_digest(clip_of(tmp_path / "no.mp4"), who="who")


def test_two_processes_share_the_digest_cache(cache: Path, tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.mp4").write_bytes(b"%d" % number)
    code = (
        "import sys; from pathlib import Path; from harness_ext.video import clip_digest\n"
        "for p in sorted(Path(sys.argv[1]).glob('*.mp4')): clip_digest({'path': str(p)})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    with sqlite3.connect(cache) as store:
        rows = dict(store.execute("SELECT path, sha256 FROM digests"))
    store.close()
    assert rows == {str(tmp_path / f"{n}.mp4"): hashlib.sha256(b"%d" % n).hexdigest() for n in range(40)}
