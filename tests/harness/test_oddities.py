"""Valid files of every odd kind give exactly the frames that they were drawn with; decord gives the same, or refuses."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode, probe
from mmla_tasks.errors import ClipError
from mmla_tasks.records import Clip

pytest.importorskip("av", reason="drawing clips needs PyAV: pip install -e '.[dev]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
oddities = import_module("oddities")

CUT_UNSEEN = {".ts", ".flv", ".h264"}
"""Files that do not say how long they are."""
REFUSED_BY_DECORD = {
    "mirrored", "odd size, 4:4:4", "odd size, 4:2:0", "10 bits", "HDR (BT.2020, PQ)", "interlaced", "interlaced MPEG-2",
    "alpha, PNG", "transport stream", "AV1", "Flash", "two films", "size changes on the way",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = oddities.drawn(tmp_path_factory.mktemp("oddities"))
    return found


def clip_of(oddity: Any) -> Clip:
    return Clip(
        path=str(oddity.path), start_seconds=oddity.start_seconds, end_seconds=oddity.end_seconds,
        size=None, mtime_ns=None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", oddities.KINDS)
def test_frames_are_those_that_were_drawn(drawn: dict[str, Any], kind: str) -> None:
    oddity = drawn[kind]
    every = decode(clip_of(oddity), FramePolicy(num_frames=1000))
    assert oddity.faults(every) == []
    for count in (1, 4, 7):
        some = decode(clip_of(oddity), FramePolicy(num_frames=count))
        assert (some.frames_THWC == every.frames_THWC[[i - some.first_index for i in some.indices]]).all()


@pytest.mark.parametrize("kind", oddities.KINDS)
def test_decord_gives_the_same_or_refuses(drawn: dict[str, Any], kind: str) -> None:
    if find_spec("decord") is None:
        pytest.skip("decord is not installed: pip install -e '.[decord]'")
    for count in (1000, 5):
        by_pyav = decode(clip_of(drawn[kind]), FramePolicy(num_frames=count))
        try:
            by_decord = decode(clip_of(drawn[kind]), FramePolicy(num_frames=count, reader="decord"))
        except ClipError as error:
            assert kind in REFUSED_BY_DECORD
            assert error.fault == "unsupported"
            assert error.details["next"].startswith("use video_reader=pyav")
        else:
            assert kind not in REFUSED_BY_DECORD
            assert (by_pyav.frames_THWC == by_decord.frames_THWC).all()
            assert (by_pyav.indices, by_pyav.seconds) == (by_decord.indices, by_decord.seconds)


@pytest.mark.parametrize("kind", oddities.KINDS)
def test_packets_tell_how_many_frames_there_are(drawn: dict[str, Any], kind: str) -> None:
    found = probe(str(drawn[kind].path))
    if kind != "segment of a longer file":
        assert found.frames == len(drawn[kind].numbers)


@pytest.mark.parametrize("kind", oddities.KINDS)
def test_a_file_cut_short_is_never_taken_for_a_shorter_one(drawn: dict[str, Any], kind: str, tmp_path: Path) -> None:
    oddity = drawn[kind]
    data = oddity.path.read_bytes()
    for part in range(1, 10):
        cut = tmp_path / f"{part}{oddity.path.suffix}"
        cut.write_bytes(data[: len(data) * part // 10])
        try:
            frames = decode({**clip_of(oddity), "path": str(cut)}, FramePolicy(num_frames=1000))
        except ClipError as error:
            assert error.fault in ("cut_short", "no_frames", "damaged", "not_video")
        else:
            assert oddity.path.suffix in CUT_UNSEEN or oddity.faults(frames) == []


def test_bytes_behind_a_whole_film_do_no_harm(drawn: dict[str, Any], tmp_path: Path) -> None:
    for kind in ("tagged BT.709", "in Matroska, without a frame count", "MPEG-4 in AVI"):
        oddity = drawn[kind]
        longer = tmp_path / f"longer{oddity.path.suffix}"
        for appended in (b"\0" * 5000, b"somebody's notes " * 99, b"\xff" * 7):
            longer.write_bytes(oddity.path.read_bytes() + appended)
            frames = decode({**clip_of(oddity), "path": str(longer)}, FramePolicy(num_frames=1000))
            assert oddity.faults(frames) == [], (kind, appended[:3])
