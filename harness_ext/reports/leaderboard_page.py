"""The leaderboard as one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from harness_ext.reports.benchmark import task_ids
from harness_ext.reports.console import interval, number
from harness_ext.reports.leaderboard import Leaderboard, Ranked, explanation, method_name, rank_range
from mmla_tasks.published import source

_WIDTH = 160
"""Of the interval pictures, in pixels."""
_MARGIN = 6


@dataclass(frozen=True)
class _Group:
    """One method's table, with the scale of its interval pictures."""

    id: str
    name: str
    lines: Sequence[Ranked]

    @property
    def runs(self) -> int:
        return sum(not line.entry.is_published for line in self.lines)

    @property
    def published(self) -> int:
        return len(self.lines) - self.runs

    @property
    def scale(self) -> str:
        return interval(*self._ends())

    def at(self, percent: float) -> str:
        """Where a score stands in its picture."""
        low, high = self._ends()
        share = (percent - low) / (high - low) if high > low else 0.5
        return f"{_MARGIN + share * (_WIDTH - 2 * _MARGIN):.1f}"

    def _ends(self) -> tuple[float, float]:
        return min(line.entry.low for line in self.lines), max(line.entry.high for line in self.lines)


def leaderboard_html(board: Leaderboard) -> str:
    """Lay the leaderboard out; names and paths are shown as text, whatever they hold."""
    files = resources.files("harness_ext.reports")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files.joinpath("leaderboard.html.j2").read_text(encoding="utf-8"))
    return template.render(
        css=Markup(files.joinpath("page.css").read_text(encoding="utf-8")),  # our own file
        explanation=explanation(board),
        groups=[_Group(method, method_name(method), lines) for method, lines in board.groups.items()],
        datasets=list(task_ids().values()),
        unranked=board.unranked,
        source=source(),
        number=number,
        interval=interval,
        rank_range=rank_range,
    )
