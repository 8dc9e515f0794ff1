"""`mmla merge`: one run out of its shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness_ext.cli.parser import Parser

EPILOG = """\
examples:
  mmla run --model mmla-hf --model_args pretrained=... --tasks mmla --run_dir runs/x --shard 1/8
  ...
  mmla run --model mmla-hf --model_args pretrained=... --tasks mmla --run_dir runs/x --shard 8/8
  mmla merge runs/x

Needs the texts and clips that the shards saw, not the model. Results, samples and score card are those of a run that
was never split.
"""


def main(arguments: list[str]) -> int:
    """Merge the shards of one run folder and print their table."""
    parser = Parser(
        prog="mmla merge",
        description="Put the results of a run's shards together.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the --run_dir that the shards were given")
    args = parser.parse_args(arguments)

    from harness_ext.cli.run import console, print_outcome
    from harness_ext.merge import merge

    screen = console()
    print_outcome(merge(args.run_dir, announce=lambda line: screen.print(line, markup=False)), screen)
    return 0
