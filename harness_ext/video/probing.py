"""What a file's header and packets tell: `Probe`. Nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from harness_ext.video.files import UnreadableError, opened, source_of
from harness_ext.video.timeline import packets_of, refuse_cut, timeline_of_packets


@dataclass(frozen=True)
class Probe:
    """A video file as its packets tell it."""

    container: str
    """FFmpeg's name, such as ``mov,mp4,m4a,3gp,3g2,mj2``."""
    codec: str
    """FFmpeg's name, such as ``h264``."""
    width: int
    """In pixels, as stored, before any rotation."""
    height: int
    frames: int
    """Packets that show a frame; of some codecs a packet may show nothing and is counted all the same."""
    duration_seconds: float
    """From the first frame to the end of the last."""
    declared_seconds: float | None
    """Length of the file by its header, sound included; None where it says nothing."""
    end_seconds: float
    """When the last frame ends, in the time that a clip's start and end are given in."""
    fps: float
    """Average frames a second."""
    has_audio: bool


def probe_file(path: str) -> Probe:
    """Read header and packets of one file, in this process.

    Raises:
        UnreadableError: The file is missing, empty, no video, cut short, or has no frame.
    """
    source = source_of(path)
    with opened(source.path) as stream:
        refuse_cut(stream, source)
        packets = packets_of(stream)
        if not any(not packet.is_discard for packet in packets):
            raise UnreadableError("the file has a video stream without a single frame", fault="no_frames")
        timeline = timeline_of_packets(stream, packets)
        if timeline is not None:
            frames, fps = len(timeline.ticks), timeline.rate
            duration = (timeline.end - timeline.ticks[0]) * timeline.tick_seconds
            end = (timeline.end - timeline.zero) * timeline.tick_seconds
        else:
            frames = sum(not packet.is_discard for packet in packets)
            fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
            end = duration = _declared_duration(stream) or frames / fps
        codec = stream.codec_context
        return Probe(
            container=stream.container.format.name,
            codec=codec.name,
            width=codec.width,
            height=codec.height,
            frames=frames,
            duration_seconds=float(duration),
            declared_seconds=None if stream.container.duration is None else stream.container.duration / 1_000_000,
            end_seconds=float(end),
            fps=float(fps),
            has_audio=bool(stream.container.streams.audio),
        )


def _declared_duration(stream: Any) -> Fraction | None:
    return stream.duration * stream.time_base if stream.duration else None
