"""`mmla data VERB`: what the data root holds, and how more comes into it."""

from __future__ import annotations

import argparse
from importlib import import_module

VERBS = {
    "import": ("harness_ext.cli.data_import", "give IEMOCAP and MOSI their clips, from what the owners hand out"),
}
"""Verb -> module with its `main`, imported when it is typed, and what it does."""


def main(arguments: list[str]) -> int:
    """Run one verb of `mmla data`."""
    width = max(map(len, VERBS))
    parser = argparse.ArgumentParser(
        prog="mmla data",
        description=__doc__,
        epilog="\n".join(f"  {name:<{width}}   {what}" for name, (_, what) in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, help="see below; mmla data VERB --help")
    verb = parser.parse_args(arguments[:1]).verb
    status: int = import_module(VERBS[verb][0]).main(arguments[1:])
    return status
