"""Draw a clip: a face whose expression, gesture and colour tell the label's place in its list.

The code from label to look is arbitrary (a `joy` may frown): it can be learned from the train clips, not guessed.
Everything else in the picture (place, size, light, hair, shirt, grain, phase of the movement) varies with the row and
tells nothing.
"""

from __future__ import annotations

import colorsys
import importlib
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmla_tasks.errors import ClipError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw

SIDE = 112
"""Width and height of a clip in pixels: a multiple of 28 (patch 14, merged 2 x 2), so nothing need be resized."""
FRAMES = 12
FRAMES_PER_SECOND = 10
MAX_LABELS = 42
"""Seven expressions times six gestures."""

EXPRESSIONS = ("smile", "frown", "gasp", "flat", "grin", "smirk", "wavy")
GESTURES = ("left hand", "right hand", "both hands", "nod", "shake", "chin")
_HUES = 10
"""Head colours told apart at a glance; later labels get the same hues, darker."""
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""The first one that PyAV brings is used. Its wheels bring libx264."""
_OVERSAMPLING = 2
"""Pillow draws without antialiasing, so frames are drawn larger and reduced."""
_BROWS = {"smile": 0.0, "frown": 0.32, "gasp": -0.15, "flat": 0.0, "grin": -0.1, "smirk": 0.25, "wavy": -0.35}
"""Slope of the brows, positive when their inner ends are low."""
_EYES = {"smile": 0.8, "frown": 0.6, "gasp": 1.4, "flat": 0.35, "grin": 1.0, "smirk": 0.5, "wavy": 1.1}
"""Height of the eyes relative to their width."""

Colour = tuple[int, int, int]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """What tells the label."""

    expression: str
    """One of `EXPRESSIONS`: mouth, brows and eyes together."""
    gesture: str
    """One of `GESTURES`."""
    hue: float
    """Head colour, 0 to 1 around the colour wheel."""
    lightness: float
    """Head colour, 0 (black) to 1 (white)."""


@dataclass(frozen=True)
class Nuisance:
    """What differs from clip to clip and tells nothing. Lengths are fractions of the picture's side."""

    centre: tuple[float, float]
    radius: float
    phase: float
    """Where in its period the movement starts, in radians."""
    background: Colour
    shirt: Colour
    hair: Colour
    hair_height: float
    hue_shift: float
    grain: float
    """Standard deviation of the noise, in steps of 0 to 255."""


def look_of(index: int, num_labels: int) -> Look:
    """The look of label number `index` in a list of `num_labels`; no two labels share expression and gesture.

    >>> look_of(0, 2).expression, look_of(1, 2).expression
    ('smile', 'frown')
    """
    if not 0 <= index < num_labels <= MAX_LABELS:
        raise ValueError(f"label {index} of {num_labels}: the sample can tell at most {MAX_LABELS} labels apart")
    num_hues = min(num_labels, _HUES)
    return Look(
        expression=EXPRESSIONS[index % len(EXPRESSIONS)],
        gesture=GESTURES[(index % len(EXPRESSIONS) + index // len(EXPRESSIONS)) % len(GESTURES)],
        hue=index % num_hues / num_hues,
        lightness=0.68 - 0.12 * (index // num_hues),
    )


def nuisance_of(seed: str) -> Nuisance:
    """Draw the rest of the picture from a seed, such as ``MELD/105_3``."""
    rng = random.Random(f"mmla sample clip {seed}")
    return Nuisance(
        centre=(rng.uniform(0.46, 0.54), rng.uniform(0.42, 0.49)),
        radius=rng.uniform(0.22, 0.265),
        phase=rng.uniform(0, 2 * math.pi),
        background=_rgb(rng.random(), rng.uniform(0.15, 0.9), rng.uniform(0.0, 0.25)),
        shirt=_rgb(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.5)),
        hair=_rgb(rng.uniform(0.05, 0.12), rng.uniform(0.05, 0.55), rng.uniform(0.1, 0.6)),
        hair_height=rng.uniform(0.25, 0.5),
        hue_shift=rng.uniform(-0.012, 0.012),
        grain=rng.uniform(1.0, 5.0),
    )


def clip_frames(look: Look, seed: str) -> Iterator[NDArray[np.uint8]]:
    """Draw the frames of one clip, each uint8 [SIDE, SIDE, 3], RGB."""
    import numpy as np

    image = _need("PIL.Image")
    nuisance = nuisance_of(seed)
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed.encode(), "big")))
    grain = rng.normal(0, nuisance.grain, (SIDE, SIDE, 1)).astype(np.float32)
    for n in range(FRAMES):
        picture = _draw_frame(look, nuisance, n / FRAMES_PER_SECOND)
        small = np.asarray(picture.resize((SIDE, SIDE), image.Resampling.BOX), dtype=np.float32)
        yield np.clip(small + grain, 0, 255).astype(np.uint8)


def write_clip(path: Path, look: Look, seed: str) -> None:
    """Draw a clip and write it as MP4 (H.264, yuv420p, no sound), 1.2 s long.

    Raises:
        MissingExtraError: PyAV or Pillow is not installed.
        ClipError: this build of PyAV can encode none of the known codecs.
    """
    av = _need("av")
    encoder = encoder_name()
    options = {"crf": "20", "preset": "ultrafast"} if encoder == "libx264" else {}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.thread_count = 1  # the bytes must not depend on the number of cores
        for n, pixels in enumerate(clip_frames(look, seed)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def encoder_name() -> str:
    """The encoder that clips are written with: libx264 where PyAV has it."""
    codec = _need("av").codec
    for name in _ENCODERS:
        try:
            codec.Codec(name, "w")
        except ValueError:  # av.codec.codec.UnknownCodecError
            continue
        if name != _ENCODERS[0]:
            _log.warning("PyAV has no %s here; the sample's clips are encoded with %s", _ENCODERS[0], name)
        return name
    raise ClipError(f"PyAV has none of the encoders {', '.join(_ENCODERS)}", next="pip install --upgrade av")


def require_packages() -> None:
    """Raise now what `write_clip` would raise later, before anything is written."""
    for name in ("av", "PIL.Image", "PIL.ImageDraw"):
        _need(name)


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = "pillow" if name.startswith("PIL") else name
        raise MissingExtraError(package, extra="hf", purpose="drawing the sample's clips") from error


def _rgb(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = (round(255 * v) for v in colorsys.hls_to_rgb(hue % 1.0, lightness, saturation))
    return red, green, blue


def _draw_frame(look: Look, nuisance: Nuisance, seconds: float) -> Image.Image:
    """One frame at `_OVERSAMPLING` times the size: background, body, head, face, hands."""
    side = SIDE * _OVERSAMPLING
    picture: Image.Image = _need("PIL.Image").new("RGB", (side, side), nuisance.background)
    pen: ImageDraw.ImageDraw = _need("PIL.ImageDraw").Draw(picture)
    swing = math.sin(2 * math.pi * 1.6 * seconds + nuisance.phase)
    radius = nuisance.radius * side
    x, y = nuisance.centre[0] * side, nuisance.centre[1] * side
    _draw_body(pen, x, y, radius, nuisance)
    if look.gesture == "nod":
        y += 0.22 * radius * swing
    if look.gesture == "shake":
        x += 0.3 * radius * swing
    skin = _rgb(look.hue + nuisance.hue_shift, look.lightness, 0.75)
    _draw_head(pen, x, y, radius, skin, nuisance)
    _draw_eyes(pen, x, y, radius, look.expression)
    _draw_mouth(pen, x, y + 0.48 * radius, radius, look.expression)
    _draw_hands(pen, x, y, radius, swing, look.gesture, skin)
    return picture


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, **paint: Any) -> None:
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), **paint)


def _draw_body(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, nuisance: Nuisance) -> None:
    _circle(pen, x, y + 2.15 * radius, 1.25 * radius, 1.05 * radius, fill=nuisance.shirt)


def _draw_head(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, skin: Colour, nuisance: Nuisance) -> None:
    _circle(pen, x, y - nuisance.hair_height * radius, 1.02 * radius, radius, fill=nuisance.hair)
    _circle(pen, x, y + 0.08 * radius, 0.95 * radius, 1.05 * radius, fill=skin)


def _draw_eyes(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, expression: str) -> None:
    """Two eyes with pupils, and brows above them."""
    opening, slope = _EYES[expression], _BROWS[expression]
    line = max(2, round(0.11 * radius))
    for side in (-1, 1):
        eye_x, eye_y = x + side * 0.38 * radius, y - 0.1 * radius
        _circle(pen, eye_x, eye_y, 0.2 * radius, 0.2 * radius * opening, fill=(250, 250, 250))
        _circle(pen, eye_x, eye_y, 0.09 * radius, 0.09 * radius * min(1.4, 1.6 * opening), fill=(20, 20, 30))
        raised = eye_y - radius * (0.22 + 0.16 * opening)
        inner = (x + side * 0.16 * radius, raised + slope * 0.5 * radius)
        outer = (x + side * 0.62 * radius, raised - slope * 0.3 * radius)
        pen.line((*inner, *outer), fill=(30, 22, 18), width=line)


def _draw_mouth(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, expression: str) -> None:
    """The mouth, centred at (x, y)."""
    dark, width, line = (70, 10, 20), 0.45 * radius, max(2, round(0.13 * radius))
    match expression:
        case "smile":
            pen.arc((x - width, y - 0.55 * radius, x + width, y + 0.25 * radius), 20, 160, fill=dark, width=line)
        case "frown":
            pen.arc((x - width, y - 0.1 * radius, x + width, y + 0.6 * radius), 200, 340, fill=dark, width=line)
        case "gasp":
            _circle(pen, x, y + 0.08 * radius, 0.22 * radius, 0.3 * radius, fill=dark)
        case "flat":
            pen.line((x - width, y, x + width, y), fill=dark, width=line)
        case "grin":
            pen.chord((x - width, y - 0.5 * radius, x + width, y + 0.4 * radius), 0, 180, fill=(250, 250, 250))
            pen.chord((x - width, y - 0.5 * radius, x + width, y + 0.4 * radius), 0, 180, outline=dark, width=line // 2)
        case "smirk":
            pen.line((x - width, y + 0.12 * radius, x, y + 0.08 * radius), fill=dark, width=line)
            pen.line((x, y + 0.08 * radius, x + width, y - 0.22 * radius), fill=dark, width=line)
        case "wavy":
            points = [(x + width * (k / 8 - 1), y + 0.13 * radius * math.sin(k * math.pi / 4)) for k in range(17)]
            pen.line(points, fill=dark, width=line, joint="curve")


def _draw_hands(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, swing: float, gesture: str, skin: Colour
) -> None:
    """Raised hands wave beside the head; a hand on the chin stays. Left and right are the picture's."""
    sides = {"left hand": (-1,), "right hand": (1,), "both hands": (-1, 1)}.get(gesture, ())
    sleeve = max(3, round(0.28 * radius))
    for side in sides:
        hand_x, hand_y = x + side * (1.3 + 0.12 * swing) * radius, y - (0.15 + 0.12 * swing) * radius
        pen.line((x + side * 0.95 * radius, y + 1.9 * radius, hand_x, hand_y), fill=skin, width=sleeve)
        _draw_palm(pen, hand_x, hand_y, radius, skin)
    if gesture == "chin":
        hand_y = y + (1.25 + 0.05 * swing) * radius
        pen.line((x + 0.8 * radius, y + 2.0 * radius, x + 0.15 * radius, hand_y), fill=skin, width=sleeve)
        _draw_palm(pen, x + 0.1 * radius, hand_y, radius, skin)


def _draw_palm(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, skin: Colour) -> None:
    """A palm with four fingers, outlined so that it stands out from a face of the same colour."""
    outline = (40, 30, 30)
    for k in range(4):
        finger_x = x + (k - 1.5) * 0.14 * radius
        _circle(pen, finger_x, y - 0.27 * radius, 0.08 * radius, 0.2 * radius, fill=skin, outline=outline)
    _circle(pen, x, y, 0.29 * radius, 0.26 * radius, fill=skin, outline=outline, width=2)
