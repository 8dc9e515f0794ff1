from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness_ext import frame_cache, video
from harness_ext.frame_cache import FrameCache, frames_of
from harness_ext.frame_policy import FramePolicy
from harness_ext.video import Frames
from mmla_tasks.errors import ClipError, UsageError
from mmla_tasks.records import Clip
from tests.media.opens import Opens


def clip_of(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    return Clip(path=str(path), start_seconds=start, end_seconds=end, size=None, mtime_ns=None)


def drawn_frames(seed: int = 0, count: int = 2, height: int = 4, width: int = 6) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(
        frames_THWC=pixels, seconds=tuple(i / 3 for i in range(count)), indices=tuple(range(count)), first_index=0,
        source_frames=count, source_fps=30000 / 1001, duration_seconds=count / 3,
        fingerprint={"reader": "pyav", "digest": video.pixel_digest(pixels), "indices": list(range(count))},
    )  # fmt: skip


def same(a: Frames, b: Frames) -> bool:
    facts = [{k: v for k, v in vars(f).items() if k != "frames_THWC"} for f in (a, b)]
    return facts[0] == facts[1] and a.frames_THWC.dtype == b.frames_THWC.dtype and (
        a.frames_THWC.shape == b.frames_THWC.shape and bool((a.frames_THWC == b.frames_THWC).all())
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MMLA_FRAME_CACHE_GB", "1")
    frame_cache._cache_at.cache_clear()
    return tmp_path / "cache" / "frames"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the clips that were really decoded."""
    seen: list[str] = []
    right = video.decode

    def counting(clip: Clip, *args: Any, **kwargs: Any) -> Frames:
        seen.append(Path(clip["path"]).name)
        return right(clip, *args, **kwargs)

    monkeypatch.setattr(video, "decode", counting)
    return seen


@pytest.fixture(scope="module")
def drawn(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = draw.draw_clip(tmp_path_factory.mktemp("drawn") / "clip.mp4", frames=40, gop=8, b_frames=2)
    return path


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_comes_back_equal(tmp_path: Path, count: int, height: int, width: int, seed: int) -> None:
    cache, frames = FrameCache(tmp_path, 2**20), drawn_frames(seed, count, height, width)
    cache.put("key", frames)
    found = cache.get("key")
    assert found is not None and same(found, frames)
    assert [type(x) for x in (*found.seconds, *found.indices)] == [float] * count + [int] * count


def test_a_clip_asked_again_is_not_decoded_again(folder: Path, decoded: list[str], drawn: Path, tmp_path: Path) -> None:
    first = frames_of(clip_of(drawn), FramePolicy())
    again = frames_of(clip_of(drawn), FramePolicy())
    renamed = tmp_path / "renamed.mp4"
    renamed.write_bytes(drawn.read_bytes())
    elsewhere = frames_of(clip_of(renamed), FramePolicy())
    assert decoded == ["clip.mp4"]
    assert same(first, again) and same(first, elsewhere)
    assert len(list(folder.iterdir())) == 1


def test_other_span_policy_reader_version_or_content_is_decoded(
    folder: Path, decoded: list[str], drawn: Path, tmp_path: Path, draw: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames_of(clip_of(drawn), FramePolicy())
    for clip, policy in [
        (clip_of(drawn, 0.4), FramePolicy()),
        (clip_of(drawn, 0.0, 0.8), FramePolicy()),
        (clip_of(drawn), FramePolicy(num_frames=3)),
        (clip_of(drawn), FramePolicy(max_pixels=2000)),
    ]:
        frames_of(clip, policy)
    assert len(decoded) == 5
    monkeypatch.setattr(video, "reader_versions", lambda reader: ("0.0", "13.0"))
    frames_of(clip_of(drawn), FramePolicy())
    assert len(decoded) == 6
    path = draw.draw_clip(tmp_path / "clip.mp4", frames=40)
    before = frames_of(clip_of(path), FramePolicy())
    draw.draw_clip(path, frames=20)
    os.utime(path, ns=(1, 1))
    assert frames_of(clip_of(path), FramePolicy()).source_frames == 20 != before.source_frames


def test_a_damaged_entry_is_decoded_anew(folder: Path, decoded: list[str], drawn: Path) -> None:
    right = frames_of(clip_of(drawn), FramePolicy())
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    places = [0, 70, 120, whole.index(b"\n", 70), len(whole) // 2, len(whole) - 1]
    damaged = [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in places]
    damaged += [b"", whole[:40], whole[:200], whole[:-1], pickle.dumps(right.indices)]
    for number, content in enumerate(damaged, start=2):
        entry.write_bytes(content)
        assert same(frames_of(clip_of(drawn), FramePolicy()), right)
        assert len(decoded) == number
        assert entry.read_bytes() == whole


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    size = 0
    for n in range(40):
        cache = FrameCache(tmp_path, 400_000)
        cache.put(f"{n}", drawn_frames(n, 1, 100, 100))
        os.utime(tmp_path / f"{n}", ns=(n, n))
        if n >= 3:
            assert cache.get("0") is not None  # used each time
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert size <= 400_000
    assert size > 300_000
    kept = {int(path.name) for path in tmp_path.iterdir()}
    assert kept == {0, *range(40 - len(kept) + 1, 40)}


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "frames", 1000)
    cache.put("key", drawn_frames(0, 1, 100, 100))
    assert cache.get("key") is None


def test_zero_keeps_nothing_and_nonsense_is_refused(
    folder: Path, decoded: list[str], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLA_FRAME_CACHE_GB", "0")
    for _ in range(2):
        frames_of(clip_of(drawn), FramePolicy())
    assert len(decoded) == 2 and not folder.exists()
    for nonsense in ("plenty", "-1", "nan", "inf"):
        monkeypatch.setenv("MMLA_FRAME_CACHE_GB", nonsense)
        with pytest.raises(UsageError, match=f"MMLA_FRAME_CACHE_GB={nonsense} can't be used"):
            frames_of(clip_of(drawn), FramePolicy())


def test_a_cache_that_cannot_be_used_costs_time_only(
    folder: Path, decoded: list[str], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    right = frames_of(clip_of(drawn), FramePolicy())
    assert same(frames_of(clip_of(drawn), FramePolicy()), right)
    folder.unlink()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert same(frames_of(clip_of(drawn), FramePolicy()), right)
    assert list(folder.iterdir()) == []  # nothing half-written stays
    assert len(decoded) == 3


def test_a_bad_clip_is_the_same_error_with_a_cache(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    for content in (b"", b"this is no video"):
        broken.write_bytes(content)
        messages = []
        for ask in (frames_of, video.decode):
            with pytest.raises(ClipError) as refused:
                ask(clip_of(broken), FramePolicy(), who="mmla_emotion_meld id 1")
            messages.append(str(refused.value))
        assert messages[0] == messages[1]


def test_processes_share_the_cache(folder: Path, draw: ModuleType, tmp_path: Path) -> None:
    for number in range(6):
        draw.draw_clip(tmp_path / f"{number}.mp4", frames=5 + number)
    code = (
        "import sys; from pathlib import Path; from harness_ext.frame_cache import frames_of\n"
        "from harness_ext.frame_policy import FramePolicy\n"
        "for p in sorted(Path(sys.argv[1]).glob('*.mp4')):\n"
        "    clip = {'path': str(p), 'start_seconds': 0.0, 'end_seconds': None}\n"
        "    print(frames_of(clip, FramePolicy()).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] and outputs[0].count("digest") == 6
    assert len(list(folder.iterdir())) == 6


def test_import_is_light() -> None:
    code = "import sys, harness_ext.frame_cache; print(sorted({'av', 'decord', 'PIL', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_two_threads_that_ask_for_the_same_get_it_decoded_once(
    decoded: list[str], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLA_FRAME_CACHE_GB", "0")
    both_ask, asked = threading.Event(), []
    decode = video.decode

    def slow(*args: Any, **kwargs: Any) -> Frames:
        assert both_ask.wait(10)
        return decode(*args, **kwargs)

    monkeypatch.setattr(video, "decode", slow)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            asked.append(pool.submit(frames_of, clip_of(drawn), FramePolicy()))
        time.sleep(0.1)
        both_ask.set()
        one, other = (future.result() for future in asked)
    assert one is other
    assert len(decoded) == 1
    assert frames_of(clip_of(drawn), FramePolicy()) is not one
    assert len(decoded) == 2


def test_each_of_two_threads_is_told_of_a_bad_clip_in_its_own_name(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(frames_of, clip_of(bad), FramePolicy(), who=who) for who in ("this one", "that one")]
    assert [("this one" in str(f.exception()), "that one" in str(f.exception())) for f in futures] == [
        (True, False),
        (False, True),
    ]
    assert not frame_cache._decoding


READ_AGAIN = """
import sys
from harness_ext.frame_cache import frames_of
from harness_ext.frame_policy import FramePolicy
for path in sys.argv[1:]:
    frames_of(dict(path=path, start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None), FramePolicy())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts who opens a file only on Linux")
def test_later_visits_open_no_video_file_and_are_five_times_as_fast_as_decoding(
    draw: ModuleType, folder: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    how = {"frames": 50, "size": (640, 360), "gop": 25, "b_frames": 2}
    clips = [clip_of(draw.draw_clip(videos / f"{n}.mp4", first_tick=n, **how)) for n in range(3)]
    policy, ratios = FramePolicy(), []
    with Opens(videos) as opens:
        first = [frames_of(clip, policy) for clip in clips]
        assert opens.since_last().keys() == {"0.mp4", "1.mp4", "2.mp4"}
        for _ in range(4):
            for clip, known in zip(clips, first, strict=True):  # in turn, so that both meet the same load
                began = time.perf_counter()
                video.decode(clip, policy)
                decoded = time.perf_counter()
                opens.since_last()
                asked = time.perf_counter()
                again = frames_of(clip, policy)
                ratios.append((decoded - began) / (time.perf_counter() - asked))
                assert not opens.since_last() and same(again, known)
        subprocess.run([sys.executable, "-c", READ_AGAIN, *(clip["path"] for clip in clips)], check=True)
        assert not opens.since_last(), "another process knows them too"
    assert sorted(ratios)[len(ratios) // 2] >= 5, ratios
