"""`mmla finetune recipe`: print the published hyperparameters of a model and a dataset as a config."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.recipes import models, models_with_it, recipe
from harness_ext.cli.parser import Parser
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES


def main(arguments: list[str]) -> int:
    """Print one recipe, or what there is."""
    parser = Parser(
        prog="mmla finetune recipe",
        description=__doc__,
        epilog="mmla finetune recipe --model qwen2-vl-7b --dataset mintrec > mintrec.yaml",
    )
    parser.add_argument("--model", help="such as qwen2-vl-7b")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dataset", help="one of the twelve, such as mintrec: SFT, an adapter for it alone")
    what.add_argument("--it", action="store_true", help="instruction tuning, one adapter for all twelve")
    what.add_argument("--list", action="store_true", help="name every model and dataset that has one")
    args = parser.parse_args(arguments)
    if args.list:
        print("\n".join(_list()))
        return 0
    if args.model is None or not (args.dataset or args.it):
        raise UsageError(
            "a recipe is for a model and a dataset",
            next="mmla finetune recipe --model qwen2-vl-7b --dataset mintrec      or --it; --list names all",
        )
    print(recipe(args.model, args.dataset).text(), end="")
    return 0


def _list() -> Iterator[str]:
    width = max(map(len, models()))
    for name, facts in models().items():
        tunings = "12 datasets, IT" if name in models_with_it() else "12 datasets"
        yield f"{name:<{width}}   {tunings:<15}   {facts['model']}"
    yield f"\ndatasets: {', '.join(folder.lower() for folder in SOURCES)}"
