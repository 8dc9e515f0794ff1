"""One clip from reference to pixels, in this process: for the workers of `isolation.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from harness_ext.frame_policy import FramePolicy, Reader
from harness_ext.video.by_decord import images_by_decord
from harness_ext.video.files import Source, source_of
from harness_ext.video.pixels import MistimedError, Shrink, images_by_pyav
from harness_ext.video.timeline import Timeline, counted_timeline, timeline_of
from mmla_tasks.records import Clip

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels


class Kept(Protocol):
    """Where images go, one at a time."""

    def begin(self) -> None:
        """Forget what came so far."""
        ...

    def add(self, image_HWC: Pixels) -> None:
        """Keep one more; all are of the same shape."""
        ...


class Shown(NamedTuple):
    """What `Frames` says of a clip, besides its pixels."""

    seconds: list[float]
    indices: list[int]
    first_index: int
    source_frames: int
    source_fps: float
    duration_seconds: float


_READERS: Mapping[Reader, Callable[[Source, Timeline, list[int]], Iterator[tuple[int, Pixels]]]] = {
    "pyav": images_by_pyav,
    "decord": images_by_decord,
}


def read_clip(clip: Clip, policy: FramePolicy, kept: Kept) -> Shown:
    """Read the frames of `clip` that `policy` names; each goes to `kept` once, in order of time.

    What comes out is compared with the plan. Where the two disagree the file is decoded once to count and once more
    to pick.

    Raises:
        UnreadableError: The file gives no frames.
    """
    source = source_of(clip["path"])
    try:
        return _read(source, timeline_of(source), clip, policy, kept)
    except MistimedError:
        return _read(source, counted_timeline(source), clip, policy, kept)


def _read(source: Source, timeline: Timeline, clip: Clip, policy: FramePolicy, kept: Kept) -> Shown:
    span = timeline.span(clip["start_seconds"], clip["end_seconds"])
    chosen = policy.choose(timeline.ticks[span.first : span.stop], span.end, timeline.tick_seconds, timeline.rate)
    indices = [span.first + i for i in chosen]
    shrink = Shrink(policy.max_pixels)
    kept.begin()
    for _, image_HWC in _READERS[policy.reader](source, timeline, sorted(set(indices))):
        kept.add(shrink(image_HWC))
    return Shown(
        seconds=[float((timeline.ticks[i] - span.begin) * timeline.tick_seconds) for i in indices],
        indices=indices,
        first_index=span.first,
        source_frames=span.stop - span.first,
        source_fps=float(timeline.rate),
        duration_seconds=float((span.end - span.begin) * timeline.tick_seconds),
    )
