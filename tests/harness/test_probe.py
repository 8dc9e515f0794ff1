"""What `probe` tells of a file is what a full decode finds, without decoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode, probe
from mmla_tasks.errors import ClipError, ClipFault
from mmla_tasks.records import Clip

DRAWN: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"frames": 50, "b_frames": 3, "fps": Fraction(24000, 1001), "sound_seconds": 1},
    "late_start.mp4": {"frames": 30, "b_frames": 2, "first_tick": 50},
    "matroska.mkv": {"frames": 47, "gop": 7, "fps": 30},
    "no_times.avi": {"frames": 30, "codec": "mpeg4", "options": {"bf": "2"}},
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_probe_agrees_with_decoding(draw: ModuleType, tmp_path: Path, name: str) -> None:
    path = draw.draw_clip(tmp_path / name, **DRAWN[name])
    found = probe(str(path))
    clip = Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)
    frames = decode(clip, FramePolicy(num_frames=1000))
    assert (found.frames, found.width, found.height) == (len(frames), 96, 64)
    assert found.fps == pytest.approx(frames.source_fps)
    assert found.duration_seconds == pytest.approx(frames.duration_seconds, abs=0.05)
    assert found.has_audio is ("sound_seconds" in DRAWN[name])
    assert found.codec == ("mpeg4" if name.endswith("avi") else "h264")


def test_a_packet_that_shows_nothing_may_be_counted(draw: ModuleType, tmp_path: Path) -> None:
    options = {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "good", "cpu-used": "5", "b": "300k"}
    path = draw.draw_clip(tmp_path / "hidden.webm", frames=40, codec="libvpx", gop=20, options=options)
    found = probe(str(path))
    assert found.codec == "vp8"
    assert 40 <= found.frames <= 45
    assert found.duration_seconds == pytest.approx(1.6, abs=0.2)


@pytest.mark.parametrize("fault", ["missing", "empty", "not_video", "audio_only", "cut_short"])
def test_a_probe_names_what_is_wrong(draw: ModuleType, tmp_path: Path, fault: ClipFault) -> None:
    path = tmp_path / "clip.mp4"
    match fault:
        case "empty":
            path.touch()
        case "not_video":
            path.write_text("hello world\n" * 99)
        case "audio_only":
            draw.draw_sound(path)
        case "cut_short":
            whole = draw.draw_clip(path, frames=40).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ClipError, match=r"^clip for row 7 can't be read") as raised:
        probe(str(path), who="row 7")
    assert raised.value.fault == fault
