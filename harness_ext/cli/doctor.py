"""`mmla doctor`: look at every clip that a run would need, before it does; what is wrong, and what mends it.

Exit status: 0 every clip that a run would show can be shown, 1 some can't, 2 a fault in the command or the texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SPLITS

EPILOG = """\
examples:
  mmla doctor                                       all twelve tasks, header and packets of each clip
  mmla doctor --tasks mmla_emotion_meld --deep      decode the frames that a run shows; unchanged clips only once
  mmla doctor --splits train dev test --json clips.json
"""


def main(arguments: list[str]) -> int:
    """Examine clips and print a summary."""
    args = _parser().parse_args(arguments)
    from rich.console import Console

    from harness_ext.bars import progress_bar
    from harness_ext.doctor import diagnose
    from harness_ext.reports.doctor import print_diagnosis

    if args.json is not None:
        _check_writable(args.json)
    diagnosis = diagnose(_question(args), progress_bar)
    width = None if sys.stdout.isatty() else 160
    print_diagnosis(diagnosis, Console(highlight=False, soft_wrap=True, width=width))
    if args.json is not None:
        _write(args.json, diagnosis.to_dict())
    return 1 if diagnosis.faults or (args.require_all and diagnosis.left_out) else 0


def _question(args: argparse.Namespace) -> Any:
    from harness_ext.doctor import Question
    from harness_ext.frame_policy import FRAME_ARGUMENTS, FramePolicy
    from harness_ext.prefetch import DecodeLimits

    frames = {name: value for name in FRAME_ARGUMENTS if (value := getattr(args, name)) is not None}
    if frames and not args.deep:
        raise UsageError(f"--{next(iter(frames))} says which frames --deep decodes", next="add --deep, or leave it out")
    if args.workers is not None and args.workers < 1:
        raise UsageError(f"--workers {args.workers} looks at nothing", next="write a number of at least 1")
    return Question(
        tasks=args.tasks or ["mmla"],
        data_dir=args.data_dir,
        data_revision=args.data_revision,
        include_path=args.include_path,
        splits=args.splits,
        workers=args.workers or DecodeLimits().workers,
        deep=FramePolicy.from_args(**frames) if args.deep else None,
    )


def _check_writable(path: Path) -> None:
    """Refuse a file that can't be written before all the work is done."""
    why = None
    if path.is_dir():
        why = "it is a folder"
    elif not path.absolute().parent.is_dir():
        why = f"there is no folder {path.parent}"
    elif not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        why = "permission denied"
    if why:
        raise UsageError("the JSON file cannot be written", file=path, why=why, next="name another with --json")


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError("the JSON file cannot be written", file=path, why=error.strerror or error) from None
    print(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    from harness_ext.frame_policy import FRAME_ARGUMENTS

    parser = Parser(
        prog="mmla doctor",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--tasks", "-t", nargs="+", metavar="NAME", help="task and group names (default: mmla)")
    add("--include_path", metavar="FOLDER", action="append", default=[], type=Path, help="folder of task YAMLs")
    add("--data_dir", metavar="PATH", help="data root, `sample` or `sample:N`; else MMLA_DATA_DIR, else the Hub")
    add("--data_revision", metavar="REV", help="revision of the Hub dataset")
    add(
        "--splits", nargs="+", choices=SPLITS, default=["test"], metavar="NAME", help="train, dev, test (default: test)"
    )
    add("--require_all", action="store_true", help="a task none of whose clips is there is a fault, as for `mmla run`")
    add("--deep", action="store_true", help="also decode the frames that a run would show")
    for name in FRAME_ARGUMENTS:
        add(f"--{name}", metavar="VALUE", help="with --deep: as in --model_args of `mmla run`")
    add("--workers", type=int, metavar="N", help="clips at once (default: one a core, 4 at most)")
    add("--json", type=Path, metavar="FILE", help="write every finding there")
    return parser
