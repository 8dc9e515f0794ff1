"""Clip -> `Frames`, without decoding a clip again that was decoded before: `frames_of` is everybody's entrance.

One file per clip and frame policy in ``<cache>/frames``, where <cache> is ``MMLA_CACHE_DIR``, else the user's cache
folder. The least recently used go when all together would pass ``MMLA_FRAME_CACHE_GB`` gigabytes (4 unless set; 0
switches the cache off). A file has three parts: SHA-256 of the next line; one line of JSON, the facts; the pixels,
which the fingerprint among the facts proves. Why files of our own: docs/decisions/004-frame-cache.md.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from harness_ext import video
from harness_ext.environment import number_from_environment
from harness_ext.frame_policy import FramePolicy
from harness_ext.video import Frames
from mmla_tasks.places import cache_folder
from mmla_tasks.records import Clip

__all__ = ["FrameCache", "frame_cache_bytes", "frames_of"]

SIZE_VARIABLE: Final = "MMLA_FRAME_CACHE_GB"
DEFAULT_GB: Final = 4.0
FORMAT: Final = 2
"""Raise it when `decode` gives other frames for the same clip, policy and reader, or when the files change."""


def frames_of(clip: Clip, policy: FramePolicy, *, who: str = "") -> Frames:
    """Give the frames of `clip` that `policy` names, from the cache where it has them, else decoded.

    The frames are the same either way, fingerprint included. Two threads that ask for the same at the same time get the
    same object, decoded once: several tasks ask about the same clips.

    Args:
        clip: Which file, and from when to when in it.
        policy: Which frames and how large.
        who: Who asks, for the error, such as ``mmla_emotion_meld id 1153_0``.

    Raises:
        ClipError: The file is missing, empty, not a video, cut short or damaged, or has no frame in the clip's time.
        MissingExtraError: The reader or Pillow is not installed.
        UsageError: ``MMLA_FRAME_CACHE_GB`` is no size.
    """
    asked = (*clip.values(), policy)
    with _lock:
        first = asked not in _decoding
        decoding = _decoding.setdefault(asked, Future())
    if not first:
        wait([decoding])
        if decoding.exception() is None:
            return decoding.result()
        return _cached(clip, policy, who)  # the error names who asks
    try:
        frames = _cached(clip, policy, who)
        decoding.set_result(frames)
        return frames
    except BaseException as error:
        decoding.set_exception(error)
        raise
    finally:
        with _lock:
            del _decoding[asked]


_lock = threading.Lock()
_decoding: dict[tuple[Any, ...], Future[Frames]] = {}
"""What some thread is getting now: clip and frame policy -> the frames to come."""


def _cached(clip: Clip, policy: FramePolicy, who: str) -> Frames:
    bound = frame_cache_bytes()
    if not bound:
        return video.decode(clip, policy, who=who)
    cache, key = _cache_at(cache_folder() / "frames", bound), _key(clip, policy, who)
    frames = cache.get(key)
    if frames is None:
        frames = video.decode(clip, policy, who=who)
        cache.put(key, frames)
    return frames


def frame_cache_bytes() -> int:
    """Bytes that the cache of frames may take; 0 where it is off.

    Raises:
        UsageError: ``MMLA_FRAME_CACHE_GB`` is no size.
    """
    return int(number_from_environment(SIZE_VARIABLE, DEFAULT_GB, "gigabytes", zero="to keep no frames") * 2**30)


def _key(clip: Clip, policy: FramePolicy, who: str) -> str:
    """Digest of everything that frames depend on; the file counts by its content, not by its name."""
    span = [clip["start_seconds"], clip["end_seconds"]]
    versions = video.reader_versions(policy.reader)
    parts = [FORMAT, video.clip_digest(clip, who=who), span, policy.to_dict(), versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class FrameCache:
    """Frames in a folder, shared by threads and processes. A cache that can't be used costs time, never a run.

    Args:
        folder: Where the files are; made when needed.
        bound: Bytes that all files together may have.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        self.folder = folder
        self.bound = bound
        self._room = 0  # bytes that may still be written before looking again: other processes write too

    def get(self, key: str) -> Frames | None:
        """The frames under `key`; None where there are none, or what is there is damaged."""
        path = self.folder / key
        with suppress(OSError, ValueError):
            with path.open("rb") as file:
                frames = _read(file)
            os.utime(path)  # used just now
            return frames
        return None

    def put(self, key: str, frames: Frames) -> None:
        """Keep `frames` under `key`: readers see the whole file or none."""
        facts = {name: value for name, value in vars(frames).items() if name != "frames_THWC"}
        line = json.dumps({**facts, "shape": frames.frames_THWC.shape}).encode() + b"\n"
        parts: list[bytes | memoryview] = [_digest_line(line), line, frames.frames_THWC.data]
        size = len(parts[0]) + len(line) + frames.frames_THWC.nbytes
        if size <= self.bound:
            with suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make_room(size)
                _write(self.folder / key, parts)

    def _make_room(self, size: int) -> None:
        """Delete the least recently used until `size` bytes fit, and a sixteenth of the bound to save looking again."""
        if size > self._room:
            spare = max(size, self.bound // 16)
            files = sorted(_files(self.folder))
            total = sum(size for _, size, _ in files)
            for _, freed, path in files:
                if total <= self.bound - spare:
                    break
                with suppress(OSError):
                    os.unlink(path)
                    total -= freed
            self._room = spare
        self._room -= size


@lru_cache(maxsize=8)
def _cache_at(folder: Path, bound: int) -> FrameCache:
    return FrameCache(folder, bound)


def _files(folder: Path) -> list[tuple[int, int, str]]:
    """(Time of last use in ns, bytes, path) of every file, those of killed writers too."""
    found = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process was quicker
            stat = entry.stat()
            found.append((stat.st_mtime_ns, stat.st_size, entry.path))
    return found


def _digest_line(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest().encode() + b"\n"


def _read(file: BufferedReader) -> Frames:
    """Read one file; a ValueError says that it is damaged."""
    import numpy as np

    digest, line = file.readline(), file.readline()
    if digest != _digest_line(line):
        raise ValueError("the facts are damaged")
    facts: dict[str, Any] = json.loads(line)
    frames_THWC = np.empty(facts.pop("shape"), dtype=np.uint8)
    whole = file.readinto(frames_THWC.data) == frames_THWC.nbytes
    if not whole or video.pixel_digest(frames_THWC) != facts["fingerprint"]["digest"]:
        raise ValueError("the pixels are damaged")
    facts |= {name: tuple(facts[name]) for name in ("seconds", "indices")}
    return Frames(frames_THWC=frames_THWC, **facts)


def _write(path: Path, parts: list[bytes | memoryview]) -> None:
    """Write beside `path` and rename, so that nobody reads half a file."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix="new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise
