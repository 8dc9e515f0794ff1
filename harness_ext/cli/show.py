"""`mmla show`: what a model is asked, row by row: rendered prompts, tokens, labels, and the frames as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness_ext.cli.parser import Parser
from harness_ext.prompts import PROTOCOLS
from harness_ext.taskfile import MODALITIES
from mmla_tasks.errors import UsageError
from mmla_tasks.records import Clip
from mmla_tasks.root import SAMPLE_NOTE


def main(arguments: list[str]) -> int:
    """Print rows of one task."""
    args = _parser().parse_args(arguments)
    if args.n < 0:
        raise UsageError(f"--n {args.n} is below 0")
    task = _task(args)
    processor = _processor(args.pretrained) if args.pretrained else None
    if args.protocol == "paper" and args.pretrained and not args.released_family:
        task.follow(_released_family(args.pretrained), {})
    for line in _about(task):
        print(line)
    for n, document in enumerate(task.eval_docs[: args.n]):
        for line in _row(task, document, args, processor, n):
            print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="mmla show", description=__doc__)
    parser.add_argument("task", help="a leaf task, such as mmla_intent_mintrec")
    parser.add_argument("--n", type=int, default=3, help="rows to show (default 3; 0 shows the task alone)")
    parser.add_argument("--data_dir", metavar="PATH", help="data root, or `sample`; else MMLA_DATA_DIR, else the Hub")
    parser.add_argument("--include_path", metavar="FOLDER", action="append", default=[], type=Path)
    parser.add_argument("--modality", choices=MODALITIES)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="clean")
    parser.add_argument("--released_family", metavar="NAME", help="which family `paper` follows")
    parser.add_argument("--label_order", metavar="ORDER", help="declared (default) or shuffled:SEED")
    parser.add_argument("--num_fewshot", type=int, default=0, metavar="N")
    parser.add_argument("--pretrained", metavar="MODEL", help="apply this model's chat template and count its tokens")
    parser.add_argument("--num_frames", type=int, metavar="N", help="frames per clip (default 4)")
    parser.add_argument("--fps", type=float, metavar="RATE", help="frames per second instead")
    parser.add_argument("--max_pixels", type=int, metavar="N", help="upper bound of height x width")
    parser.add_argument(
        "--frames_dir", type=Path, default=Path("frames"), metavar="FOLDER", help="where contact sheets go"
    )
    return parser


def _task(args: argparse.Namespace) -> Any:
    from harness_ext.catalogue import Catalogue
    from harness_ext.run import RunOptions, load_tasks

    catalogue = Catalogue.load(args.include_path)
    (name,) = catalogue.resolve([args.task], args.modality)
    if catalogue.files[name].is_group:
        raise UsageError(f"{name} is a group", next=f"name one of: {', '.join(catalogue.leaves(name))}")
    options = RunOptions(
        model="mmla-echo",
        tasks=[name],
        include_path=args.include_path,
        data_dir=args.data_dir,
        modality=args.modality,
        protocol=args.protocol,
        released_family=args.released_family,
        num_fewshot=args.num_fewshot,
        label_order=args.label_order,
    )
    return load_tasks([name], options)["tasks"][name]


def _about(task: Any) -> Iterator[str]:
    split = task.split("test")
    yield f"{task.spec.task}   {len(split.documents):,} rows   {task.modality}   {split.path}"
    if task.root is not None and task.root.is_sample:
        yield f"note: {SAMPLE_NOTE}"
    elif split.difference:
        yield f"note: {split.difference}"
    yield f"labels ({len(task.spec.labels)}): {', '.join(task.spec.labels)}"
    if task.choices.label_order:
        yield f"labels {task.choices.label_order}: {', '.join(task.prompt_labels)}"
    yield f"decoding: {task.config.generation_kwargs}"


def _row(task: Any, document: Any, args: argparse.Namespace, processor: Any, n: int) -> Iterator[str]:
    chat = _chat(processor)
    prompt = task.fewshot_context(
        document,
        args.num_fewshot,
        system_instruction=task.family.system if chat is not None else None,
        apply_chat_template=chat is not None,
        fewshot_as_multiturn=chat is not None,
        chat_template=chat,
    )
    yield f"\n── row {n + 1}   id {document['id']}   gold: {document['label']} " + "─" * 20
    yield prompt
    yield f"   answer form: {task.doc_to_target(document)}"
    if processor is not None:
        tokenizer = getattr(processor, "tokenizer", processor)
        ids = tokenizer(prompt, add_special_tokens=chat is None)["input_ids"]
        aside = " and those of the video" if document["clip"] is not None else ""
        yield f"   {len(ids):,} tokens{aside}: {' '.join(repr(tokenizer.decode([i])) for i in ids)}"
    if document["clip"] is not None:
        yield from _frames(task, document, args)


def _processor(pretrained: str) -> Any:
    from harness_ext.backends.hf_load import load_processor

    return load_processor(pretrained)


def _released_family(pretrained: str) -> Any:
    from harness_ext.backends.hf_load import load_config
    from harness_ext.released import family_of

    return family_of(load_config(pretrained))


def _chat(processor: Any) -> Any:
    """What renders a chat as lm-eval asks for it; None without a chat template."""
    from harness_ext.messages import has_chat_template, render_chat

    if processor is None or not has_chat_template(processor):
        return None

    def apply(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        return render_chat(processor, messages, add_generation_prompt)

    return apply


def _frames(task: Any, document: Any, args: argparse.Namespace) -> Iterator[str]:
    from harness_ext.frame_cache import frames_of
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import contact_sheet

    chosen = {"num_frames": args.num_frames, "fps": args.fps, "max_pixels": args.max_pixels}
    given = any(value is not None for value in chosen.values())
    policy = FramePolicy.from_args(**(chosen if given or not task.family.frames else task.family.frames))
    who = f"{task.spec.task} id {document['id']}"
    frames = frames_of(document["clip"], policy, who=who)
    args.frames_dir.mkdir(parents=True, exist_ok=True)
    path = args.frames_dir / f"{task.spec.task}-{document['id']}.png".replace("/", "_")
    contact_sheet(frames, path, f"{who}   {document['label']}")
    seconds = ", ".join(f"{s:.2f}" for s in frames.seconds)
    yield f"   clip: {_named(document['clip'])}"
    yield f"   frames {list(frames.indices)} at {seconds} s of {frames.source_frames}, drawn in {path}"


def _named(clip: Clip) -> str:
    """The file, and of a segment its times."""
    if clip["end_seconds"] is None:
        return clip["path"]
    return f"{clip['path']} from {clip['start_seconds']:g} s to {clip['end_seconds']:g} s"
