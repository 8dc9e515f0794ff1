"""`mmla finetune merge`: write an adapter and its base as one model."""

from __future__ import annotations

from pathlib import Path

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import ModelError


def main(arguments: list[str]) -> int:
    """Merge, and compare if asked to."""
    parser = Parser(
        prog="mmla finetune merge",
        description=__doc__,
        epilog="mmla finetune merge runs/mintrec/adapter --output models/mintrec --check",
    )
    parser.add_argument("adapter", type=Path, help="folder of the adapter")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the model is written")
    parser.add_argument("--model", help="the base; else the one that the adapter names")
    parser.add_argument("--dtype", default="auto", help="auto (default: that of the base), bfloat16, float32, ...")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the base")
    check = parser.add_argument_group("comparison with the unmerged adapter").add_argument
    check("--check", action="store_true", help="rank labels of test rows with both; differing answers end in status 2")
    check("--tasks", nargs="+", metavar="TASK", help="ask these; else the tasks that the adapter was trained on")
    check("--data_dir", help="data root; else that of the training")
    check("--rows", type=int, help="rows of all tasks together, drawn by a fixed seed (24)")
    args = parser.parse_args(arguments)

    from finetune.merging import Merge, Questions, agreement, merge

    what = Merge(args.adapter, args.output, args.model, args.dtype, args.trust_remote_code)
    given = {"tasks": args.tasks, "data_dir": args.data_dir, "rows": args.rows}
    questions = Questions.of_training(args.adapter, **given) if args.check else None
    print(f"wrote {merge(what)}", flush=True)
    if questions is not None:
        found = agreement(what, questions)
        if not found.holds:
            raise ModelError(
                str(found),
                model=f"{args.output} is written, and is not what was trained",
                next="use the adapter unmerged, or merge in --dtype float32",
            )
        print(found)
    return 0
