"""Tables that leave columns out rather than cut a figure where a terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table


def fitting(console: Console, make: Callable[[frozenset[str]], Table], spare: Sequence[str]) -> Table:
    """The fullest table that a console is wide enough for.

    Args:
        console: Where it is printed.
        make: Makes the table without some of `spare`.
        spare: What can be left out, the first first.
    """
    anywhere = console.options.update_width(10_000)
    for count in range(len(spare) + 1):
        table = make(frozenset(spare[:count]))
        if console.measure(table, options=anywhere).maximum <= console.width:
            break
    return table
