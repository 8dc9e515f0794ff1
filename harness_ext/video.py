"""Clip -> `Frames`: the pixels of the frames that a `FramePolicy` names. The only place that opens a video.

Frame i of a file is the i-th picture that a full decode puts out. Where a file's packets tell every frame's time,
only the packets are read to count (milliseconds) and only what the chosen frames need is decoded; what comes out is
compared with the plan, and where the two disagree the file is decoded once to count and once more to pick.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness_ext.frame_policy import FramePolicy, Reader, resized_shape
from mmla_tasks.errors import ClipError, MissingExtraError
from mmla_tasks.records import Clip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = [
    "Frames",
    "cache_folder",
    "clip_digest",
    "contact_sheet",
    "decode",
    "frames_metadata",
    "pixel_digest",
    "reader_versions",
]

# ── what a decoded clip is ────────────────────────────────────────────────────────────────────────────────────────


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


def decode(clip: Clip, policy: FramePolicy, *, who: str = "") -> Frames:
    """Read the frames of `clip` that `policy` names; only those are ever held in memory, already in final size.

    Args:
        clip: Which file, and from when to when in it.
        policy: Which frames and how large.
        who: Who asks, for the error, such as ``mmla_emotion_meld id 1153_0``.

    Raises:
        ClipError: The file is missing, empty, not a video, cut short or damaged, or has no frame in the clip's time.
        MissingExtraError: The reader or Pillow is not installed.
    """
    with _named_errors(clip["path"], who):
        source = _source(clip["path"])
        try:
            return _decode(source, _timeline(source), clip, policy)
        except _MistimedError:
            return _decode(source, _counted_timeline(source), clip, policy)


def _decode(source: _Source, timeline: _Timeline, clip: Clip, policy: FramePolicy) -> Frames:
    """Choose by the timeline, read, and put together."""
    import numpy as np

    span = timeline.span(clip["start_seconds"], clip["end_seconds"])
    chosen = policy.choose(timeline.ticks[span.first : span.stop], span.end, timeline.tick_seconds, timeline.rate)
    indices = tuple(span.first + i for i in chosen)
    read = _READERS[policy.reader]
    images = read(source, timeline, sorted(set(indices)), _Shrink(policy.max_pixels))
    frames_THWC = np.stack([images[i] for i in indices])
    return Frames(
        frames_THWC=frames_THWC,
        seconds=tuple(float((timeline.ticks[i] - span.begin) * timeline.tick_seconds) for i in indices),
        indices=indices,
        first_index=span.first,
        source_frames=span.stop - span.first,
        source_fps=float(timeline.rate),
        duration_seconds=float((span.end - span.begin) * timeline.tick_seconds),
        fingerprint=_fingerprint(frames_THWC, indices, policy.reader),
    )


def _fingerprint(frames_THWC: Pixels, indices: tuple[int, ...], reader: Reader) -> dict[str, Any]:
    return {
        "reader": reader,
        "version": reader_versions(reader)[0],
        "indices": list(indices),
        "size": list(frames_THWC.shape[1:3]),
        "digest": pixel_digest(frames_THWC),
    }


def pixel_digest(frames_THWC: Pixels) -> str:
    """SHA-256 of the pixels, 32 hex digits."""
    return hashlib.sha256(frames_THWC.data).hexdigest()[:32]


def reader_versions(reader: Reader) -> tuple[str, ...]:
    """Versions of all that frames go through: the reader first, PyAV, which tells the times, Pillow, which resizes.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    own = (_decord().__version__,) if reader == "decord" else ()
    return (*own, _av().__version__, _pillow().__version__)


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _UnreadableError(Exception):
    """Why a file gives no frames, in one sentence; `_named_errors` adds which file and who asked."""

    def __init__(self, why: str, hint: str = "get the file again") -> None:
        self.hint = hint
        super().__init__(why)


class _MistimedError(Exception):
    """The decoder put out other frames than the packets announced: count by decoding."""


@contextmanager
def _named_errors(path: str, who: str) -> Iterator[None]:
    """Turn everything a bad file can raise into one `ClipError` that says what, which one, where, and what next."""
    ffmpeg_error = _av().error.FFmpegError
    try:
        yield
    except _UnreadableError as error:
        raise _clip_error(path, who, str(error), error.hint) from None
    except ffmpeg_error as error:
        reason = error.strerror or type(error).__name__
        raise _clip_error(path, who, f"the decoder gives up: {reason}", "get the file again") from None


def _clip_error(path: str, who: str, why: str, hint: str) -> ClipError:
    try:
        size = f" ({os.stat(path).st_size:,} bytes)"
    except OSError:
        size = ""
    return ClipError(
        f"clip{f' for {who}' if who else ''} can't be read",
        file=f"{path}{size}",
        why=why,
        next=f"{hint}      or run with --on_bad_clip skip",
    )


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise MissingExtraError("av", extra="hf", purpose="reading video") from None
    return av


def _decord() -> Any:
    try:
        import decord
    except ModuleNotFoundError:
        raise MissingExtraError("decord", extra="decord", purpose="video_reader=decord") from None
    return decord


def _pillow() -> Any:
    try:
        import PIL.Image
    except ModuleNotFoundError:
        raise MissingExtraError("PIL", extra="hf", purpose="resizing and drawing frames") from None
    return PIL


# ── when the frames of a file are shown ───────────────────────────────────────────────────────────────────────────


class _Source(NamedTuple):
    """A file as it is now; the key under which what was learned of it is cached."""

    path: str
    size: int
    mtime_ns: int


class _Packet(NamedTuple):
    """What is known of a compressed frame before it is decoded; times in ticks."""

    pts: int | None
    duration: int
    is_keyframe: bool
    is_discard: bool


class _Span(NamedTuple):
    """A clip on a timeline: frames [first, stop), time [begin, end) in ticks."""

    first: int
    stop: int
    begin: Fraction
    end: Fraction


@dataclass(frozen=True)
class _Timeline:
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

    def span(self, start_seconds: float, end_seconds: float | None) -> _Span:
        """Find the frames shown in [start_seconds, end_seconds) of the file."""
        begin = self.zero + _exact(start_seconds) / self.tick_seconds
        asked_end = self.end if end_seconds is None else self.zero + _exact(end_seconds) / self.tick_seconds
        end = min(Fraction(self.end), Fraction(asked_end))
        first, stop = bisect_left(self.ticks, begin), bisect_left(self.ticks, end)
        if first >= stop:
            length = float((self.end - self.zero) * self.tick_seconds)
            asked = f"from {start_seconds:g} s to {'its end' if end_seconds is None else f'{end_seconds:g} s'}"
            raise _UnreadableError(f"no frame is shown {asked}; the file ends at {length:.3f} s", "check the times")
        return _Span(first, stop, begin, end)

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


def _source(path: str) -> _Source:
    try:
        stat = os.stat(path)
    except OSError as error:
        why = "the file is missing" if isinstance(error, FileNotFoundError) else f"{error.strerror or error}"
        raise _UnreadableError(why, "put the file there") from None
    if not os.path.isfile(path):
        raise _UnreadableError("it is not a file")
    if stat.st_size == 0:
        raise _UnreadableError("the file is empty; the archive may have been extracted only in part")
    return _Source(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """Open a file and yield its video stream, with decoding set up so that it gives the same pictures every time."""
    av = _av()
    try:
        container = av.open(path, metadata_errors="replace")
    except av.error.InvalidDataError:
        raise _UnreadableError(_why_not_video(path)) from None
    with container:
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams}))
            raise _UnreadableError(f"the file holds {kinds} but no video" if kinds else _why_not_video(path))
        # One thread for each slice, not for each frame: what is shown of damaged pictures then never depends on
        # timing, and cores are better spent on several clips at once.
        streams[0].thread_type = "SLICE"
        yield streams[0]


def _why_not_video(path: str) -> str:
    with open(path, "rb") as file:
        is_mp4 = file.read(12)[4:8] == b"ftyp"
    if is_mp4:
        return "the file is cut short or damaged: it starts as MP4, but its index can't be read"
    return "the file is not a video, or its beginning is damaged"


@lru_cache(maxsize=64)
def _timeline(source: _Source) -> _Timeline:
    """Read when frames are shown from the packets alone, where they can be relied on, else by decoding."""
    with _open(source.path) as stream:
        _refuse_cut_index(stream, source.size)
        timeline = _timeline_of_packets(stream, _packets(stream))
    return timeline or _counted_timeline(source)


def _refuse_cut_index(stream: Any, size: int) -> None:
    """An MP4 knows where each frame lies: frames beyond the end of the file mean that it was cut."""
    if "mp4" not in stream.container.format.name:
        return  # elsewhere the index may be a guess
    ends = [entry.pos + entry.size for entry in stream.index_entries]
    missing = sum(end > size for end in ends)
    if missing:
        raise _UnreadableError(f"the file is cut short: {missing:,} of its {len(ends):,} frames lie beyond its end")


def _packets(stream: Any) -> list[_Packet]:
    packets: list[_Packet] = []
    for packet in stream.container.demux(stream):
        if packet.is_corrupt:
            raise _UnreadableError(f"the file is cut short or damaged at its frame {len(packets):,}")
        if packet.size:
            shown_for = packet.duration or 0
            packets.append(_Packet(packet.pts, shown_for, packet.is_keyframe, packet.is_discard))
    return packets


_ONE_PACKET_ONE_FRAME = frozenset({"h264", "hevc", "mpeg4", "vp9", "av1", "mjpeg"})
"""Codecs whose packets are frames. VP8 for one also has packets that show nothing."""


def _timeline_of_packets(stream: Any, packets: list[_Packet]) -> _Timeline | None:
    """Put packets in order of presentation; None where they may not be the frames that a decoder puts out."""
    shown = sorted((p.pts, p.duration) for p in packets if p.pts is not None and not p.is_discard)
    ticks = tuple(pts for pts, _ in shown)
    timed = all(p.pts is not None for p in packets) and len(set(ticks)) == len(ticks)
    starts_whole = bool(shown) and packets[0].is_keyframe  # a decoder drops what comes before a keyframe
    if not (timed and starts_whole and stream.codec_context.name in _ONE_PACKET_ONE_FRAME):
        return None
    rate = _rate(ticks, stream)
    return _Timeline(
        ticks=ticks,
        end=_end(ticks[-1], shown[-1][1], rate, stream),
        zero=_zero(ticks[0], stream),
        tick_seconds=stream.time_base,
        rate=rate,
        keyframes=tuple(sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)),
        skips=stream.codec_context.name == "h264",  # the one that was measured: 1.5 times as fast, equal frames
    )


@lru_cache(maxsize=64)
def _counted_timeline(source: _Source) -> _Timeline:
    """Decode everything once to see when frames are shown; times that can't be are made from the frame rate."""
    with _open(source.path) as stream:
        times = [(frame.pts, frame.duration or 0) for frame in stream.container.decode(stream)]
        if not times:
            raise _UnreadableError("the file has a video stream without a single frame")
        ticks = tuple(pts for pts, _ in times)
        if None in ticks or any(a >= b for a, b in pairwise(ticks)):
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            return _Timeline(tuple(range(len(ticks))), len(ticks), 0, 1 / rate, rate, counted=True)
        rate = _rate(ticks, stream)
        end = _end(ticks[-1], times[-1][1], rate, stream)
        return _Timeline(ticks, end, _zero(ticks[0], stream), stream.time_base, rate, counted=True)


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


# ── pixels ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Shrink:
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
        pillow = _pillow()
        size = (self.shape[1], self.shape[0])
        return np.asarray(pillow.Image.fromarray(image_HWC).resize(size, pillow.Image.Resampling.BICUBIC))


def _read_with_pyav(source: _Source, timeline: _Timeline, wanted: list[int], shrink: _Shrink) -> dict[int, Pixels]:
    """Decode what is needed for the frames `wanted` (ascending), convert only them."""
    images: dict[int, Pixels] = {}
    with _open(source.path) as stream:
        for seek_to, group in timeline.runs(wanted):
            if seek_to is not None:
                stream.container.seek(seek_to, stream=stream)
            numbered = _count_frames(stream) if timeline.counted else _match_frames(stream, timeline, group, seek_to)
            for index, frame in numbered:
                if index in group:
                    images[index] = shrink(_rgb(frame, index))
                if index >= group[-1]:
                    break
    if len(images) < len(wanted):
        if timeline.counted:
            raise _UnreadableError("the file gives fewer frames each time it is decoded")
        raise _MistimedError
    return images


def _count_frames(stream: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(stream.container.decode(stream))


def _match_frames(stream: Any, timeline: _Timeline, group: list[int], seek_to: int | None) -> Iterator[tuple[int, Any]]:
    """Number decoded frames by their time, and stop believing in the timeline when one does not fit."""
    wanted_ticks = {timeline.ticks[i] for i in group}
    numbers = {tick: i for i, tick in enumerate(timeline.ticks)}
    before = -1
    for packet in stream.container.demux(stream):
        if timeline.skips:
            needed = packet.pts in wanted_ticks or not packet.size
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in packet.decode():
            index = numbers.get(frame.pts, -1)
            gapless = timeline.skips or seek_to is not None or index == before + 1
            if index <= before or not gapless:
                raise _MistimedError
            before = index
            yield index, frame


def _rgb(frame: Any, index: int) -> Pixels:
    """Convert one frame, turned upright as its file asks."""
    import numpy as np

    if frame.is_corrupt:
        raise _UnreadableError(f"frame {index:,} is damaged")
    image_HWC: Pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image_HWC, quarter_turns)) if quarter_turns else image_HWC


_DECORD_READS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})
"""FFmpeg's names of the containers in which decord's frames equal PyAV's; of a transport stream it loses the first."""


def _read_with_decord(source: _Source, timeline: _Timeline, wanted: list[int], shrink: _Shrink) -> dict[int, Pixels]:
    """The same frames through decord; a file whose frames could be others than PyAV's is refused."""
    decord = _decord()
    with _open(source.path) as stream:
        container = stream.container.format.name
    if container not in _DECORD_READS:
        raise _UnreadableError(f"decord reads MP4, Matroska and AVI here, not {container}", "use video_reader=pyav")
    try:
        reader = decord.VideoReader(source.path, num_threads=1)
        if len(reader) != len(timeline.ticks):
            counts = f"decord counts {len(reader):,} frames, PyAV {len(timeline.ticks):,}"
            raise _UnreadableError(counts, "use video_reader=pyav")
        return {i: shrink(image) for i, image in _decord_images(reader, wanted)}
    except (decord.DECORDError, StopIteration) as error:
        reason = str(error).strip().rsplit("] ", 1)[-1] or "it ends early"  # without its source file and line
        raise _UnreadableError(f"decord gives up: {reason}", "use video_reader=pyav") from None


def _decord_images(reader: Any, wanted: list[int]) -> Iterator[tuple[int, Pixels]]:
    """Read every frame up to the last one wanted: where decord seeks or skips, it takes wrong ones.

    Seen in MPEG-4 with B-frames, in H.264 with open GOPs or gradual recovery, and in transport streams.
    """
    for i in range(wanted[-1] + 1):
        image = reader.next()
        if i in wanted:
            yield i, image.asnumpy()


_READERS: Mapping[Reader, Callable[[_Source, _Timeline, list[int], _Shrink], dict[int, Pixels]]] = {
    "pyav": _read_with_pyav,
    "decord": _read_with_decord,
}

# ── digests ───────────────────────────────────────────────────────────────────────────────────────────────────────


def clip_digest(clip: Clip, *, who: str = "") -> str:
    """SHA-256 of the clip's whole file, 64 hex digits; cached by path, size and mtime, also from run to run.

    Args:
        clip: Its file as it is now counts, not the size and time in the reference.
        who: Who asks, for the error.

    Raises:
        ClipError: The file is missing, empty or unreadable.
    """
    try:
        return _digest(_source(clip["path"]))
    except _UnreadableError as error:
        raise _clip_error(clip["path"], who, str(error), error.hint) from None
    except OSError as error:
        raise _clip_error(clip["path"], who, error.strerror or str(error), "get the file again") from None


@lru_cache(maxsize=65_536)
def _digest(source: _Source) -> str:
    known = _stored_digest(source)
    if known is None:
        with open(source.path, "rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        _store_digest(source, known)
    return known


def _stored_digest(source: _Source) -> str | None:
    """Look into the cache on disk; a cache that can't be used costs time, never a run."""
    with suppress(sqlite3.Error, OSError), closing(_digest_store()) as store:
        row = store.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime_ns = ?", source
        ).fetchone()
        return str(row[0]) if row else None
    return None


def _store_digest(source: _Source, digest: str) -> None:
    with suppress(sqlite3.Error, OSError), closing(_digest_store()) as store, store:
        store.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (*source, digest))


def _digest_store() -> sqlite3.Connection:
    """Open ``digests.sqlite`` in the cache folder; SQLite lets several processes share it."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(folder / "digests.sqlite", timeout=30)
    store.execute("PRAGMA synchronous = OFF")  # a lost entry is computed again
    store.execute(
        "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
    )
    return store


def cache_folder() -> Path:
    """MMLA_CACHE_DIR, else the user's cache folder; it may not exist yet."""
    import platformdirs

    return Path(os.environ.get("MMLA_CACHE_DIR") or platformdirs.user_cache_dir("mmla-eval"))


# ── a picture for people ──────────────────────────────────────────────────────────────────────────────────────────


def contact_sheet(frames: Frames, path: Path, caption: str, *, columns: int = 8, width: int = 320) -> None:
    """Write a PNG with the frames side by side, number and seconds beneath each, the caption below.

    Args:
        frames: What a model would see.
        path: The PNG to write.
        caption: One line.
        columns: Frames in a row.
        width: Of a frame on the sheet at most, in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    margin, line = 8, 18
    _, source_height, source_width, _ = frames.frames_THWC.shape
    cell_width = min(width, source_width)
    cell_height = max(1, source_height * cell_width // source_width)
    across = min(columns, len(frames))
    down = -(-len(frames) // across)
    size = (margin + across * (cell_width + margin), down * (cell_height + line + margin) + line + 2 * margin)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for position, (image, index, seconds) in enumerate(
        zip(frames.frames_THWC, frames.indices, frames.seconds, strict=True)
    ):
        row, column = divmod(position, across)
        x, y = margin + column * (cell_width + margin), margin + row * (cell_height + line + margin)
        sheet.paste(Image.fromarray(image).resize((cell_width, cell_height)), (x, y))
        draw.text((x, y + cell_height + 2), f"frame {index}   {seconds:.2f} s", fill="black", font=font)
    draw.text((margin, size[1] - line - margin), caption, fill="black", font=font)
    sheet.save(path, format="PNG")
