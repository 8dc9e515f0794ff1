"""`mmla data download`: texts and clips of the benchmark from the Hub, in the layout that the tasks read.

Without names all twelve datasets are fetched (about 50 GB; the texts alone are a few MB). The command can be
interrupted at any point and repeated: it goes on where it stopped. Exit status: 0 everything is there, 1 an archive
held no clip, or members that were left out (each is listed, and again when repeated), 2 it could not be done.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from harness_ext.cli.data import add_data_dir, data_folder
from harness_ext.cli.parser import Parser
from harness_ext.session import on_this_root

if TYPE_CHECKING:
    from harness_ext.downloads import Outcome, Progress, Remote, Wanted

SHOWN = 20
"""Members or clips of one kind that are listed."""

EPILOG = """\
examples:
  mmla data download MELD MIntRec --data_dir /data/mmla
  mmla data download --texts_only
  mmla data download MELD --repair      # clips that are missing, empty or changed
"""


def main(arguments: list[str]) -> int:
    """Download, and say what came."""
    args = _parser().parse_args(arguments)

    from harness_ext.downloads import Wanted, chosen, download, look_up

    wanted = Wanted(
        datasets=chosen(args.datasets),
        root=data_folder(args.data_dir, make=True),
        revision=args.data_revision,
        texts_only=args.texts_only,
        repair=args.repair,
        remove_archives=args.remove_archives,
    )
    remote = look_up(wanted.revision)
    print(_plan(wanted, remote), flush=True)
    odd = 0
    try:
        for outcome in download(wanted, remote, _progress()):
            print("\n".join(_lines(outcome)), flush=True)
            odd += len(outcome.extracted.refused) + len(outcome.extracted.differs) + len(outcome.without_clips)
    except KeyboardInterrupt as error:
        error.add_note("the same command goes on where it stopped")
        raise
    print(f"next: {on_this_root('mmla data status', args.data_dir)}")
    return 1 if odd else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mmla data download",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datasets", metavar="DATASET", nargs="*", help="folders such as MELD; all twelve by default")
    add_data_dir(parser)
    parser.add_argument("--data_revision", metavar="REV", help="commit, tag or branch of the Hub dataset")
    parser.add_argument("--texts_only", action="store_true", help="no video archives")
    parser.add_argument("--repair", action="store_true", help="extract again, and replace clips that are not as packed")
    parser.add_argument("--remove_archives", action="store_true", help="delete each archive once its clips are out")
    return parser


def _plan(wanted: Wanted, remote: Remote) -> str:
    import shutil

    from rich.filesize import decimal

    from harness_ext.downloads import needed_bytes
    from mmla_tasks.sources import HUB_REPOSITORY

    needed = needed_bytes(wanted, remote)
    free = shutil.disk_usage(wanted.root).free
    return (
        f"{HUB_REPOSITORY} @ {remote.commit[:7]}   into {wanted.root}\n"
        f"{decimal(needed.fetch)} to fetch, {decimal(needed.clips)} of clips to extract, {decimal(free)} free"
    )


def _lines(outcome: Outcome) -> list[str]:
    from mmla_tasks.documents import CLIP_SUFFIXES
    from mmla_tasks.sources import SOURCES

    out, source = outcome.extracted, SOURCES[outcome.dataset]
    came = f"{out.written:,} clips extracted, {out.kept:,} were there" if outcome.archives else ""
    if not outcome.archives:
        came = "nothing new" if source.videos_published else f"clips are not published: {source.next_step_for_videos}"
    lines = [f"{outcome.dataset:<17} {outcome.texts} texts   {came}"]
    lines += [
        f"  {name} holds no clip ({', '.join(CLIP_SUFFIXES)}); --data_revision names another commit"
        for name in outcome.without_clips
    ]
    lines += _listed("left out", [f"{member[:200]}: {why}" for member, why in out.refused.items()])
    lines += _listed("kept as it was, though the archive's has another size (--repair replaces it)", out.differs)
    return lines


def _listed(what: str, names: list[str]) -> list[str]:
    more = [f"  and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return [*(f"  {what}: {name}" for name in names[:SHOWN]), *more]


def _progress() -> Progress:
    from harness_ext.downloads import Progress, Said

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return Progress(say=say, bar=None if sys.stderr.isatty() else _line_bar(), extracting=Said(say))


def _line_bar() -> type[Any]:
    """A tqdm that prints a line every ten seconds, where nobody watches a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class LineBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "mininterval": 10.0, "delay": 10.0})

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            print(msg or self, file=sys.stderr, flush=True)

        def close(self) -> None:
            self.disable = True

    return LineBar
