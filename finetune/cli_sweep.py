"""`mmla finetune sweep`: train every cell of a grid and tell which answers dev best; typed again, it goes on."""

from __future__ import annotations

from pathlib import Path

from finetune.sweep import Cell, notes, read_sweep, results, run_sweep, table, write_report
from harness_ext.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Run a sweep.

    Returns:
        0 when every cell is finished, 1 when some failed.
    """
    parser = Parser(prog="mmla finetune sweep", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml", help="config, grid, output_dir, launch")
    parser.add_argument(
        "--dry_run", action="store_true", help="check the keys of every cell and show the table; train nothing"
    )
    args = parser.parse_args(arguments)

    from rich.console import Console

    console = Console()
    sweep = read_sweep(args.sweep)

    def tell(number: int, cell: Cell, what: str) -> None:
        console.print(f"{number}/{len(sweep.cells)}  {cell.folder.name}  {what}", highlight=False, soft_wrap=True)

    found = results(sweep) if args.dry_run else run_sweep(sweep, tell)
    console.print(table(found, sweep.metric), soft_wrap=True)
    for note in notes(sweep):
        console.print(note, highlight=False)
    failed = sum(result.status == "failed" for result in found)
    if args.dry_run:
        return 0
    console.print(
        f"wrote {write_report(sweep)}" + (f"; {failed} failed, the same command tries them again" if failed else "")
    )
    return 1 if failed else 0
