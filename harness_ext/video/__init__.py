"""Clip -> `Frames`: the pixels of the frames that a `FramePolicy` names; path -> `Probe`. Nothing else decodes videos.

Files are opened in worker processes (`isolation.py`): whatever is wrong with one is a `ClipError`. Which frame has
which number is said in `timeline.py`. What is done with rotation, colour, fields and the like: docs/data.md.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.frame_policy import FramePolicy
from harness_ext.video.digests import clip_digest
from harness_ext.video.files import UnreadableError, clip_error, source_of
from harness_ext.video.frames import Frames, fingerprint, frames_metadata, pixel_digest, reader_versions
from harness_ext.video.isolation import WORKERS, Answer, bounds, raise_fault
from harness_ext.video.probing import Probe
from harness_ext.video.sheet import contact_sheet
from harness_ext.video.unpacking import SLOWEST_BYTES, is_packed
from mmla_tasks.errors import ClipError
from mmla_tasks.places import cache_folder
from mmla_tasks.records import Clip

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels as Pixels

__all__ = [
    "Frames",
    "Probe",
    "cache_folder",
    "clip_digest",
    "contact_sheet",
    "decode",
    "frames_metadata",
    "is_packed",
    "pixel_digest",
    "probe",
    "probe_all",
    "reader_versions",
    "unpack",
]


def decode(clip: Clip, policy: FramePolicy, *, who: str = "") -> Frames:
    """Read the frames of `clip` that `policy` names; only those are ever held in memory, already in final size.

    Args:
        clip: Which file, and from when to when in it.
        policy: Which frames and how large.
        who: Who asks, for the error, such as ``mmla_emotion_meld id 1153_0``.

    Raises:
        ClipError: The file is missing, empty, not a video, cut short or damaged, has no frame in the clip's time, or
            takes more time or memory than `isolation.bounds` allows.
        MissingExtraError: The reader or Pillow is not installed.
    """
    reader_versions(policy.reader)
    try:
        source_of(clip["path"])
        return _frames(WORKERS.ask(policy.reader, {"kind": "clip", "clip": clip, "policy": policy.to_dict()}), policy)
    except UnreadableError as reason:
        raise clip_error(clip["path"], who, reason) from None


def probe(path: str, *, who: str = "") -> Probe:
    """Read a file's header and packets, without decoding: milliseconds.

    Args:
        path: The file.
        who: Who asks, for the error.

    Raises:
        ClipError: The file is missing, empty, no video, cut short, or has no frame; `ClipError.fault` says which.
        MissingExtraError: PyAV is not installed.
    """
    reader_versions("pyav")
    try:
        source_of(path)
        return Probe(**WORKERS.ask("pyav", {"kind": "probe", "path": path}).facts)
    except UnreadableError as reason:
        raise clip_error(path, who, reason) from None


def probe_all(paths: Sequence[str]) -> list[Probe | ClipError]:
    """Probe several files with one question to a worker, which is quicker than one question each.

    Returns:
        Of each file what `probe` gives, or what it raises.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    reader_versions("pyav")
    try:
        answers = WORKERS.ask("pyav", {"kind": "probes", "paths": list(paths)}).facts["answers"]
    except UnreadableError:  # one of them has ended the worker, or all together took too long
        return [_probe_or_error(path) for path in paths]
    return [_probe_of(path, facts) for path, facts in zip(paths, answers, strict=True)]


def unpack(path: Path, target: Path) -> None:
    """Write an AVI whose packets hold several pictures as one whose packets hold one each.

    Args:
        path: The file, for which `is_packed` holds.
        target: Where the other goes; nothing is there when this fails.

    Raises:
        ClipError: The file can't be unpacked.
        OSError: The disk is full, or can't be read or written.
        MissingExtraError: PyAV is not installed.
    """
    reader_versions("pyav")
    question = {"kind": "unpack", "path": str(path), "target": str(target)}
    try:
        size = source_of(str(path)).size
        facts = WORKERS.ask("pyav", question, more_seconds=size / SLOWEST_BYTES).facts
        if "disk" in facts:
            raise OSError(facts["disk"], os.strerror(facts["disk"]), str(target))
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, UnreadableError):
            raise clip_error(str(path), "", error) from None
        raise


def _probe_of(path: str, facts: dict[str, Any]) -> Probe | ClipError:
    if facts.get("fault") == "memory":
        return _probe_or_error(path)  # a new worker may have enough
    try:
        raise_fault(facts, bounds())
    except UnreadableError as reason:
        return clip_error(path, "", reason)
    return Probe(**facts)


def _probe_or_error(path: str) -> Probe | ClipError:
    try:
        return probe(path)
    except ClipError as error:
        return error


def _frames(answer: Answer, policy: FramePolicy) -> Frames:
    """Put a worker's answer together; images that were chosen several times came once."""
    facts = answer.facts
    indices = tuple(facts["indices"])
    images_THWC = answer.pixels.reshape(-1, *facts["shape"])
    came = {index: position for position, index in enumerate(sorted(set(indices)))}
    repeated = len(came) < len(indices)
    frames_THWC = images_THWC[[came[i] for i in indices]] if repeated else images_THWC
    return Frames(
        frames_THWC=frames_THWC,
        seconds=tuple(facts["seconds"]),
        indices=indices,
        first_index=facts["first_index"],
        source_frames=facts["source_frames"],
        source_fps=facts["source_fps"],
        duration_seconds=facts["duration_seconds"],
        fingerprint=fingerprint(frames_THWC, indices, policy.reader),
    )
