"""The plan of a run as a table, for `mmla run --dry_run`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness_ext.cli.progress import clock
from harness_ext.plan import RunPlan, TaskPlan
from harness_ext.reports.fitting import fitting

HEADINGS = ("questions", "prompt tokens", "of video", "new tokens ≤", "clips", "missing", "video", "decode")


SPARE = ("dimension", "of video", "missing", "video", "decode")
"""What a narrow terminal does without, the first first; the lines below tell how many clips are missing."""


def print_plan(plan: RunPlan, console: Console) -> None:
    """Print what each task would ask and take, then what that rests on."""
    console.print()
    console.print(fitting(console, lambda without: _table(plan, without), SPARE))
    for line in _lines(plan):
        console.print(Text(line))


def _table(plan: RunPlan, without: frozenset[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    beside = "dimension" not in without
    shown = [heading not in without for heading in HEADINGS]
    for heading in (*([""] if beside else []), "", *compress(HEADINGS, shown)):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    last = ""
    for task in plan.tasks:
        dimension = [task.dimension if task.dimension != last else ""] if beside else []
        table.add_row(*dimension, task.dataset, *compress(_cells(task), shown))
        last = task.dimension
    if len(plan.tasks) > 1:
        table.add_row(*(["all", ""] if beside else ["all"]), *compress(_totals(plan.tasks), shown))
    return table


def _cells(task: TaskPlan) -> Iterator[str]:
    clips = task.clips
    yield f"{task.requests:,}"
    yield _count(task.prompt_tokens, about=clips is not None or task.estimated)
    yield _count(clips.tokens, about=True) if clips else "–"
    yield f"{task.new_tokens:,}"
    yield f"{clips.count:,}" if clips else "–"
    yield f"{task.missing:,}" if task.missing else "–"
    yield f"~{clock(clips.seconds)}" if clips else "–"
    yield f"~{clock(clips.decode_seconds)}" if clips else "–"


def _totals(tasks: list[TaskPlan]) -> Iterator[str]:
    clips = [task.clips for task in tasks if task.clips]
    prompts = [task.prompt_tokens for task in tasks]
    video = [estimate.tokens for estimate in clips]
    missing = sum(task.missing for task in tasks)
    yield f"{sum(task.requests for task in tasks):,}"
    yield _count(None if None in prompts else sum(n or 0 for n in prompts), about=bool(clips) or tasks[0].estimated)
    yield _count(None if not video or None in video else sum(n or 0 for n in video), about=True)
    yield f"{sum(task.new_tokens for task in tasks):,}"
    yield f"{sum(estimate.count for estimate in clips):,}" if clips else "–"
    yield f"{missing:,}" if missing else "–"
    yield f"~{clock(sum(estimate.seconds for estimate in clips))}" if clips else "–"
    yield f"~{clock(sum(estimate.decode_seconds for estimate in clips))}" if clips else "–"


def _count(tokens: int | None, about: bool) -> str:
    return "–" if tokens is None else f"{'~' if about else ''}{tokens:,}"


def _lines(plan: RunPlan) -> Iterator[str]:
    """What stands below the table."""
    asked, rows = sum(task.requests for task in plan.tasks), sum(task.rows - task.missing for task in plan.tasks)
    if asked < rows:
        yield f"{rows - asked:,} of {rows:,} rows repeat a question, which is asked once"
    yield from _about_clips(plan)
    if any(task.text_tokens is None for task in plan.tasks):
        yield "tokens: this backend reads none"
    elif plan.tasks[0].estimated:
        images = "; images as GPT-4o counts them" if any(task.clips for task in plan.tasks) else ""
        yield f"tokens: guessed at four bytes each, since the tokenizer is the server's{images}"
    if plan.cost is not None:
        yield f"cost: ~{plan.cost:,.2f} at most, for {plan.prices.prompt:g} and {plan.prices.new:g} a million tokens"
    for item in plan.left_out:
        yield f"left out {item.task}: {item.why}; {item.next_step}"
    yield "a plan: no model was loaded and nothing was asked"


def _about_clips(plan: RunPlan) -> Iterator[str]:
    clips = [task.clips for task in plan.tasks if task.clips]
    if not clips or plan.frame_policy is None:
        return
    probed, unreadable = sum(c.probed for c in clips), sum(c.unreadable for c in clips)
    yield f"clip figures: from {probed:,} clips, decoded with {plan.frame_policy.describe()}"
    if unreadable:
        yield f"{unreadable:,} of these {probed:,} could not be read: the run would stop, or do as --on_bad_clip says"
    workers, memory = plan.limits.workers, plan.limits.memory
    yield (
        f"decoding with {workers} worker{'s' * (workers > 1)}: ~{clock(plan.decode_seconds)}, less what is cached; "
        f"frames: up to {_megabytes(plan.frame_bytes)} a clip, at most {_megabytes(memory)} at once"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
