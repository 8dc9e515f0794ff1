"""Opens video files: the only place that does. What can be wrong with one is named here.

A file may be hostile. Only known containers are opened, for a playlist would open other files; pictures above
`PICTURE_PIXELS` are refused before one is allocated; all else is up to the bounds of `isolation.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from mmla_tasks.errors import ClipError, ClipFault, MissingExtraError

PICTURE_PIXELS: Final = 8192 * 4320
"""Width times height of the largest pictures that are decoded: 8K."""
CONTAINERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,flv,asf,ogg,nut,mxf,rm,dv,"
    "gif,mp3,aac,wav,flac"
)
"""FFmpeg's names of the containers that are opened; those of sound, to say that they hold nothing else."""


class UnreadableError(Exception):
    """Why a file gives no frames, in one sentence; `clip_error` adds which file and who asked."""

    def __init__(self, why: str, hint: str = "get the file again", fault: ClipFault = "damaged") -> None:
        self.why, self.hint, self.fault = why, hint, fault
        super().__init__(why, hint, fault)


def clip_error(path: str, who: str, reason: UnreadableError) -> ClipError:
    """Say what, which file, why, and what next."""
    try:
        size = f" ({os.stat(path).st_size:,} bytes)"
    except OSError:
        size = ""
    return ClipError(
        f"clip{f' for {who}' if who else ''} can't be read",
        fault=reason.fault,
        file=f"{path}{size}",
        why=reason.why,
        next=f"{reason.hint}      or run with --on_bad_clip skip",
    )


class Source(NamedTuple):
    """A file as it is now; the key under which what was learned of it is cached."""

    path: str
    size: int
    mtime_ns: int


def source_of(path: str) -> Source:
    """Look at a file without opening it.

    Raises:
        UnreadableError: It is missing, empty or no file.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
        if isinstance(error, FileNotFoundError):
            raise UnreadableError("the file is missing", "put the file there", "missing") from None
        raise UnreadableError(getattr(error, "strerror", None) or str(error), "put the file there") from None
    if not os.path.isfile(path):
        raise UnreadableError("it is not a file", "put the file there", "missing")
    if stat.st_size == 0:
        raise UnreadableError("the file is empty; the archive may have been extracted only in part", fault="empty")
    return Source(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """Open a file and yield its video stream, with decoding set up so that it gives the same pictures every time.

    Raises:
        UnreadableError: It is not a video, or its pictures are too large.
    """
    av = pyav()
    bound = {"max_pixels": str(PICTURE_PIXELS)}
    try:
        container = av.open(path, metadata_errors="replace", options={"format_whitelist": CONTAINERS, **bound})
    except (av.error.InvalidDataError, av.error.ArgumentError):
        raise _not_a_video(path) from None
    with container:
        streams = films(container)
        if not streams:
            raise _without_video(path, sorted({stream.type for stream in container.streams}))
        _refuse_large_pictures(streams[0].codec_context)
        streams[0].codec_context.options = bound  # a stream may also change its size on the way
        # One thread for each slice, not for each frame: what is shown of damaged pictures then never depends on
        # timing, and cores are better spent on several clips at once.
        streams[0].thread_type = "SLICE"
        yield streams[0]


def films(container: Any) -> list[Any]:
    """The video streams of an open file that are no cover pictures; the first is the one that is read."""
    cover = pyav().stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _not_a_video(path: str) -> UnreadableError:
    with open(path, "rb") as file:
        is_mp4 = file.read(12)[4:8] == b"ftyp"
    if is_mp4:
        why = "the file is cut short or damaged: it starts as MP4, but its index can't be read"
        return UnreadableError(why, fault="cut_short")
    return UnreadableError("the file is not a video, or its beginning is damaged", fault="not_video")


def _without_video(path: str, kinds: list[str]) -> UnreadableError:
    if not kinds:
        return _not_a_video(path)
    fault: ClipFault = "audio_only" if "audio" in kinds else "no_frames"
    return UnreadableError(f"the file holds {', '.join(kinds)} but no video", fault=fault)


def _refuse_large_pictures(codec: Any) -> None:
    if codec is None:
        raise UnreadableError("the file's video is of a kind that PyAV can't decode", "convert it to H.264")
    if codec.width * codec.height > PICTURE_PIXELS:
        size = f"{codec.width:,} x {codec.height:,}"
        why = f"its pictures are said to have {size} pixels; at most {PICTURE_PIXELS:,} are decoded"
        raise UnreadableError(why, "get the file again, or make it smaller", "too_large")


def pyav() -> Any:
    """The package `av`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise MissingExtraError("av", extra="hf", purpose="reading video") from None
    return av
