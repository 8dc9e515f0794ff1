"""`mmla data import iemocap|mosi PATH`: give the rows of the data root their clips, from what the owners hand out.

Nothing is re-encoded and, on one disk, nothing is copied: files are shared by hard link. Of IEMOCAP one import serves
IEMOCAP and IEMOCAP-DA; its dialogues stay whole, and video/segments.tsv says when each utterance is spoken. The command
can be interrupted and repeated. Exit status: 0 every row has its clip, 1 some have none (each is listed), 2 nothing
could be imported.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness_ext.cli.data import add_data_dir, data_folder
from harness_ext.cli.parser import Parser
from harness_ext.session import on_this_root

if TYPE_CHECKING:
    from harness_ext.imports.distributions import Distribution, Reader
    from harness_ext.imports.matching import Wanted
    from harness_ext.imports.placing import How, Placed

SHOWN = 10
"""Rows of one kind that are listed unless all are asked for."""


class _Known(NamedTuple):
    """A distribution that can be imported."""

    title: str
    folders: tuple[str, ...]
    """Dataset folders that get their clips from it."""
    reader: Callable[[], Reader]


def _iemocap() -> Reader:
    from harness_ext.imports.iemocap import read_iemocap

    return read_iemocap


def _mosi() -> Reader:
    from harness_ext.imports.mosi import read_mosi

    return read_mosi


_KNOWN = {
    "iemocap": _Known("IEMOCAP", ("IEMOCAP", "IEMOCAP-DA"), _iemocap),
    "mosi": _Known("CMU-MOSI", ("MOSI",), _mosi),
}


def main(arguments: list[str]) -> int:
    """Import one distribution, or say what would be imported."""
    args = _parser().parse_args(arguments)
    known, root = _KNOWN[args.distribution], data_folder(args.data_dir)

    from harness_ext.imports.matching import check_lengths, files_to_check, wanted_of
    from harness_ext.imports.placing import WHOLE

    wanted = wanted_of(root, known.folders)
    with _progress("reading") as bar:
        imported = [one.dataset.clips / WHOLE for one in wanted]  # the root may lie below PATH
        found = known.reader()(args.path, {id: None for one in wanted for id in one.ids}, imported)
        check_lengths(found, args.workers, bar(files_to_check(found)))
    print(f"{known.title}   {found.holds}   {found.folder}")
    placed = None if args.dry_run else _place(found, wanted, args.workers)
    _print_rows(found, wanted)
    for folder in set(known.folders) - {one.dataset.name for one in wanted}:
        step = on_this_root(f"mmla data download {folder} --texts_only", args.data_dir)
        print(f"{folder} gets none: {root / folder} holds no texts      {step}")
    _print_oddities(found, wanted, placed, None if args.all else SHOWN)
    _print_end(placed, args)
    return 1 if found.faults or (placed and placed.kept) else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mmla data import",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("distribution", choices=_KNOWN, help="whose layout PATH has")
    parser.add_argument("path", metavar="PATH", type=Path, help="the distribution's folder, or one in or around it")
    add_data_dir(parser)
    parser.add_argument("--dry_run", action="store_true", help="list what matches and what is missing; write nothing")
    parser.add_argument(
        "--workers", metavar="N", type=_count, default=os.cpu_count() or 2, help="files at once (default: cores)"
    )
    parser.add_argument("--all", action="store_true", help=f"list all rows of a kind, not the first {SHOWN}")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1")
    return count


def _place(found: Distribution, wanted: Sequence[Wanted], workers: int) -> Placed:
    from harness_ext.imports.placing import place_all, targets_of

    with _progress("placing") as bar:
        return place_all(found, wanted, workers, bar(len(targets_of(found, wanted))))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar on a terminal, nothing elsewhere: called with the number of files, it gives what counts one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def bar(total: int) -> Callable[[], None]:
            task = bars.add_task(what, total=total)
            return lambda: bars.advance(task)

        yield bar


def _print_rows(found: Distribution, wanted: Sequence[Wanted]) -> None:
    width = max(len(one.dataset.name) for one in wanted)
    print(f"\n{'':<{width}}            rows     clips   missing")
    for one in wanted:
        for n, (split, rows) in enumerate(one.splits.items()):
            name = one.dataset.name if n == 0 else ""
            clips = sum(id in found.pieces for id in rows)
            missing = f"{len(rows) - clips:,}" if clips < len(rows) else "–"
            print(f"{name:<{width}}   {split:<5} {len(rows):>8,} {clips:>9,} {missing:>9}")


def _print_oddities(found: Distribution, wanted: Sequence[Wanted], placed: Placed | None, shown: int | None) -> None:
    from harness_ext.imports.matching import compared_texts

    _print_by_reason("missing", found.faults, shown)
    _print_by_reason("cut short by the end of the file", found.remarks, shown)
    compared, differing = compared_texts(found, wanted)
    if compared:
        agree = compared - len(differing)
        print(f"\ntexts   {agree:,} of {compared:,} agree with the distribution's transcripts")
        if differing:
            _print_listed("differ in most of their words", differing, shown)
        if agree < 0.9 * compared:
            print("so many differ that clips may be taken for others: look at some of them before a run")
    if found.unused:
        files = "1 file" if len(found.unused) == 1 else f"{len(found.unused):,} files"
        _print_listed(f"\nnot used: {files} that no row is in", found.unused, shown)
    if placed and placed.packed:
        _print_listed(
            "\nleft packed: their clips are read slowly; the next import tries again",
            [f"{path}: {why}" for path, why in placed.packed.items()],
            shown,
        )
    if placed and placed.kept:
        _print_listed("\nleft alone: other videos of these names were there; delete them to import", placed.kept, shown)


def _print_by_reason(title: str, reasons: Mapping[str, str], shown: int | None) -> None:
    """List ids below why; many rows of one dialogue have one reason."""
    if not reasons:
        return
    print(f"\n{title}: {len(reasons):,} row{'s' * (len(reasons) > 1)}")
    counts = Counter(reasons.values()).most_common()
    for why, count in counts[:shown]:
        ids = [id for id, reason in reasons.items() if reason == why]
        listed = ", ".join(ids[:3] if shown else ids) + (f" and {count - 3:,} more" if shown and count > 3 else "")
        print(f"  {why}: {listed}")
    if shown and len(counts) > shown:
        print(f"  and {sum(count for _, count in counts[shown:]):,} rows more; --all lists them")


def _print_listed(title: str, things: Sequence[object], shown: int | None) -> None:
    print(title)
    for thing in things[:shown]:
        print(f"  {thing}")
    if shown and len(things) > shown:
        print(f"  and {len(things) - shown:,} more; --all lists them")


def _print_end(placed: Placed | None, args: argparse.Namespace) -> None:
    if placed is None:
        again = on_this_root(f"mmla data import {args.distribution} {shlex.quote(str(args.path))}", args.data_dir)
        print(f"\ndry run: nothing was written      {again}")
        return
    words: dict[How, str] = {
        "linked": "shared by hard link",
        "copied": "copied",
        "unpacked": "copied with their pictures unpacked",
        "packed": "left packed",
        "there": "there before",
    }
    done = [f"{placed.files[how]:,} {word}" for how, word in words.items() if placed.files[how]]
    print(f"\nfiles   {', '.join(done) or 'none'}")
