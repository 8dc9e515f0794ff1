"""`mmla run`: every flag of ``lm_eval run`` with the same meaning, and those that MMLA adds."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness_ext.cli.parser import Parser
from harness_ext.masking import masked_text
from harness_ext.ranks import Ranks
from mmla_tasks.errors import MmlaError, OtherRunError, UsageError, suggest

EPILOG = """\
examples:
  mmla run --model mmla-echo --tasks mmla --limit 2 --data_dir sample
  mmla run --model mmla-hf --model_args pretrained=Qwen/Qwen2-VL-7B-Instruct,dtype=bfloat16 \\
      --tasks mmla --run_dir runs/qwen2vl
  mmla run --model mmla-hf --model_args pretrained=... --tasks mmla_intent --modality text --answer rank
  mmla run --model mmla-hf --model_args pretrained=... --tasks mmla --dry_run
  mmla run --model mmla-predictions --model_args answers=answers.jsonl --tasks mmla_emotion_meld_text

The same command goes on where an interrupted run stopped: answers are kept in RUN_DIR/journal. Several processes share
a run: accelerate launch -m harness_ext.cli run ...; jobs of an array: --shard 1/8. Both in docs/running.md.
"""


def main(arguments: list[str]) -> int:
    """Run an evaluation and print its table."""
    args = _parser().parse_args([*_config_arguments(arguments), *arguments])
    _refuse(args)
    options = _options(args, arguments)
    destinations = _destinations(args, options)
    return _plan(options, console()) if args.dry_run else _run(options, args, destinations, console())


def console() -> Any:
    """Standard output; a log file is as wide as the table."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def _plan(options: Any, console: Any) -> int:
    from harness_ext.plan import make_plan
    from harness_ext.reports.plan import print_plan

    print_plan(make_plan(options), console)
    return 0


def _run(options: Any, args: argparse.Namespace, destinations: Any, console: Any) -> int:
    from harness_ext.cli.progress import RunProgress
    from harness_ext.reports.console import time_line
    from harness_ext.run import run

    began = time.perf_counter()
    try:
        outcome = run(options, progress=RunProgress(console), announce=lambda line: console.print(line, markup=False))
    except OtherRunError:
        raise  # the same command does not go on there
    except (MmlaError, KeyboardInterrupt) as error:
        for line in _what_is_safe(options):
            error.add_note(line)
        raise
    if not Ranks.of_environment().is_first:
        return 0
    print_outcome(outcome, console, scores=not args.predict_only)
    console.print(time_line(outcome.results["timings"], time.perf_counter() - began), markup=False)
    if args.show_config:
        import json

        console.print(json.dumps(outcome.results, indent=2, ensure_ascii=False, default=str), markup=False)
    destinations.send(outcome.results, outcome.samples)
    return 0


def print_outcome(outcome: Any, console: Any, scores: bool = True) -> None:
    """Print the table of a run and where its files are."""
    from harness_ext.reports.console import print_scores
    from harness_ext.usage import usage_line

    if scores:
        print_scores(outcome.results, console)
    console.print()
    if usage := outcome.results["mmla"].get("usage"):
        console.print(usage_line(usage))
    if outcome.written:
        names = ", ".join(relative(path) for path in outcome.written)
        console.print(f"wrote {names}", markup=False)
    else:
        console.print("nothing was written: name a folder with --run_dir to keep results, samples and a score card")


def relative(path: Path) -> str:
    """A path as it is typed from here; a folder ends in a slash."""
    shown = os.path.relpath(path)
    return (str(path) if shown.startswith("..") else shown) + ("/" if path.is_dir() else "")


def _what_is_safe(options: Any) -> Iterator[str]:
    """After a fault: how many answers are in the journal, for whoever fears that hours were lost."""
    if options.run_dir is None:
        return
    from harness_ext.journal import answer_count
    from harness_ext.run_folder import JOURNAL

    folder = options.run_dir / JOURNAL
    if count := answer_count(folder):
        kept = "1 answer is" if count == 1 else f"{count:,} answers are"
        yield f"{kept} safe in {folder}; the same command goes on from there."


def _parser() -> argparse.ArgumentParser:
    # lm-eval's own actions, so that its flags mean here what they mean there.
    from lm_eval._cli.utils import (
        MergeDictAction,
        SplitArgs,
        request_caching_arg_to_dict,
        try_parse_json,
    )

    from harness_ext.prompts import PROTOCOLS
    from harness_ext.requests import ANSWER_MODES, BAD_CLIP_POLICIES
    from harness_ext.taskfile import MODALITIES

    parser = Parser(
        prog="mmla run",
        description="Evaluate a model on MMLA tasks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("model and tasks").add_argument
    add("--config", "-C", metavar="PATH", help="take arguments from a YAML file; flags override it")
    add("--model", "-M", metavar="NAME", help="mmla-hf, mmla-vllm, mmla-api, mmla-echo or mmla-predictions")
    add(
        "--model_args",
        "-a",
        nargs="+",
        action=MergeDictAction,
        metavar="K=V",
        help="such as pretrained=...,dtype=bfloat16",
    )
    add("--tasks", "-t", nargs="+", action=SplitArgs, metavar="NAME", help="task and group names, see `mmla ls`")
    add("--include_path", metavar="FOLDER", action="append", help="further folder of task YAMLs; may be given again")
    add("--data_dir", metavar="PATH", help="data root, `sample` or `sample:N`; else MMLA_DATA_DIR, else the Hub")
    add("--data_revision", metavar="REV", help="revision of the Hub dataset")

    add = parser.add_argument_group("what is asked, and how").add_argument
    add(
        "--modality",
        choices=(*MODALITIES, "text+video+audio"),
        help="what the model is shown (default: as the tasks say)",
    )
    add(
        "--answer",
        choices=ANSWER_MODES,
        help="free text and parsing (default), only answer forms, or labels ranked by likelihood",
    )
    add(
        "--protocol",
        choices=PROTOCOLS,
        default="clean",
        help="`paper` does as the released code does for this family of models (docs/protocol.md)",
    )
    add("--released_family", metavar="NAME", help="which family `paper` follows (default: found by the model's config)")
    add(
        "--on_bad_clip",
        choices=BAD_CLIP_POLICIES,
        default="error",
        help="stop, leave the row out, or ask it without video",
    )
    add("--require_all", action="store_true", help="a task none of whose clips is there is an error")
    add(
        "--num_fewshot",
        "-f",
        type=int,
        metavar="N",
        help="examples in the prompt (text tasks), drawn per document from train",
    )
    add(
        "--label_order",
        metavar="ORDER",
        help="order of the labels in the prompt: declared (default) or shuffled:SEED",
    )
    add(
        "--repeats",
        type=int,
        default=1,
        metavar="K",
        help="ask everything K times: label order SEED + r, torch seed + r (default 1)",
    )
    add("--limit", "-L", type=float, metavar="N", help="rows per task, as a count or a share below 1")
    add(
        "--samples",
        "-E",
        type=try_parse_json,
        metavar="JSON",
        help="rows per task, such as '{\"mmla_intent_mintrec\": [0, 3]}'",
    )
    add(
        "--gen_kwargs",
        nargs="+",
        action=MergeDictAction,
        metavar="K=V",
        help="decoding, over the tasks' greedy 64 tokens",
    )

    add = parser.add_argument_group("prompt format").add_argument
    add(
        "--apply_chat_template",
        nargs="?",
        const=True,
        default=None,
        metavar="NAME",
        help="default: when the model has one",
    )
    add("--no_chat_template", action="store_true", help="ask without the model's chat template")
    add("--system_instruction", metavar="TEXT", help="system message")
    add(
        "--fewshot_as_multiturn",
        type=lambda x: x.lower() in ("true", "1", "yes"),
        nargs="?",
        const=True,
        default=None,
        metavar="BOOL",
        help="examples as turns (default: with a chat template)",
    )

    add = parser.add_argument_group("output").add_argument
    add("--run_dir", type=Path, metavar="FOLDER", help="journal, results, samples and score card of this run")
    add("--shard", metavar="I/N", help="answer the I-th of N parts of the rows; mmla merge RUN_DIR puts them together")
    add("--output_path", "-o", metavar="PATH", help="refused: use --run_dir")
    add(
        "--log_samples",
        "-s",
        action="store_true",
        help="samples are always logged here; with this also where --wandb_args and --trackio_args send scores",
    )
    add("--predict_only", "-x", action="store_true", help="print no scores")
    add("--write_out", "-w", action="store_true", help="print the first prompts")
    add("--show_config", action="store_true", help="print the whole results")
    add("--wandb_args", nargs="+", action=MergeDictAction, metavar="K=V", help="send scores to Weights & Biases")
    add("--wandb_config_args", nargs="+", action=MergeDictAction, metavar="K=V", help="its configuration")
    add("--trackio_args", nargs="+", action=MergeDictAction, metavar="K=V", help="send scores to Trackio")
    add(
        "--hf_hub_log_args",
        nargs="+",
        action=MergeDictAction,
        metavar="K=V",
        help="send to the Hub as lm-eval does: push_results_to_hub=True, push_samples_to_hub=True, ...",
    )
    add(
        "--i_have_the_rights",
        action="store_true",
        help="you may pass on samples of IEMOCAP, IEMOCAP-DA and MOSI, whose owners restrict it",
    )

    add = parser.add_argument_group("running").add_argument
    add(
        "--dry_run",
        action="store_true",
        help="tell questions, tokens, clips, decode time, memory and cost, without loading the model",
    )
    add("--batch_size", "-b", metavar="N", help="requests at once, or `auto`: as many as a bound of tokens allows")
    add("--max_batch_size", type=int, metavar="N", help="upper bound for --batch_size auto")
    add("--decode_workers", type=int, metavar="N", help="clips decoded at once (default: one a core, 4 at most)")
    add(
        "--decode_memory",
        metavar="SIZE",
        help="frames that may be in memory at once: bytes, or such as 512M or 2G of 1024 (default 1G)",
    )
    add("--device", metavar="NAME", help="such as cuda, cuda:0, cpu")
    add(
        "--seed",
        type=_seeds,
        metavar="N,N,N,N",
        help="python, numpy, torch, few-shot (default 0,1234,1234,1234)",
    )
    add("--trust_remote_code", action="store_true", help="run code of a Hub repository")
    add("--metadata", nargs="+", action=MergeDictAction, metavar="K=V", help="further task metadata")
    add("--use_cache", "-c", metavar="PATH", help="refused: the journal does it")
    add(
        "--cache_requests",
        type=request_caching_arg_to_dict,
        nargs="?",
        const="true",
        metavar="MODE",
        help="refused: the journal does it",
    )
    add("--check_integrity", action="store_true", help="validate the tasks first, as `mmla check` does")
    add("--confirm_run_unsafe_code", action="store_true", help="accepted; no MMLA task runs code")
    add("--verbosity", "-v", type=str.upper, metavar="LEVEL", help="deprecated by lm-eval: LMEVAL_LOG_LEVEL")
    return parser


def _seeds(text: str) -> list[int | None]:
    """One seed for all, or three or four of them, as lm-eval takes them."""
    from lm_eval._cli.utils import _int_or_none_list_arg_type

    seeds: list[int | None] = _int_or_none_list_arg_type(3, 4, "0,1234,1234,1234", text)
    return seeds


def _config_arguments(arguments: list[str]) -> list[str]:
    """The arguments that ``--config`` holds, to stand before those of the command line, which override them."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", "-C", type=Path)
    path = early.parse_known_args(arguments)[0].config
    if path is None:
        return []
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("the config cannot be read", file=path, why=str(error).split("\n")[0]) from None
    actions = {action.dest: action for action in _parser()._actions if action.dest not in ("help", "config")}
    if not isinstance(given, Mapping):
        raise UsageError("the config has no keys", file=path, next="write keys such as `model: mmla-hf`")
    unknown = [str(key) for key in given if key not in actions]
    if unknown:
        raise UsageError(
            f"the config has unknown keys: {', '.join(unknown)}", file=path, hint=suggest(unknown[0], actions)
        )
    return [word for key, value in given.items() for word in _as_words(key, value, actions[key])]


def _as_words(key: str, value: Any, action: argparse.Action) -> list[str]:
    """A key of the config as it would be typed."""
    import json

    if value is None or (value is False and action.nargs == 0):
        return []
    if action.nargs == 0:
        return [f"--{key}"]
    if isinstance(value, Mapping):
        return [f"--{key}", json.dumps(value)]
    if isinstance(value, list) and key == "seed":
        return [f"--{key}", ",".join(str(v) for v in value)]
    if isinstance(value, list) and key == "include_path":
        return [word for item in value for word in (f"--{key}", str(item))]
    return [f"--{key}", *(str(item) for item in (value if isinstance(value, list) else [value]))]


def _refuse(args: argparse.Namespace) -> None:
    for flag in ("use_cache", "cache_requests"):
        if getattr(args, flag) is not None:
            raise UsageError(
                f"--{flag} is not offered: its keys know neither clips nor modality nor data root",
                next="--run_dir FOLDER keeps a journal; the same command goes on from there",
            )
    if args.output_path is not None:
        raise UsageError("--output_path is not offered", next=f"--run_dir {args.output_path}")
    if args.model is None:
        raise UsageError("no model is named", next="--model mmla-hf --model_args pretrained=...")
    if args.no_chat_template and args.apply_chat_template:
        raise UsageError(
            "--apply_chat_template and --no_chat_template exclude each other", next="leave one of them out"
        )


def _options(args: argparse.Namespace, arguments: list[str]) -> Any:
    from harness_ext.run import RunOptions

    include = [Path(p) for p in args.include_path or []]
    if args.check_integrity:
        from harness_ext.cli.check import check_folders

        check_folders(include)
    chat: bool | str | None = False if args.no_chat_template else args.apply_chat_template
    return RunOptions(
        model=args.model,
        tasks=args.tasks or [],
        model_args=args.model_args or {},
        include_path=include,
        data_dir=args.data_dir,
        data_revision=args.data_revision,
        modality=args.modality,
        answer=args.answer,
        protocol=args.protocol,
        released_family=args.released_family,
        on_bad_clip=args.on_bad_clip,
        require_all=args.require_all,
        run_dir=args.run_dir,
        shard=args.shard,
        limit=args.limit,
        samples=_samples(args.samples),
        num_fewshot=args.num_fewshot,
        label_order=args.label_order,
        repeats=args.repeats,
        batch_size=args.batch_size,
        max_batch_size=args.max_batch_size,
        decode_limits=_decode_limits(args),
        device=args.device,
        gen_kwargs=args.gen_kwargs or {},
        system_instruction=args.system_instruction,
        apply_chat_template=chat,
        fewshot_as_multiturn=args.fewshot_as_multiturn,
        seed=args.seed or (0, 1234, 1234, 1234),
        trust_remote_code=args.trust_remote_code,
        metadata=args.metadata or {},
        predict_only=args.predict_only,
        write_out=args.write_out,
        command=_command(arguments),
    )


def _destinations(args: argparse.Namespace, options: Any) -> Any:
    from harness_ext.sending import Destinations

    destinations = Destinations(
        wandb_args=args.wandb_args or {},
        wandb_config_args=args.wandb_config_args or {},
        trackio_args=args.trackio_args or {},
        hf_hub_log_args=args.hf_hub_log_args or {},
        log_samples=args.log_samples,
    )
    destinations.refuse_restricted(
        options.tasks, options.modality, options.include_path, options.data_dir, granted=args.i_have_the_rights
    )
    destinations.refuse_missing_packages()
    return destinations


def _decode_limits(args: argparse.Namespace) -> Any:
    from harness_ext.prefetch import DecodeLimits, read_bytes

    given: dict[str, int] = {}
    if args.decode_workers is not None:
        given["workers"] = args.decode_workers
    if args.decode_memory is not None:
        given["memory"] = read_bytes(args.decode_memory, "--decode_memory")
    return DecodeLimits(**given)


def _samples(given: Any) -> Any:
    """The rows of ``--samples``: inline JSON, or the path of a JSON file, as lm-eval takes."""
    if given is None:
        return None
    import json

    try:
        rows = json.loads(Path(given).read_text(encoding="utf-8")) if isinstance(given, str) else given
    except (OSError, ValueError) as error:
        raise UsageError(f"--samples {given} is neither JSON nor a JSON file", why=error) from None
    if not isinstance(rows, dict) or not all(isinstance(v, list) for v in rows.values()):
        raise UsageError(
            "--samples is no mapping of tasks to rows", next="--samples '{\"mmla_intent_mintrec\": [0, 3]}'"
        )
    return rows


def _command(arguments: list[str]) -> str:
    """The command for the record; run folder and shard are left out, since they change no number."""
    left_out = ("--run_dir", "--shard")
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument.split("=")[0] in left_out:
            skip = argument in left_out
            continue
        kept.append(argument)
    return masked_text(shlex.join(["mmla", "run", *kept]))
