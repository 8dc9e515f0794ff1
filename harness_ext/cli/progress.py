"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from harness_ext.requests import Response

LINE_EVERY_SECONDS = 10.0
"""How often a line is printed when nobody watches a terminal."""


class _Rate(ProgressColumn):
    """Answers per second since the start, those of the journal left out, and the time left."""

    def render(self, task: Task) -> Text:
        elapsed, done = task.elapsed or 0.0, task.completed - task.fields["found"]
        if done <= 0 or elapsed <= 0:
            return Text("")
        rate = done / elapsed
        left = ((task.total or 0) - task.completed) / rate
        return Text(f"{rate:,.1f}/s   {clock(left)} left" if left > 0 else f"{rate:,.1f}/s")


class RunProgress:
    """One bar for all tasks and one for the task at hand."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self._bars: Progress | None = None

    def start(self, totals: Mapping[str, int], found: Mapping[str, int]) -> None:
        """Begin, given requests and already journaled answers per task."""
        self._began = self._said = time.monotonic()
        self._totals, self._done = dict(totals), dict(found)
        self._all, self._count = sum(totals.values()), sum(found.values())
        self._found = self._count
        if self._count:
            self.console.print(f"{self._count:,} answers found in the journal, {self._all - self._count:,} to go")
        if self.live and self._count < self._all:
            self._start_bars()

    def advance(self, task: str, response: Response) -> None:
        """Count one answer."""
        self._count += 1
        self._done[task] = self._done.get(task, 0) + 1
        if self._bars is not None:
            self._advance_bars(task)
        elif time.monotonic() - self._said >= LINE_EVERY_SECONDS:
            self._say(task)

    def stop(self) -> None:
        """End, also after an error."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _start_bars(self) -> None:
        name = TextColumn("{task.description}")
        self._bars = Progress(name, BarColumn(), MofNCompleteColumn(), _Rate(), console=self.console)
        self._bars.start()
        self._ids: dict[str, Any] = {}
        self._everything = self._bars.add_task("all tasks", total=self._all, completed=self._found, found=self._found)

    def _advance_bars(self, task: str) -> None:
        assert self._bars is not None
        if task not in self._ids:
            found = self._done[task] - 1
            self._ids[task] = self._bars.add_task(task, total=self._totals[task], completed=found, found=found)
        self._bars.advance(self._ids[task])
        self._bars.advance(self._everything)
        if self._done[task] >= self._totals[task]:
            self._bars.update(self._ids[task], visible=len(self._totals) <= 4)

    def _say(self, task: str) -> None:
        self._said = time.monotonic()
        rate = (self._count - self._found) / (self._said - self._began)
        left = clock((self._all - self._count) / rate)
        where = f"{task} {self._done[task]:,}/{self._totals[task]:,}"
        self.console.print(f"{where}   all {self._count:,}/{self._all:,}   {rate:,.1f}/s   {left} left")


def clock(seconds: float) -> str:
    """Such as ``6:29`` or ``1:02:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
