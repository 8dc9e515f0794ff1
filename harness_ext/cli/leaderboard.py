"""`mmla leaderboard`: all runs below a folder in one ranked table, among the published models."""

from __future__ import annotations

from pathlib import Path

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import MmlaError, UsageError


def main(arguments: list[str]) -> int:
    """Print the table, and write it where asked."""
    parser = Parser(prog="mmla leaderboard", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="searched with all folders below it")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="write it to a .csv or .html file too; may be given again",
    )
    args = parser.parse_args(arguments)
    for path in args.output:
        if path.suffix not in (".csv", ".html"):
            raise UsageError(f"--output {path} is neither .csv nor .html", next="--output leaderboard.html")
    from harness_ext.cli.run import console
    from harness_ext.reports.leaderboard import build_leaderboard, leaderboard_csv, print_leaderboard
    from harness_ext.reports.leaderboard_page import leaderboard_html

    board = build_leaderboard(args.folder)
    print_leaderboard(board, console())
    for path in args.output:
        _write(path, leaderboard_csv(board) if path.suffix == ".csv" else leaderboard_html(board))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise MmlaError("the leaderboard cannot be written", file=path, why=error.strerror or error) from None
    print(f"wrote {path}")
