"""Decodes the frames that are wanted, by PyAV: each once, in order of time, in final size, one at a time in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_ext.frame_policy import resized_shape
from harness_ext.video.files import Source, UnreadableError, opened
from harness_ext.video.timeline import Timeline

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels


class MistimedError(Exception):
    """The decoder put out other frames than the packets announced: count by decoding."""


@dataclass
class Shrink:
    """Brings every frame of a clip to the size that the first one gets."""

    max_pixels: int
    shape: tuple[int, int] | None = None

    def __call__(self, image_HWC: Pixels) -> Pixels:
        """Resize by Pillow, whose arithmetic on bytes gives the same result everywhere."""
        import numpy as np

        height, width, _ = image_HWC.shape
        self.shape = self.shape or resized_shape(height, width, self.max_pixels, factor=2)
        if self.shape == (height, width):
            return image_HWC
        from PIL import Image

        size = (self.shape[1], self.shape[0])
        return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BICUBIC))


def images_by_pyav(source: Source, timeline: Timeline, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """Decode what is needed for the frames `wanted` (ascending), convert only them.

    Raises:
        UnreadableError: A frame is damaged, or the file ends before the last one.
        MistimedError: Frames came at other times than the timeline says.
    """
    with opened(source.path) as stream:
        for seek_to, group in timeline.runs(wanted):
            if seek_to is not None:
                stream.container.seek(seek_to, stream=stream)
            found = 0
            numbered = _counted(stream) if timeline.counted else _matched(stream, timeline, group, seek_to)
            for index, frame in numbered:
                if index in group:
                    found += 1
                    yield index, _rgb(frame, index)
                if index >= group[-1]:
                    break
            if found < len(group):
                if timeline.counted:
                    raise UnreadableError("the file gives fewer frames each time it is decoded")
                raise MistimedError


def _counted(stream: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(stream.container.decode(stream))


def _matched(stream: Any, timeline: Timeline, group: list[int], seek_to: int | None) -> Iterator[tuple[int, Any]]:
    """Number decoded frames by their time, and stop believing in the timeline when one does not fit."""
    wanted_ticks = {timeline.ticks[i] for i in group}
    numbers = timeline.numbers
    before = -1
    for packet in stream.container.demux(stream):
        if timeline.skips:
            needed = packet.pts in wanted_ticks or not packet.size
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in packet.decode():
            index = numbers.get(frame.pts, -1)
            gapless = timeline.skips or seek_to is not None or index == before + 1
            if index <= before or not gapless:
                raise MistimedError
            before = index
            yield index, frame


def _rgb(frame: Any, index: int) -> Pixels:
    """Convert one frame, turned upright as its file asks."""
    import numpy as np

    if frame.is_corrupt:
        raise UnreadableError(f"frame {index:,} is damaged")
    image_HWC: Pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image_HWC, quarter_turns)) if quarter_turns else image_HWC
