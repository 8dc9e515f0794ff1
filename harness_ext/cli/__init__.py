"""The `mmla` command. One module a verb, imported when it is typed: `mmla --help` needs nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Sequence

VERBS = {
    "run": "evaluate a model and write results, samples and a score card",
    "merge": "put the shards of a run together, without the model",
    "ls": "list tasks and groups, with what data is there",
    "show": "print rendered prompts, tokens and labels of a task; draw its frames",
    "check": "validate task YAMLs strictly, all faults at once",
    "data": "texts and clips: what is there, download, import, verify",
    "doctor": "look at every clip that a run would need: what is wrong, and what mends it",
    "report": "write a run as one page that opens offline, with figures, tables and samples",
    "compare": "compare two runs row by row: which is better, by how much, how sure",
    "verify": "recompute every number of a run or a bundle from its samples",
    "leaderboard": "rank all runs below a folder among the published models",
    "finetune": "train a model on the same tasks, select it by accuracy on dev, score it by the same scorers",
    "where": "print the folder of the task YAMLs, for lm_eval --include_path",
    "link": "link the task YAMLs into lm-eval, which then finds them without --include_path",
    "unlink": "take these links away again",
}

ELSEWHERE = {"finetune": "finetune.cli"}
"""Modules of verbs that are another package's, by name: `harness_ext` imports nothing of it."""

EXAMPLES = """\
examples:
  mmla run --model mmla-echo --tasks mmla --limit 2 --data_dir sample
  mmla run --model mmla-hf --model_args pretrained=Qwen/Qwen2-VL-7B-Instruct,dtype=bfloat16 --tasks mmla
  lm_eval --include_path "$(mmla where)" --model hf --model_args pretrained=... --tasks mmla_intent_text
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 done, 1 done and something is left to mend (the verb says what), 2 a fault the user can mend
        (told on stderr), 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(f"mmla-eval {version('mmla-eval')}")
        return 0
    if verb not in VERBS:
        return _unknown(verb)
    return _run_verb(verb, arguments[1:])


def _run_verb(verb: str, arguments: list[str]) -> int:
    import warnings
    from importlib import import_module

    from harness_ext.ranks import Ranks
    from mmla_tasks.errors import MmlaError

    # PEFT asks transformers by an old name, which no user can change.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        status: int = import_module(ELSEWHERE.get(verb, f"harness_ext.cli.{verb}")).main(arguments)
        return status
    except MmlaError as error:
        if Ranks.of_environment().is_first:  # all ranks of a run fail together, with one message
            print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("\n".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _unknown(verb: str) -> int:
    from mmla_tasks.errors import UsageError, suggest

    error = UsageError(f"mmla has no verb `{verb}`", hint=suggest(verb, VERBS), verbs=", ".join(VERBS))
    print(f"error: {error}", file=sys.stderr)
    return 2


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}   {what}" for name, what in VERBS.items())
    return (
        "usage: mmla VERB [options]      mmla VERB --help\n\n"
        "Measures how well a model understands people: the MMLA benchmark in lm-evaluation-harness.\n\n"
        f"{verbs}\n\n{EXAMPLES}"
    )
