"""What a picture of a report is: a drawn matplotlib figure as PNG and SVG files, and as an SVG element of the page.

Colours have roles: in files they are those of the light page; in the page they become its CSS variables, so that
pictures follow it into the dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmla_tasks.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Picture:
    """A drawn figure."""

    name: str
    """File name without suffix, and the anchor in the page."""
    title: str
    description: str
    """What it shows, for those who do not see it."""
    svg: str
    """A whole SVG file."""
    png: bytes

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>.svg`` and ``<name>.png``."""
        paths = [folder / f"{self.name}.svg", folder / f"{self.name}.png"]
        paths[0].write_text(self.svg, encoding="utf-8", newline="\n")
        paths[1].write_bytes(self.png)
        return paths

    @property
    def inline(self) -> str:
        """The SVG element for a page: themed, labelled, its ids its own."""
        return _inline(self)


INK, MUTED, GRID, PAPER = "#1d2329", "#5c6670", "#d9dee3", "#fdfcfa"
OURS, OTHER, BAND, CELL = "#1f5c99", "#a8500f", "#c6cfd8", "#74a7dc"
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", OURS: "ours", OTHER: "other", BAND: "band", CELL: "cell",
}  # fmt: skip
"""Role of each colour: the name of its CSS variable."""

_STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text: sharp, small, and in the page's own type
    "svg.hashsalt": "mmla",
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def require_matplotlib() -> None:
    """Say how to install it where it is missing.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", extra="report", purpose="mmla report") from None


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in one style, apart from the user's settings."""
    import warnings

    import matplotlib

    with matplotlib.rc_context(dict(_STYLE)), warnings.catch_warnings():
        # A script that matplotlib's own type lacks: boxes in the PNG, right in the SVG, which names no font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def empty(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Canvas, Any]:
    """An empty figure of a size in inches, apart from pyplot's global state."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), layout="constrained")
    return canvas, canvas.subplots(rows, columns, **options)


def finished(canvas: Canvas, name: str, title: str, description: str) -> Picture:
    """Render a figure; equal figures give equal bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    canvas.savefig(svg, format="svg", facecolor=PAPER, metadata={"Date": None, "Creator": None})
    canvas.savefig(png, format="png", dpi=144, facecolor=PAPER, metadata={"Software": None})
    return Picture(name, title, description, svg.getvalue(), png.getvalue())


def rgb(colour: str) -> tuple[float, float, float]:
    """Channels from 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


# ── from a file to an element of the page ─────────────────────────────────────────────────────────────────────────

_FAMILY = re.compile(r" font-family: [^;\"]*;")
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^)"]+)')


def _inline(picture: Picture) -> str:
    body = picture.svg[picture.svg.index("<svg") :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL
    )  # its rules would be all the page's
    opening, inner = body.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', opening)
    assert box is not None
    width = float(box[1].split()[2]) * 4 / 3  # from points
    least = min(width, max(480, 0.8 * width))  # below, its text could not be read: it scrolls instead
    title, description = f"{picture.name}-title", f"{picture.name}-desc"
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box[1]}" width="{width:.0f}" style="min-width: {least:.0f}px" '
        f'role="img" aria-labelledby="{title} {description}">'
        f'<title id="{title}">{escape(picture.title)}</title>'
        f'<desc id="{description}">{escape(picture.description)}</desc>'
    )
    return head + _themed(_own_ids(inner, picture.name)).strip()


def _own_ids(svg: str, name: str) -> str:
    """Ids that are referred to get the picture's name before them; the others go."""
    used = {match[2] for match in _REFERENCE.finditer(svg)}
    svg = _ID.sub(lambda match: f'id="{name}-{match[1]}"' if match[1] in used else "", svg)
    return _REFERENCE.sub(lambda match: f"{match[1]}{name}-{match[2]}", svg)


def _themed(svg: str) -> str:
    """Colours as variables of the page, type as the page's own, numbers no longer than anybody can see."""
    svg = re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match[0]]})", svg, flags=re.IGNORECASE)
    svg = _FAMILY.sub("", svg)
    svg = _TAG.sub(lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), svg)  # texts keep their digits
    return re.sub(r"\s*\n\s*", "\n", svg)
