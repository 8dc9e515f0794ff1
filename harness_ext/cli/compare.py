"""`mmla compare A B`: two runs of the same rows, paired: which is better, by how much, and how sure that is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from harness_ext.reports.comparison import RunComparison

WIDTH = 200
"""Columns that the widest table may take."""

EPILOG = """\
examples:
  mmla compare runs/qwen2vl runs/qwen2vl-sft
  mmla compare runs/text runs/video --output comparison.html
"""


def main(arguments: list[str]) -> int:
    """Compare; refused runs are told as a fault."""
    args = _parser().parse_args(arguments)
    formats = [_format(path) for path in args.output]

    from harness_ext.reports.bundle import opened_run
    from harness_ext.reports.comparison import as_html, as_markdown, compare_runs

    with opened_run(args.first) as first, opened_run(args.second) as second:
        compared = compare_runs(first, second, anyway=args.anyway)
        _print(compared)
        for path, kind in zip(args.output, formats, strict=True):
            _write(path, as_html(compared) if kind == ".html" else as_markdown(compared))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mmla compare",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="A", type=Path, help="a run folder or a bundle")
    parser.add_argument("second", metavar="B", type=Path, help="the other one")
    parser.add_argument(
        "--anyway", action="store_true", help="compare the common rows of runs that are not comparable, and say so"
    )
    parser.add_argument(
        "--output", "-o", metavar="FILE", type=Path, action="append", default=[], help="write FILE.md or FILE.html"
    )
    return parser


def _format(path: Path) -> str:
    if path.suffix not in (".md", ".html"):
        raise UsageError(f"--output {path} is neither Markdown nor HTML", next="name a file that ends in .md or .html")
    return path.suffix


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError("the comparison cannot be written", file=path, why=error.strerror or error) from None
    print(f"wrote {path}")


def _print(compared: RunComparison) -> None:
    from rich.console import Console
    from rich.text import Text

    from harness_ext.reports.comparison import caveats, method, verdict

    # Wide enough for the whole table; a narrow terminal wraps it, a log or a pipe keeps it.
    console = Console(soft_wrap=True, highlight=False, width=WIDTH)
    for name, run in (("A", compared.first), ("B", compared.second)):
        console.print(Text(f"{name}   {run.model}   {run.where}"))
    for caveat in caveats(compared):
        console.print(Text(caveat))
    _print_differences(compared, console)
    _print_table(compared, console)
    console.print(Text(verdict(compared)))
    console.print()
    for sentence in method(compared):
        console.print(Text(sentence))


def _print_differences(compared: RunComparison, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print()
    if not compared.differs:
        console.print("the runs differ in nothing that is recorded")
        return
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading in ("the runs differ in", "A", "B"):
        grid.add_column(heading, overflow="fold", max_width=60)
    for item in compared.differs:
        grid.add_row(Text(item.name), Text(item.first), Text(item.second))
    console.print(grid)


def _print_table(compared: RunComparison, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from harness_ext.reports.comparison import HEADINGS, table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for n, heading in enumerate(HEADINGS):
        grid.add_column(heading, justify="left" if n < 2 else "right", no_wrap=True)
    last = ""
    for dimension, *cells in table(compared):
        grid.add_row(*map(Text, ("" if dimension == last else dimension, *cells)))
        last = dimension
    console.print()
    console.print(grid)
    console.print()
