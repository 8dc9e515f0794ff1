"""What a decoded clip is: `Frames`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness_ext.frame_policy import Reader
from mmla_tasks.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frames:
    """The chosen frames of one clip, in order of time."""

    frames_THWC: Pixels
    """RGB, uint8 [T, H, W, 3], contiguous."""
    seconds: tuple[float, ...]
    """Presentation time of each frame, from the clip's start."""
    indices: tuple[int, ...]
    """Number of each frame in the file, from 0, in order of presentation."""
    first_index: int
    """Number of the clip's first frame in the file; 0 unless the clip is a segment."""
    source_frames: int
    """Frames in the clip, chosen or not."""
    source_fps: float
    """Average frames a second of the file."""
    duration_seconds: float
    """From the clip's start to its end, or to the end of the file's last frame if that comes first."""
    fingerprint: dict[str, Any] = field(repr=False)
    """Plain values: reader, its version, indices, size [H, W], digest (SHA-256 of the pixels, 32 hex digits)."""

    def __post_init__(self) -> None:
        shape, dtype = self.frames_THWC.shape, self.frames_THWC.dtype
        if len(shape) != 4 or shape[3] != 3 or dtype != "uint8":
            raise ValueError(f"frames must be uint8 [T, H, W, 3], not {dtype} {list(shape)}")
        if not shape[0] == len(self.seconds) == len(self.indices):
            raise ValueError(f"{shape[0]} frames, {len(self.seconds)} times, {len(self.indices)} indices")

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Frames({list(self.frames_THWC.shape)}, indices={self.indices}, of {self.source_frames} frames)"


def frames_metadata(frames: Frames) -> dict[str, Any]:
    """What transformers' `VideoMetadata` and vLLM want to know of ready frames; counted from the clip's start.

    Both take a frame's time to be index / fps, which is off where the frame rate varies; `Frames.seconds` is right.
    """
    _, height, width, _ = frames.frames_THWC.shape
    return {
        "total_num_frames": frames.source_frames,
        "fps": frames.source_fps,
        "width": width,
        "height": height,
        "duration": frames.duration_seconds,
        "video_backend": frames.fingerprint["reader"],
        "frames_indices": [i - frames.first_index for i in frames.indices],
    }


def pixel_digest(frames_THWC: Pixels) -> str:
    """SHA-256 of the pixels, 32 hex digits."""
    return hashlib.sha256(frames_THWC.data).hexdigest()[:32]


def fingerprint(frames_THWC: Pixels, indices: tuple[int, ...], reader: Reader) -> dict[str, Any]:
    """Plain values that say what was shown, see `Frames.fingerprint`."""
    return {
        "reader": reader,
        "version": reader_versions(reader)[0],
        "indices": list(indices),
        "size": list(frames_THWC.shape[1:3]),
        "digest": pixel_digest(frames_THWC),
    }


def reader_versions(reader: Reader) -> tuple[str, ...]:
    """Versions of all that frames go through: the reader first, PyAV, which tells the times, Pillow, which resizes.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    own = (_version("decord", "decord", "decord", "video_reader=decord"),) if reader == "decord" else ()
    return (*own, _version("av", "av", "hf", "reading video"), _version("PIL", "pillow", "hf", "resizing frames"))


@lru_cache
def _version(module: str, distribution: str, extra: str, purpose: str) -> str:
    """The installed version, without loading native code into this process."""
    if find_spec(module) is None:
        raise MissingExtraError(module, extra=extra, purpose=purpose)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # the module of another distribution
        return str(importlib.import_module(module).__version__)
