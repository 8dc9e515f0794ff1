"""`mmla data VERB`: what the data root holds, and how more comes into it."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import UsageError
from mmla_tasks.places import download_folder
from mmla_tasks.root import DATA_DIR_VARIABLE

VERBS = {
    "status": ("harness_ext.cli.data_status", "what is there of texts and clips, what is missing, and what to do next"),
    "download": (
        "harness_ext.cli.data_download",
        "fetch texts and clips from the Hub; can be interrupted and repeated",
    ),
    "import": ("harness_ext.cli.data_import", "give IEMOCAP and MOSI their clips, from what the owners hand out"),
    "verify": ("harness_ext.cli.data_verify", "compare texts and clips with what is known: counts, ids, digests"),
}
"""Verb -> module with its `main`, imported when it is typed, and what it does."""


def main(arguments: list[str]) -> int:
    """Run one verb of `mmla data`."""
    width = max(map(len, VERBS))
    parser = Parser(
        prog="mmla data",
        description=__doc__,
        epilog="\n".join(f"  {name:<{width}}   {what}" for name, (_, what) in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, help="see below; mmla data VERB --help")
    verb = parser.parse_args(arguments[:1]).verb
    status: int = import_module(VERBS[verb][0]).main(arguments[1:])
    return status


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names the data root."""
    parser.add_argument(
        "--data_dir",
        metavar="PATH",
        help="data root; else MMLA_DATA_DIR, else the folder that `mmla data status` names",
    )


def data_folder(given: str | None, *, make: bool = False) -> Path:
    """The folder that a verb of `mmla data` works on.

    Args:
        given: ``--data_dir``.
        make: Whether it is made when it is not there.

    Raises:
        UsageError: It is no folder, or cannot be made.
    """
    chosen = given or os.environ.get(DATA_DIR_VARIABLE) or ""
    if chosen == "sample" or chosen.startswith("sample:"):
        raise UsageError(f"the data root `{chosen}` is drawn by code", next="name a folder with --data_dir")
    folder = Path(chosen).expanduser().absolute() if chosen else download_folder()
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made", why=error.strerror or error, next="another --data_dir") from None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the data root {folder} is not a folder", next="another --data_dir")
    return folder
