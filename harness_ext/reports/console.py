"""The table at the end of a run, for a terminal or a log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness_ext.cli.progress import clock
from harness_ext.reports.fitting import fitting
from harness_ext.reports.table import Row, averages, notes, published_heading, rows

SPARE = ("published", "dimension", "majority", "agreement", "unparsed", "wF1")
"""What a narrow terminal does without, the first first; dimensions then stand on lines of their own."""


def print_scores(results: Mapping[str, Any], console: Console) -> None:
    """Print scores with their intervals, baselines and published neighbours, then what limits them."""
    shown = list(rows(results))
    table = fitting(console, lambda without: _table(results, shown, without), SPARE)
    console.print()
    console.print(table)
    if any(row.published for row in shown) and not any("published" in str(column.header) for column in table.columns):
        console.print("published rows of the same tasks: see the score card, or a wider terminal")
    for note in notes(results):
        console.print(Text(note))


def _table(results: Mapping[str, Any], shown: Sequence[Row], without: frozenset[str]) -> Table:
    beside = {} if "dimension" in without else {"": lambda row: row.dimension}
    figures: dict[str, Callable[[Row], str]] = {
        "acc": lambda row: spread(row.acc, row.acc_sd),
        "95 %": lambda row: interval(row.low, row.high),
        "wF1": lambda row: spread(row.weighted_f1, row.weighted_f1_sd),
        "mF1": lambda row: spread(row.macro_f1, row.macro_f1_sd),
        "unparsed": lambda row: "" if row.unparsed is None else f"{row.unparsed:.1f} %",
        "agreement": lambda row: f"{number(row.agreement)} %",
        "majority": lambda row: number(row.majority),
    }
    absent = without | (set() if any(row.agreement is not None for row in shown) else {"agreement"})
    figures = {name: cell for name, cell in figures.items() if name not in absent}
    published = any(row.published for row in shown) and "published" not in without
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading in (*beside, ""):
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    if published:
        table.add_column(published_heading(results), no_wrap=True)
    last = ""
    for row in shown:
        is_new, last = row.dimension != last, row.dimension
        if is_new and not beside:
            table.add_row(Text(row.dimension))
        name = [row.dimension if is_new else "", row.dataset] if beside else [f"  {row.dataset}"]
        aside = [row.published] if published else []
        table.add_row(*name, *(cell(row) for cell in figures.values()), *aside)
    for average in averages(results):
        bounds = "" if average.low is None or average.high is None else interval(average.low, average.high)
        name = [average.name, ""] if beside else [average.name]
        table.add_row(*map(Text, name), spread(average.acc, average.sd), bounds)
    return table


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
