"""Progress of a fine-tuning run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from finetune.selection import Look
from finetune.trainer import Reporter
from harness_ext.cli.progress import LINE_EVERY_SECONDS, clock

SMOOTHING = 0.1
"""Weight of the newest step in the loss that is shown."""


class RunReporter(Reporter):
    """Shows loss, accuracy on dev and the time left.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._loss: float | None = None
        self._acc = ""

    def start(self, step: int, steps: int) -> None:
        """Begin at a step."""
        self._first, self._steps = step, steps
        self._began = self._said = time.monotonic()
        if step:
            self.say(f"going on from step {step} of {steps}")
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=self.console
            )
            self._bar.start()
            self._task: Any = self._bar.add_task("training", total=steps, completed=step)

    def step(self, step: int, loss: float, rate: float) -> None:
        """One optimizer step is done."""
        self._loss = loss if self._loss is None else (1 - SMOOTHING) * self._loss + SMOOTHING * loss
        left = (time.monotonic() - self._began) / (step - self._first) * (self._steps - step)
        text = f"loss {self._loss:.3f}{self._acc}   {clock(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif time.monotonic() - self._said >= LINE_EVERY_SECONDS or step == self._steps:
            self._said = time.monotonic()
            self.console.print(f"step {step:,}/{self._steps:,}   {text}", highlight=False)

    def looked(self, look: Look, best: bool) -> None:
        """Dev was looked at."""
        self._acc = f"   dev acc {100 * look.acc:.1f} %"
        note = "   best so far" if best else ""
        self.say(
            f"step {look.step:,}   dev: acc {100 * look.acc:.1f} %   macro F1 {100 * look.macro_f1:.1f} %"
            f"   ({look.rows} rows, {look.seconds:.1f} s){note}"
        )

    def say(self, line: str) -> None:
        """Anything else, in a line that a narrow terminal may wrap."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """End, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
