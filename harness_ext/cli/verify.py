"""`mmla verify RUN`: recompute every number of a run folder or a bundle from its samples, and look up every digest.

Exit status: 0 all claims hold, 1 some deviate (each is listed), 2 there is nothing that could be verified.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.cli.parser import Parser
from mmla_tasks.root import DATA_DIR_VARIABLE, DataRoot

if TYPE_CHECKING:
    from harness_ext.reports.verification import Check

SHOWN = 20
"""Deviations of one kind that are listed unless all are asked for."""


def main(arguments: list[str]) -> int:
    """Verify one run."""
    args = _parser().parse_args(arguments)

    from harness_ext.reports.bundle import opened_run
    from harness_ext.reports.verification import remarks, verify

    with opened_run(args.run) as run:
        root = _data_root(args.data_dir, run.facts["data"]["root"])
        checks = verify(run, root, args.include_path)
        samples = sum(map(len, run.samples.values()))
        print(f"{args.run}   {run.model}   {len(run.tasks)} tasks, {samples:,} samples   data: {_named(root)}")
        for line in remarks(run):
            print(line)
    _print_table(checks)
    _print_lines(checks, None if args.all else SHOWN)
    return 1 if any(check.deviations for check in checks) else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mmla verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a file of `mmla report --bundle`")
    parser.add_argument(
        "--data_dir", metavar="PATH", help="data root to check against; else the run's own, else MMLA_DATA_DIR"
    )
    parser.add_argument(
        "--include_path", metavar="FOLDER", action="append", default=[], type=Path, help="further folder of task YAMLs"
    )
    parser.add_argument("--all", action="store_true", help=f"list all deviations of a kind, not the first {SHOWN}")
    return parser


def _data_root(given: str | None, recorded: Mapping[str, Any] | None) -> DataRoot | None:
    """The data to check against; nothing is fetched."""
    if given:
        return DataRoot.choose(given)
    if recorded and (
        recorded["kind"] == "sample" or (recorded["kind"] == "folder" and Path(recorded["given"]).is_dir())
    ):
        return DataRoot.choose(recorded["given"])
    return DataRoot.choose() if os.environ.get(DATA_DIR_VARIABLE) else None


def _named(root: DataRoot | None) -> str:
    return "none at hand" if root is None else root.given


def _print_table(checks: Sequence[Check]) -> None:
    width = max(len(check.what) for check in checks)
    print(f"\n{'':<20} {'':<{width}}   compared   deviations")
    for check in checks:
        partly = "   not all could be checked" if check.unchecked else ""
        found = f"{len(check.deviations):,}" if check.deviations else "–" if check.compared else ""
        print(f"{check.name:<20} {check.what:<{width}} {check.compared:>10,} {found:>12}{partly}")


def _print_lines(checks: Sequence[Check], shown: int | None) -> None:
    count = sum(len(check.deviations) for check in checks)
    if unchecked := [(check.name, line) for check in checks for line in check.unchecked]:
        print("\nnot checked")
        for name, line in unchecked:
            print(f"  {name}: {line}")
    if count:
        print("\ndeviations")
        for check in checks:
            for line in check.deviations[:shown]:
                print(f"  {check.name}: {line}")
            if shown is not None and len(check.deviations) > shown:
                print(f"  {check.name}: and {len(check.deviations) - shown:,} more; --all lists them")
    compared = sum(check.compared for check in checks)
    held = "all hold" if not count else f"{count:,} deviation{'s' * (count > 1)}"
    print(f"\n{compared:,} claims compared: {held}{', of what could be checked' if unchecked and not count else ''}")
