"""When the frames of a file are shown, and so which frame has which number.

Frame i of a file is the i-th picture that a full decode puts out. Where a file's packets tell every frame's time,
only the packets are read to count (milliseconds); else the file is decoded once to count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from harness_ext.video.files import Source, UnreadableError, opened
from harness_ext.video.wholeness import refuse_cut_file


class Packet(NamedTuple):
    """What is known of a compressed frame before it is decoded; times in ticks."""

    pts: int | None
    duration: int
    is_keyframe: bool
    is_discard: bool


class Span(NamedTuple):
    """A clip on a timeline: frames [first, stop), time [begin, end) in ticks."""

    first: int
    stop: int
    begin: Fraction
    end: Fraction


@dataclass(frozen=True)
class Timeline:
    """When each frame of a file is shown."""

    ticks: tuple[int, ...]
    """Presentation time of each frame in ticks, strictly increasing, not empty."""
    end: int
    """When the last frame ends."""
    zero: int
    """The file's time 0: where its earliest stream starts, so that times taken from the sound fit."""
    tick_seconds: Fraction
    rate: Fraction
    """Average frames a second."""
    keyframes: tuple[int, ...] = ()
    """Presentation time, ascending, of the frames that decoding can start from."""
    counted: bool = False
    """Counted by decoding: frames must be taken by their number, times prove nothing."""
    skips: bool = False
    """Frames that no other frame refers to may be left undecoded."""

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Presentation time of each frame -> its number."""
        return {tick: i for i, tick in enumerate(self.ticks)}

    def span(self, start_seconds: float, end_seconds: float | None) -> Span:
        """Find the frames shown in [start_seconds, end_seconds) of the file."""
        begin = self.zero + _exact(start_seconds) / self.tick_seconds
        asked_end = self.end if end_seconds is None else self.zero + _exact(end_seconds) / self.tick_seconds
        end = min(Fraction(self.end), Fraction(asked_end))
        first, stop = bisect_left(self.ticks, begin), bisect_left(self.ticks, end)
        if first >= stop:
            length = float((self.end - self.zero) * self.tick_seconds)
            asked = f"from {start_seconds:g} s to {'its end' if end_seconds is None else f'{end_seconds:g} s'}"
            why = f"no frame is shown {asked}; the file ends at {length:.3f} s"
            raise UnreadableError(why, "check the times", "outside")
        return Span(first, stop, begin, end)

    def runs(self, wanted: Sequence[int]) -> list[tuple[int | None, list[int]]]:
        """Cut ascending frame numbers into stretches of decoding: (tick to seek to or None, frames).

        Each starts one keyframe earlier than it must: where keyframes are only points of gradual recovery, the
        picture is whole one such point later.
        """
        runs: list[tuple[int | None, list[int]]] = []
        for i in wanted:
            entry = bisect_right(self.keyframes, self.ticks[i]) - 2
            reached = self.ticks[runs[-1][1][-1]] if runs else self.ticks[0]
            if entry > 0 and self.keyframes[entry] > reached:
                runs.append((self.keyframes[entry], [i]))
            elif runs:
                runs[-1][1].append(i)
            else:
                runs.append((None, [i]))
        return runs


def _exact(seconds: float) -> Fraction:
    """The decimal that was written: 1.04 as a binary float lies above 1.04 and would miss the frame at 1.04 s."""
    return Fraction(str(seconds))


@lru_cache(maxsize=64)
def timeline_of(source: Source) -> Timeline:
    """Read when frames are shown from the packets alone, where they can be relied on, else by decoding."""
    with opened(source.path) as stream:
        refuse_cut(stream, source)
        timeline = timeline_of_packets(stream, packets_of(stream))
    return timeline or counted_timeline(source)


def refuse_cut(stream: Any, source: Source) -> None:
    """Refuse a file that ends earlier than it says.

    Raises:
        UnreadableError: It does.
    """
    if "mp4" in stream.container.format.name:  # elsewhere the index may be a guess
        _refuse_cut_index(stream, source.size)
    refuse_cut_file(source)


def _refuse_cut_index(stream: Any, size: int) -> None:
    """An MP4 knows where each frame lies."""
    ends = [entry.pos + entry.size for entry in stream.index_entries]
    missing = sum(end > size for end in ends)
    if missing:
        why = f"the file is cut short: {missing:,} of its {len(ends):,} frames lie beyond its end"
        raise UnreadableError(why, fault="cut_short")


def packets_of(stream: Any) -> list[Packet]:
    """Read all packets, in the order of the file; nothing is decoded.

    Raises:
        UnreadableError: One is damaged.
    """
    packets: list[Packet] = []
    for packet in stream.container.demux(stream):
        if packet.is_corrupt:
            raise UnreadableError(f"the file is cut short or damaged at its frame {len(packets):,}")
        if packet.size:
            shown_for = packet.duration or 0
            packets.append(Packet(packet.pts, shown_for, packet.is_keyframe, packet.is_discard))
    return packets


_ONE_PACKET_ONE_FRAME = frozenset({"h264", "hevc", "mpeg4", "vp9", "libdav1d", "mjpeg"})
"""Decoders whose packets are frames. VP8 for one also has packets that show nothing."""


def timeline_of_packets(stream: Any, packets: list[Packet]) -> Timeline | None:
    """Put packets in order of presentation; None where they may not be the frames that a decoder puts out."""
    shown = sorted((p.pts, p.duration) for p in packets if p.pts is not None and not p.is_discard)
    ticks = tuple(pts for pts, _ in shown)
    timed = all(p.pts is not None for p in packets) and len(set(ticks)) == len(ticks)
    starts_whole = bool(shown) and packets[0].is_keyframe  # a decoder drops what comes before a keyframe
    if not (timed and starts_whole and stream.codec_context.name in _ONE_PACKET_ONE_FRAME):
        return None
    rate = _rate(ticks, stream)
    return Timeline(
        ticks=ticks,
        end=_end(ticks[-1], shown[-1][1], rate, stream),
        zero=_zero(ticks[0], stream),
        tick_seconds=stream.time_base,
        rate=rate,
        keyframes=tuple(sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)),
        skips=stream.codec_context.name == "h264",  # the one that was measured: 1.5 times as fast, equal frames
    )


@lru_cache(maxsize=64)
def counted_timeline(source: Source) -> Timeline:
    """Decode everything once to see when frames are shown; times that can't be are made from the frame rate."""
    with opened(source.path) as stream:
        times = [(frame.pts, frame.duration or 0) for frame in stream.container.decode(stream)]
        if not times:
            raise UnreadableError("the file has a video stream without a single frame", fault="no_frames")
        ticks = tuple(pts for pts, _ in times)
        if None in ticks or any(a >= b for a, b in pairwise(ticks)):
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            return Timeline(tuple(range(len(ticks))), len(ticks), 0, 1 / rate, rate, counted=True)
        rate = _rate(ticks, stream)
        end = _end(ticks[-1], times[-1][1], rate, stream)
        return Timeline(ticks, end, _zero(ticks[0], stream), stream.time_base, rate, counted=True)


def _rate(ticks: tuple[int, ...], stream: Any) -> Fraction:
    """Frames a second from the timestamps; the declared rate where it says the same without their rounding."""
    declared = Fraction(stream.average_rate or stream.guessed_rate or 25)
    if len(ticks) == 1:
        return declared
    measured = Fraction(len(ticks) - 1) / ((ticks[-1] - ticks[0]) * stream.time_base)
    return declared if abs(declared / measured - 1) < Fraction(1, 100) else measured


def _end(last_tick: int, duration: int, rate: Fraction, stream: Any) -> int:
    return last_tick + (duration or max(1, round(1 / (rate * stream.time_base))))


def _zero(first_tick: int, stream: Any) -> int:
    """The first frame's time less what the container says the picture starts later than the sound."""
    own, earliest = stream.start_time, stream.container.start_time  # ticks, microseconds
    if own is None or earliest is None:
        return first_tick
    # Their difference, not `earliest` itself: AVI and others count from the first frame *decoded*.
    later = round(Fraction(own) - Fraction(earliest, 1_000_000) / Fraction(stream.time_base))
    return first_tick - max(0, later)
