"""`mmla finetune`: learn the tasks. One module a sub-verb, imported when it is typed."""

from __future__ import annotations

from importlib import import_module

from mmla_tasks.errors import UsageError, suggest

SUB_VERBS = {
    "run": "train on a config, select by label accuracy on dev, and evaluate",
    "check": "list every fault of a config at once, and print one example with its masked labels",
    "recipe": "print the published hyperparameters of a model and a dataset as a config",
    "sweep": "run a grid of configs and tell which answers dev best",
    "merge": "write an adapter and its base as one model, and compare the two",
}

EXAMPLES = """\
examples:
  mmla finetune recipe --model qwen2-vl-7b --dataset mintrec > config.yaml
  mmla finetune run config.yaml --learning_rate 5e-5 --output_dir runs/sft
  mmla finetune merge runs/sft/adapter --output models/sft --check
  torchrun --nproc_per_node 2 -m harness_ext.cli finetune run config.yaml --deepspeed zero3
"""


def main(arguments: list[str]) -> int:
    """Run one sub-verb."""
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        print(_help())
        raise SystemExit(0)  # as argparse does for the other verbs
    if verb not in SUB_VERBS:
        raise UsageError(
            f"mmla finetune has no verb `{verb}`", hint=suggest(verb, SUB_VERBS), verbs=", ".join(SUB_VERBS)
        )
    status: int = import_module(f"finetune.cli_{verb}").main(arguments[1:])
    return status


def _help() -> str:
    width = max(map(len, SUB_VERBS))
    verbs = "\n".join(f"  {name:<{width}}   {what}" for name, what in SUB_VERBS.items())
    return (
        "usage: mmla finetune VERB [options]      mmla finetune VERB --help\n\n"
        "Trains a model on the questions that evaluation asks: one dataset (SFT) or several (instruction tuning).\n\n"
        f"{verbs}\n\n{EXAMPLES}"
    )
