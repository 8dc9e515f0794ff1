"""Decodes the frames that are wanted, by PyAV: each once, in order of time, in final size, one at a time in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from harness_ext.frame_policy import resized_shape
from harness_ext.video.files import Source, UnreadableError, opened, pyav
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
        return np.asarray(Image.fromarray(np.ascontiguousarray(image_HWC)).resize(size, Image.Resampling.BICUBIC))


def images_by_pyav(source: Source, timeline: Timeline, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """Decode what is needed for the frames `wanted` (ascending), convert only them.

    Raises:
        UnreadableError: A frame is damaged, or the file ends before the last one.
        MistimedError: Frames came at other times than the timeline says.
    """
    rgb = Converter()
    with opened(source.path) as stream:
        for seek_to, group in timeline.runs(wanted):
            if seek_to is not None:
                stream.container.seek(seek_to, stream=stream)
            found = 0
            numbered = _counted(stream) if timeline.counted else _matched(stream, timeline, group, seek_to)
            for index, frame in numbered:
                if index in group:
                    found += 1
                    yield index, rgb(frame, index)
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


class Converter:
    """Makes RGB of the frames of one stream, turned upright as its first one asks."""

    def __init__(self) -> None:
        # One for all: each holds threads and tables, and a frame's own lives as long as the frame.
        self._reformatter = pyav().video.reformatter.VideoReformatter()
        self._orientation: Orientation | None = None

    def __call__(self, frame: Any, index: int) -> Pixels:
        """Convert one frame.

        Raises:
            UnreadableError: The decoder says that it is damaged.
        """
        if frame.is_corrupt:
            raise UnreadableError(f"frame {index:,} is damaged")
        self._orientation = self._orientation or orientation(frame)
        return self._orientation.upright(self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())


class Orientation(NamedTuple):
    """How a stored picture is brought upright: first sides exchanged, then flipped."""

    swaps: bool
    flips_x: bool
    flips_y: bool

    @property
    def mirrors(self) -> bool:
        """Whether turning alone will not do."""
        return (self.swaps + self.flips_x + self.flips_y) % 2 == 1

    def upright(self, image_HWC: Pixels) -> Pixels:
        """Turn a stored picture."""
        if self.swaps:
            image_HWC = image_HWC.transpose(1, 0, 2)
        return image_HWC[:: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1]


def orientation(frame: Any) -> Orientation:
    """Read the display matrix; one that asks for less than a quarter turn is taken for the nearest."""
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            # x_shown = a x + c y, y_shown = b x + d y
            a, b, _, c, d, *_ = struct.unpack("9i", bytes(side_data))
            swaps = abs(b) > abs(a)
            return Orientation(swaps, flips_x=(c if swaps else a) < 0, flips_y=(b if swaps else d) < 0)
    return Orientation(swaps=False, flips_x=False, flips_y=False)
