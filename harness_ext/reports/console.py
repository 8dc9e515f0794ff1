"""The table at the end of a run, for a terminal or a log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness_ext.cli.progress import clock
from harness_ext.reports.table import averages, notes, published_heading, rows

ROOM_FOR_PUBLISHED = 125
"""Columns that a terminal needs for the published rows; narrower ones get the table without them."""


def print_scores(results: Mapping[str, Any], console: Console) -> None:
    """Print scores with their intervals, baselines and published neighbours, then what limits them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = list(rows(results))
    repeated = any(row.agreement is not None for row in shown)
    agreement = ["agreement"] if repeated else []
    for heading in ("acc", "95 %", "wF1", "mF1", "unparsed", *agreement, "majority"):
        table.add_column(heading, justify="right", no_wrap=True)
    comparable = any(row.published for row in shown)
    beside = comparable and console.width >= ROOM_FOR_PUBLISHED
    if beside:
        table.add_column(published_heading(results), no_wrap=True)
    last = ""
    for row in shown:
        dimension = row.dimension if row.dimension != last else ""
        last = row.dimension
        table.add_row(
            dimension,
            row.dataset,
            spread(row.acc, row.acc_sd),
            interval(row.low, row.high),
            spread(row.weighted_f1, row.weighted_f1_sd),
            spread(row.macro_f1, row.macro_f1_sd),
            "" if row.unparsed is None else f"{row.unparsed:.1f} %",
            *([f"{number(row.agreement)} %"] if repeated else []),
            number(row.majority),
            *([row.published] if beside else []),
        )
    for average in averages(results):
        bounds = "" if average.low is None or average.high is None else interval(average.low, average.high)
        table.add_row(Text(average.name), "", spread(average.acc, average.sd), bounds)
    console.print()
    console.print(table)
    if comparable and not beside:
        console.print("published rows of the same tasks: see the score card, or a terminal of 125 columns")
    for note in notes(results):
        console.print(Text(note))


def number(value: float | None) -> str:
    """One decimal, or a dash for what cannot be said, such as the majority of no rows."""
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def spread(value: float | None, sd: float | None) -> str:
    """Such as ``56.8``, or ``56.8 ± 1.2`` where there are repeats."""
    return number(value) if sd is None else f"{number(value)} ± {sd:.1f}"


def interval(low: float, high: float) -> str:
    """Such as ``52.2–61.4``."""
    return f"{low:.1f}–{high:.1f}"


def time_line(timings: Mapping[str, Any], elapsed_seconds: float) -> str:
    """Where the time went, such as ``time 8:47: tasks 1.2 s, load 21.0 s, answer 500.1 s (decode 362.0 s, ...)``.

    Args:
        timings: That block of the results. Stages of answering overlap: clips are decoded while the model works.
        elapsed_seconds: Of the whole command.
    """
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in timings["stages of answer"].items())
    laps = ", ".join(
        f"{name} {timings[name]:.1f} s{f' ({stages})' if name == 'answer' and stages else ''}"
        for name in ("tasks", "load", "answer", "score")
    )
    rate = timings["questions a second"]
    return f"time {clock(elapsed_seconds)}: {laps}" + ("" if rate is None else f"; {rate:,.1f} questions a second")
