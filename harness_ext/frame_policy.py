"""Which frames of a clip are shown: integer arithmetic, and the `FramePolicy` that a run keeps to. Opens nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, isqrt
from typing import Any, Literal, get_args

from mmla_tasks.errors import UsageError, suggest

Rule = Literal["uniform", "fps", "released_linspace", "released_midpoint", "released_stride"]
Reader = Literal["pyav", "decord"]
FRAME_ARGUMENTS = ("num_frames", "fps", "max_frames", "max_pixels", "video_reader")
"""Model arguments that make a frame policy."""
RATE_RULES: tuple[Rule, ...] = ("fps", "released_stride")
"""Rules that take `fps` and `max_frames`; the others take `num_frames`."""


def sample_indices(num_frames: int, budget: int) -> list[int]:
    """Spread `budget` frames evenly over a clip, first and last included (with a budget of 1: the first).

    Args:
        num_frames: Frames in the clip.
        budget: Frames wanted; a clip that has fewer gives all it has.

    >>> sample_indices(num_frames=10, budget=4)
    [0, 3, 6, 9]
    >>> sample_indices(num_frames=2, budget=4)
    [0, 1]
    """
    taken = min(num_frames, budget)
    return [i * (num_frames - 1) // max(1, taken - 1) for i in range(taken)]


def fps_indices(ticks: Sequence[int], end: int | Fraction, step: Fraction, max_frames: int) -> list[int]:
    """The frames nearest to the times 0, step, 2 step, ... after the first frame, each once; ties go to the earlier.

    Nearest, not latest: containers round timestamps (667 ms for 2/3 s), which must not move a hit to its neighbour.

    Args:
        ticks: Presentation time of each frame, strictly increasing integers; for a constant rate `range(n)` will do.
        end: When the last frame ends, in ticks, exclusive.
        step: Ticks from one sample to the next, the clip's rate over the wanted rate when ticks are frames.
        max_frames: Cap; a clip that needs more gives this many of them, spread evenly.

    >>> fps_indices(range(75), end=75, step=Fraction(25), max_frames=64)
    [0, 25, 50]
    >>> fps_indices(range(75), end=75, step=Fraction(25), max_frames=2)
    [0, 50]
    """
    if not ticks:
        return []
    total = ceil((end - ticks[0]) / step)
    # How many sample times lie at or before the middle between each frame and the next: a frame with more than its
    # predecessor is the nearest to at least one.
    middles = (a + b - 2 * ticks[0] for a, b in pairwise(ticks))
    served = [min(total, middle * step.denominator // (2 * step.numerator) + 1) for middle in middles]
    nearest = [i for i, (before, now) in enumerate(pairwise([0, *served, total])) if now > before]
    return [nearest[i] for i in sample_indices(len(nearest), max_frames)]


def linspace_indices(num_frames: int, budget: int) -> list[int]:
    """Qwen2-VL and LLaVA as released: `np.linspace(0, n - 1, budget).astype(int)`; a short clip repeats frames.

    In floating point, because truncating it is what was released.

    >>> linspace_indices(num_frames=2, budget=4)
    [0, 0, 0, 1]
    """
    if budget == 1:
        return [0]
    step = (num_frames - 1) / (budget - 1)
    return [*(int(i * step) for i in range(budget - 1)), num_frames - 1]


def midpoint_indices(num_frames: int, budget: int) -> list[int]:
    """VideoLLaMA2 as released: the middle of each of `budget` equal segments, halves up; a short clip repeats frames.

    >>> midpoint_indices(num_frames=10, budget=4)
    [1, 3, 6, 8]
    """
    return [((2 * i + 1) * (num_frames - 1) + budget) // (2 * budget) for i in range(budget)]


def stride_indices(num_frames: int, stride: int, max_frames: int) -> list[int]:
    """MiniCPM-V as released: every `stride`-th frame; of more than `max_frames`, the middles of equal shares.

    >>> stride_indices(num_frames=75, stride=25, max_frames=64)
    [0, 25, 50]
    >>> stride_indices(num_frames=75, stride=25, max_frames=2)
    [0, 50]
    """
    every = range(0, num_frames, stride)
    if len(every) <= max_frames:
        return list(every)
    gap = len(every) / max_frames  # in floating point, because truncating it is what was released
    return [every[int(i * gap + gap / 2)] for i in range(max_frames)]


def resized_shape(height: int, width: int, max_pixels: int, factor: int = 1) -> tuple[int, int]:
    """The largest (height, width) of at most `max_pixels` in the same proportion; within the bound nothing changes.

    Args:
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
        max_pixels: Upper bound of height x width, at least `factor` squared.
        factor: Sides of a shrunk frame are multiples of it, where the frame itself is not thinner.

    >>> resized_shape(360, 640, max_pixels=151_200, factor=2)
    (290, 516)
    >>> resized_shape(240, 320, max_pixels=151_200, factor=2)
    (240, 320)
    """
    if height * width <= max_pixels:
        return height, width
    short, long = sorted((height, width))
    low = min(short, max(factor, isqrt(max_pixels * short // long) // factor * factor))
    # The nearest multiple that keeps the proportion, unless rounding up would break the bound.
    fitting = (2 * low * long + short * factor) // (2 * short * factor)
    high = max(factor, min(fitting, max_pixels // low // factor) * factor)
    return (low, high) if height <= width else (high, low)


@dataclass(frozen=True)
class FramePolicy:
    """Which frames of every clip a model sees, and how large; one policy for a run.

    Raises:
        UsageError: A value out of range, or `num_frames` and `fps` not matching the rule.
    """

    rule: Rule = "uniform"
    """`uniform` and the released rules of Qwen2-VL, LLaVA and VideoLLaMA2 take `num_frames`, the others `fps`."""
    num_frames: int | None = 4
    """Frames of one clip; None under a rule that takes `fps`."""
    fps: float | None = None
    """Frames for each second of the clip; None under a rule that takes `num_frames`."""
    max_frames: int | None = None
    """Cap under a rule that takes `fps`, else None."""
    max_pixels: int = 360 * 420
    """Upper bound of height x width of one frame; larger frames shrink in proportion."""
    reader: Reader = "pyav"
    """Who decodes. `decord` must give equal frames; it has open reports of native hangs (design.md)."""

    def __post_init__(self) -> None:
        _one_of("frame_rule", self.rule, get_args(Rule))
        _one_of("video_reader", self.reader, get_args(Reader))
        _at_least("max_pixels", self.max_pixels, 4)
        if self.rule in RATE_RULES:
            _absent("num_frames", self.num_frames, self.rule)
            _at_least("max_frames", self.max_frames, 1)
            if not isinstance(self.fps, (int, float)) or not 0 < self.fps <= 1000:
                raise _bad_argument("fps", self.fps, "it must be a number above 0 and at most 1000, such as 1 or 0.5")
        else:
            _absent("fps", self.fps, self.rule)
            _absent("max_frames", self.max_frames, self.rule)
            _at_least("num_frames", self.num_frames, 1)

    @classmethod
    def from_args(
        cls,
        num_frames: Any = None,
        fps: Any = None,
        max_pixels: Any = None,
        video_reader: Any = None,
        max_frames: Any = None,
        rule: Any = None,
    ) -> FramePolicy:
        """Make a policy from model arguments, numbers or texts; None takes the default.

        Args:
            num_frames: Frames of one clip, default 4. Not together with `fps`.
            fps: Frames a second.
            max_pixels: Upper bound of height x width of one frame, default 151,200.
            video_reader: `pyav` (default) or `decord`.
            max_frames: Cap for `fps`, default 64.
            rule: Default `uniform`, or `fps` when `fps` is given.

        Raises:
            UsageError: A value can't be read or is out of range, or two exclude each other.
        """
        if num_frames is not None and fps is not None:
            raise _bad_argument("fps", fps, f"num_frames={num_frames} is given too; give one of them")
        rule = rule or ("uniform" if fps is None else "fps")
        by_rate = rule in RATE_RULES
        return cls(
            rule=rule,
            num_frames=_whole("num_frames", num_frames, None if by_rate else 4),
            fps=_number("fps", fps, 1.0 if by_rate else None),
            max_frames=_whole("max_frames", max_frames, 64 if by_rate else None),
            max_pixels=_whole("max_pixels", max_pixels, cls.max_pixels) or 0,
            reader=video_reader or cls.reader,
        )

    @classmethod
    def chosen(cls, args: Mapping[str, Any], released: Mapping[str, Any] | None = None) -> FramePolicy:
        """The policy that model arguments ask for; where they choose no frames, that of a released family.

        Args:
            args: Those of `FRAME_ARGUMENTS` are read.
            released: Arguments of `from_args`.

        Raises:
            UsageError: As in `from_args`.
        """
        given = {name: args.get(name) for name in FRAME_ARGUMENTS}
        if released and all(given[name] is None for name in FRAME_ARGUMENTS if name != "video_reader"):
            return cls.from_args(**released, video_reader=given["video_reader"])
        return cls.from_args(**given)

    def choose(self, ticks: Sequence[int], end: int | Fraction, tick_seconds: Fraction, rate: Fraction) -> list[int]:
        """Pick frames of a clip; positions in `ticks`, ascending, repeated only under the released rules.

        Args:
            ticks: Presentation time of each frame of the clip, strictly increasing.
            end: When the last frame ends, in ticks, exclusive.
            tick_seconds: Length of a tick, in seconds.
            rate: Average frames a second of the file.
        """
        budget, cap = self.num_frames or 0, self.max_frames or 0
        fps = Fraction(str(self.fps or 1))
        match self.rule:
            case "uniform":
                return sample_indices(len(ticks), budget)
            case "fps":
                return fps_indices(ticks, end, 1 / (fps * tick_seconds), cap)
            case "released_linspace":
                return linspace_indices(len(ticks), budget)
            case "released_midpoint":
                return midpoint_indices(len(ticks), budget)
            case "released_stride":
                return stride_indices(len(ticks), max(1, round(rate / fps)), cap)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results and the journal; `FramePolicy(**policy.to_dict())` reverses it."""
        return asdict(self)

    def describe(self) -> str:
        """Short text for people, such as ``4 frames ≤ 151,200 px``."""
        if self.num_frames is None:
            frames = f"{self.fps:g} fps up to {self.max_frames} frames"
        else:
            frames = f"{self.num_frames} frame{'s' if self.num_frames > 1 else ''}"
        named = {"rule": self.rule.startswith("released"), "reader": self.reader != "pyav"}
        notes = [getattr(self, name) for name, unusual in named.items() if unusual]
        return f"{frames} ≤ {self.max_pixels:,} px" + (f" ({', '.join(notes)})" if notes else "")


def _bad_argument(name: str, value: Any, why: str, hint: str | None = None) -> UsageError:
    return UsageError(f"model argument {name}={value} can't be used", why=why, next=hint)


def _whole(name: str, value: Any, default: int | None) -> int | None:
    if value is None:
        return default
    try:
        number = float(value)
        if isinstance(value, bool) or number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise _bad_argument(name, value, "it must be a whole number of at least 1") from None
    return int(number)


def _number(name: str, value: Any, default: float | None) -> float | None:
    if value is None:
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _bad_argument(name, value, "it must be a number, such as 1 or 0.5") from None


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is None or value < low:
        raise _bad_argument(name, value, f"it must be a whole number of at least {low}")


def _absent(name: str, value: Any, rule: Rule) -> None:
    if value is not None:
        raise _bad_argument(name, value, f"the frame rule `{rule}` does not take it")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise _bad_argument(name, value, f"it must be one of {', '.join(known)}", suggest(str(value), known))
