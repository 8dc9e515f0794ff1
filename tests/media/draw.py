"""Draws clips whose frame numbers can be read back from the pixels, so that tests know every frame by construction.

A frame is a grid of 4 x 4 black or white blocks: the bits of its number, the highest first, robust to lossy codecs
and to shrinking. Needs PyAV with libx264. Look at one:

    python tests/media/draw.py /tmp/numbered.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BLOCKS = 4
"""Blocks along each side; BLOCKS squared bits hold a number."""
GREYS = ((40, 40, 40), (215, 215, 215))
"""Red, green and blue of the bits 0 and 1; not 0 and 255: nothing clips in limited-range YUV."""
COLOURS = ((150, 30, 40), (90, 240, 120))
"""The same, where colour must be right too."""

Colour = tuple[int, int, int]


def numbered_image(number: int, size: tuple[int, int] = (96, 64), colours: tuple[Colour, Colour] = GREYS) -> Any:
    """Draw `number`; returns uint8 [H, W, 3]. `size` is (width, height) in pixels."""
    width, height = size
    bits = [number >> bit & 1 for bit in reversed(range(BLOCKS**2))]
    grid = np.array(bits, dtype=np.uint8).reshape(BLOCKS, BLOCKS)
    rows, columns = np.arange(height) * BLOCKS // height, np.arange(width) * BLOCKS // width
    return np.array(colours, dtype=np.uint8)[grid[rows][:, columns]]


def read_number(image_HWC: Any) -> int:
    """Read back what `numbered_image` drew, from the middle of each block, at any size of at least 16 x 16."""
    height, width, _ = image_HWC.shape
    number = 0
    for row in range(BLOCKS):
        for column in range(BLOCKS):
            y, x = (2 * row + 1) * height // (2 * BLOCKS), (2 * column + 1) * width // (2 * BLOCKS)
            number = number << 1 | int(image_HWC[y - 1 : y + 2, x - 1 : x + 2].mean() > 127)
    return number


def draw_clip(
    path: Path,
    *,
    frames: int = 24,
    size: tuple[int, int] = (96, 64),
    fps: Fraction | int = 25,
    gop: int = 250,
    b_frames: int = 0,
    codec: str = "libx264",
    first_tick: int = 0,
    ticks: Sequence[int] | None = None,
    tick_seconds: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sound_seconds: float = 0,
    pixel_format: str | None = None,
    prepare: Callable[[Any, Any], object] | None = None,
    change: Callable[[Any], Any] | None = None,
    numbers: Sequence[int] | None = None,
    colours: tuple[Colour, Colour] = GREYS,
) -> Path:
    """Write a clip whose frame i shows the number i.

    Args:
        path: File to write; its suffix names the container.
        frames: Number of frames.
        size: (width, height), in pixels, even for libx264.
        fps: Frames a second.
        gop: Frames from one keyframe to the next.
        b_frames: Most B-frames in a row.
        codec: FFmpeg's name of the encoder.
        first_tick: Presentation time of frame 0, in ticks.
        ticks: Presentation time of each frame instead, for a varying rate.
        tick_seconds: Length of a tick, default one frame.
        options: More options for the encoder.
        container_options: Options for the container, such as ``{"movflags": "faststart"}``.
        sound_seconds: Length of a silent AAC track, 0 for none.
        pixel_format: FFmpeg's name, default what the encoder likes.
        prepare: Called with container and video stream before anything is written.
        change: Called with each frame before it is encoded.
        numbers: What the frames show instead of their numbers.
        colours: Of the bits 0 and 1.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.codec_context.thread_count = 1  # the same bytes everywhere
        stream.codec_context.time_base = tick_seconds or 1 / Fraction(fps)
        stream.codec_context.gop_size = gop
        x264 = {"preset": "veryfast", "crf": "18", "bf": str(b_frames), "sc_threshold": "0"}
        stream.options = (x264 if codec == "libx264" else {}) | (options or {})
        sound = container.add_stream("aac", rate=16000, layout="mono") if sound_seconds else None
        if prepare is not None:
            prepare(container, stream)
        for number in range(frames):
            shown = number if numbers is None else numbers[number]
            frame = av.VideoFrame.from_ndarray(numbered_image(shown, size, colours), format="rgb24")
            frame.pts = ticks[number] if ticks is not None else first_tick + number
            frame.time_base = stream.codec_context.time_base
            if change is not None:
                frame = change(frame)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_silence(container, sound, sound_seconds)
    return path


def draw_sound(path: Path, *, seconds: float = 0.5) -> Path:
    """Write a file with sound only."""
    with av.open(str(path), "w") as container:
        _add_silence(container, container.add_stream("aac", rate=16000, layout="mono"), seconds)
    return path


def _add_silence(container: Any, stream: Any, seconds: float) -> None:
    for first in range(0, int(16000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


if __name__ == "__main__":
    print(draw_clip(Path(sys.argv[1]), frames=100, size=(640, 360), gop=25, b_frames=2, sound_seconds=4))
