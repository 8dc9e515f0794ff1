"""Small strips of frames for the table of samples, made only when asked for: clips show people."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator

from harness_ext.frame_policy import FramePolicy
from harness_ext.reports.report_data import first_repeat
from harness_ext.reports.run_files import Run
from mmla_tasks.errors import ClipError, MissingExtraError, UsageError
from mmla_tasks.records import Clip

FRAMES, HEIGHT, MAX_PIXELS = 3, 72, 20_000
"""A strip: three frames side by side, 72 pixels high. They are decoded at most this large."""


def thumbnails(
    run: Run, per_task: int, announce: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, str]]:
    """Draw strips for the first rows of each task.

    Args:
        run: A finished run.
        per_task: Rows of each task.
        announce: Told what could not be drawn.

    Returns:
        Task -> document id -> ``data:`` URL of a JPEG file.

    Raises:
        UsageError: None of the run's samples has a clip.
        MissingExtraError: No reader of videos, or no Pillow, is installed.
    """
    strips: dict[str, dict[str, str]] = {}
    unread = 0
    for task, id, clip in _clips(run, per_task):
        try:
            strips.setdefault(task, {})[id] = _strip(clip, who=f"{task} id {id}")
        except (ClipError, OSError):
            unread += 1
    if not strips and not unread:
        raise UsageError("--thumbnails: no sample of this run has a clip", next="leave --thumbnails out")
    if unread:
        announce(f"{unread:,} clips could not be read; their rows are without frames")
    return strips


def _clips(run: Run, per_task: int) -> Iterator[tuple[str, str, Clip]]:
    for task, rows in run.samples.items():
        for row in first_repeat(rows)[:per_task]:
            if clip := row["doc"].get("clip"):
                yield task, row["doc"]["id"], clip


def _strip(clip: Clip, who: str) -> str:
    from harness_ext.frame_cache import frames_of

    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("PIL", extra="hf", purpose="mmla report --thumbnails") from None
    as_found = Clip(**{**clip, "mtime_ns": os.stat(clip["path"]).st_mtime_ns})  # samples do not hold it
    pixels = frames_of(as_found, FramePolicy(num_frames=FRAMES, max_pixels=MAX_PIXELS), who=who).frames_THWC
    width = max(1, round(HEIGHT * pixels.shape[2] / pixels.shape[1]))
    strip = Image.new("RGB", (width * len(pixels), HEIGHT))
    for n, frame in enumerate(pixels):
        strip.paste(Image.fromarray(frame).resize((width, HEIGHT)), (n * width, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=62, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
