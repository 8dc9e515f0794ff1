"""Decodes the frames that are wanted, by decord: PyAV's frames, or a refusal of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from harness_ext.video.files import Source, UnreadableError, films, opened
from harness_ext.video.pixels import orientation
from harness_ext.video.timeline import Timeline

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels

CONTAINERS: Final = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})
"""FFmpeg's names of the containers in which decord's frames equal PyAV's; of a transport stream it loses the first."""

PIXEL_FORMATS: Final = frozenset({"yuv420p", "yuvj420p"})
"""FFmpeg's names of those in which decord's colours equal PyAV's; with more bits or odd sizes they differ."""
PROGRESSIVE: Final = 1
"""FFmpeg's number for an order of fields that says there are none; 0 is unknown."""


def images_by_decord(source: Source, timeline: Timeline, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """Decode the frames `wanted` (ascending).

    Raises:
        UnreadableError: The file's frames could be others than PyAV's, or decord gives up.
    """
    import decord

    with opened(source.path) as stream:
        _refuse_other_frames(stream)
    try:
        reader = decord.VideoReader(source.path, num_threads=1)
        if len(reader) != len(timeline.ticks):
            raise _refusal(f"decord counts {len(reader):,} frames, PyAV {len(timeline.ticks):,}")
        yield from _images(reader, wanted)
    except (decord.DECORDError, StopIteration, RuntimeError) as error:
        reason = str(error).strip().rsplit("] ", 1)[-1] or "it ends early"  # without its source file and line
        raise _refusal(f"decord gives up: {reason}") from None


def _refuse_other_frames(stream: Any) -> None:
    """Only what was compared is let through; a mirrored picture decord shows as it is stored."""
    container = stream.container.format.name
    if container not in CONTAINERS:
        raise _refusal(f"decord reads MP4, Matroska and AVI here, not {container}")
    if len(films(stream.container)) > 1:
        raise _refusal("the file holds several films, and decord may take another than the first")
    frame = next(stream.container.decode(stream), None)
    if frame is None:
        raise UnreadableError("the file has a video stream without a single frame", fault="no_frames")
    if frame.format.name not in PIXEL_FORMATS or frame.width % 2 or frame.height % 2:
        picture = f"{frame.format.name} of {frame.width} x {frame.height}"
        raise _refusal(f"decord reads pictures of 8 bits, 4:2:0 and even size here, not {picture}")
    if frame.interlaced_frame or stream.codec_context.field_order > PROGRESSIVE:
        raise _refusal("decord reads no interlaced pictures here")
    if orientation(frame).mirrors:
        raise _refusal("decord reads no mirrored pictures here")


def _refusal(why: str) -> UnreadableError:
    return UnreadableError(why, "use video_reader=pyav", "unsupported")


def _images(reader: Any, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """Read every frame up to the last one wanted: where decord seeks or skips, it takes wrong ones.

    Seen in MPEG-4 with B-frames, in H.264 with open GOPs or gradual recovery, and in transport streams.
    """
    for i in range(wanted[-1] + 1):
        image = reader.next()
        if i in wanted:
            yield i, image.asnumpy()
