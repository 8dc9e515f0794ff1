"""A clip as the images that lm-eval's own multimodal models take: decoded when touched, and dropped again.

Only for models that are none of ours (`harness_ext.session.reads_clips`); our backends take the clip itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from harness_ext.frame_policy import FramePolicy
from harness_ext.prompts import VIDEO
from harness_ext.session import missing_clip
from mmla_tasks.errors import ClipError, MissingExtraError, UsageError
from mmla_tasks.records import Clip

try:
    from PIL import Image
except ModuleNotFoundError:
    raise MissingExtraError("PIL", extra="hf", purpose="a clip as images") from None

if TYPE_CHECKING:
    from harness_ext.video import Pixels

IMAGE = "<image>\n"
"""A frame's place in the prompt. The line break keeps places apart: `hf-multimodal` crashes on adjacent ones."""
KEPT_BYTES = 16 * 2**20
"""Decoded frames kept for the next touch: nine clips of the default policy, so that a batch is decoded once."""
NEXT = "get the file again, or leave the row out      the task's _text twin asks without video"


def image_policy(metadata: Mapping[str, Any]) -> FramePolicy:
    """The frame policy in task metadata (``lm_eval --metadata``): `num_frames`, `max_pixels`, `video_reader`.

    Raises:
        UsageError: A value out of range, or a choice that images do not allow.
    """
    if metadata.get("fps") is not None:
        raise UsageError(
            f"fps={metadata['fps']} can't be used where a clip is shown as images",
            why="the prompt has a place for every image, so their number must be known before a clip is opened",
            next="give num_frames instead, or use mmla run with a backend of ours",
        )
    policy = metadata.get("on_bad_clip") or "error"
    if policy != "error":
        raise UsageError(
            f"on_bad_clip={policy} can't be used where a clip is shown as images",
            why="lm-eval's own models answer every request",
            next="leave it out, or use mmla run with a backend of ours",
        )
    return FramePolicy.from_args(**{name: metadata.get(name) for name in ("num_frames", "max_pixels", "video_reader")})


def with_image_places(template: str, policy: FramePolicy) -> str:
    r"""Put one place for each image where the video stood.

    >>> with_image_places("<video>Who?", FramePolicy(num_frames=2))
    '<image>\n<image>\nWho?'
    """
    return template.replace(VIDEO, IMAGE * (policy.num_frames or 0))


def clip_images(clip: Clip, policy: FramePolicy, task: str, doc_id: str) -> ClipImages:
    """The images of a clip; nothing is opened.

    Raises:
        ClipError: The file is missing or empty.
    """
    if not clip["size"]:
        raise missing_clip(task, doc_id, clip, next=NEXT)
    return ClipImages(clip=dict(clip), frames=policy.to_dict(), who=f"{task} id {doc_id}")


class ClipImages(dict[str, Any]):
    """The images of one clip to a model that iterates over them; what they are made of to everybody else.

    A dict, because lm-eval writes the arguments of requests to samples and cache keys: as JSON a dict says which clip
    and which frames, where a list of images would be decoded once more to be hashed.

    Args:
        clip: The `Clip`.
        frames: `FramePolicy.to_dict()`, with `num_frames`.
        who: Who asks, for errors.
    """

    def __len__(self) -> int:
        return int(self["frames"]["num_frames"])

    def __iter__(self) -> Iterator[Any]:
        return (LazyImage(self, i) for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return list(self)[key]

    def pixels(self) -> Pixels:
        """The frames, uint8 [T, H, W, 3]; T is less than the number of images where the clip has fewer frames.

        Raises:
            ClipError: The file cannot be read.
        """
        from harness_ext.frame_cache import frames_of

        try:
            return frames_of(self["clip"], FramePolicy(**self["frames"]), who=self["who"]).frames_THWC
        except ClipError as error:
            raise ClipError(error.what, {**error.details, "next": NEXT}, fault=error.fault) from None


class LazyImage(Image.Image):
    """One frame of a clip. Touching pixels or size decodes; only a change in place, as `thumbnail` makes, is kept.

    Args:
        images: Whose frame it is.
        number: Which of them, from 0; a clip with fewer frames repeats its last.
    """

    def __init__(self, images: ClipImages, number: int) -> None:
        self._own: Any = None
        super().__init__()
        self._images = images
        self._number = number
        self._mode = "RGB"

    @property
    def im(self) -> Any:
        """Pillow's pixels: those of a change in place, else decoded now."""
        if self._own is not None:
            return self._own
        return Image.fromarray(self._frame()).im

    @im.setter
    def im(self, pixels: Any) -> None:
        self._own = self._im = pixels
        if pixels is not None:
            self._size = pixels.size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        if self._own is not None:
            return self._size
        height, width, _ = self._frame().shape
        return width, height

    def _frame(self) -> Pixels:
        frames = _KEPT.frames(self._images)
        frame_HWC: Pixels = frames[min(self._number, len(frames) - 1)]
        return frame_HWC

    def load(self) -> Any:
        """Access to single pixels, for reading."""
        return super().load() if self._own is not None else self.im.pixel_access(1)

    def _ensure_mutable(self) -> None:
        if self._own is None:
            self.im = self.im
        super()._ensure_mutable()

    def __reduce__(self) -> Any:
        """Copied and pickled by reference, unless it was changed in place."""
        if self._own is not None:
            return Image.frombytes, (self.mode, self.size, self.tobytes())
        return LazyImage, (self._images, self._number)

    def __repr__(self) -> str:
        return f"<frame {self._number + 1} of {len(self._images)}: {self._images['clip']['path']}>"


class _Kept:
    """The frames of the clips touched last, up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._frames: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = Lock()

    def frames(self, images: ClipImages) -> Pixels:
        """Decode a clip, unless its frames are still here."""
        key = repr(dict.items(images))
        with self._lock:
            if key not in self._frames:
                self._keep(key, images.pixels())
            self._frames.move_to_end(key)
            return self._frames[key]

    def _keep(self, key: str, frames: Pixels) -> None:
        self._frames[key] = frames
        while len(self._frames) > 1 and sum(kept.nbytes for kept in self._frames.values()) > KEPT_BYTES:
            self._frames.popitem(last=False)


_KEPT = _Kept()
