"""What video adds: runs of one model that was shown text and video, text alone, video alone, paired row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.reports.report_data import Score, TaskReport, base_task, first_repeat, is_scored, modality_of
from harness_ext.reports.run_files import Run, SampleRow
from mmla_tasks.comparison import Comparison, Difference, PairedRow, PairedTask, compare
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES

MODALITIES = ("text+video", "text", "video")
"""In the order of columns; the first one that was run is what the rest of a report describes."""

_FOLLOWS = ("notes", "modality", "tasks", "groups", "left_out", "repeats")
"""Blocks of the facts that follow from modality and answers: they may differ."""


@dataclass(frozen=True)
class ModalityRow:
    """One task in every modality that was run."""

    name: str
    dimension: str
    scores: Mapping[str, Score]
    """Modality -> accuracy of that run."""
    rows: int
    """Rows that text+video and text share; 0 where one of them was not run."""
    clusters: int | None
    """Dialogues or videos that were resampled; None where rows were."""
    gain: Difference | None
    """Accuracy with text, with text and video, and what video adds: over the shared rows, paired."""


@dataclass(frozen=True)
class ModalityReport:
    """All modalities side by side."""

    modalities: Sequence[str]
    rows: Sequence[ModalityRow]
    of_all_rows: Difference | None
    """What video adds over all shared rows; None where text+video or text was not run."""
    of_datasets: Difference | None
    """The same as the mean over datasets."""
    differences: Sequence[str]
    """What the runs differ in besides modality: their differences may come from there."""


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Runs of one model in the order of `MODALITIES`.

    Raises:
        UsageError: They are of different models or tasks, or of one and the same modality.
    """
    for run in runs[1:]:
        _refuse_other_model(runs[0], run)
        _refuse_other_tasks(runs[0], run)
    shown = [modality_of(run) for run in runs]
    for run, modality in zip(runs, shown, strict=True):
        if len(runs) > 1 and modality not in MODALITIES:
            raise UsageError(f"{run.path} mixes modalities ({modality})", next="report it alone")
    if len(set(shown)) < len(shown):
        twice = next(m for m in shown if shown.count(m) > 1)
        raise UsageError(
            f"two of these runs were shown {twice}",
            {str(run.path): modality for run, modality in zip(runs, shown, strict=True)},
            next="mmla compare A B sets two such runs side by side",
        )
    return sorted(runs, key=lambda run: MODALITIES.index(modality_of(run)) if len(runs) > 1 else 0)


def modality_report(runs: Sequence[Run], tasks: Sequence[Sequence[TaskReport]]) -> ModalityReport | None:
    """Set modalities side by side; None of a single run.

    Args:
        runs: As `in_order` gives them.
        tasks: The measured tasks of each.
    """
    if len(runs) < 2:
        return None
    modalities = [modality_of(run) for run in runs]
    measured = {
        modality: {base_task(task.task): task for task in part}
        for modality, part in zip(modalities, tasks, strict=True)
    }
    compared = _compared(dict(zip(modalities, runs, strict=True)))
    return ModalityReport(
        modalities=modalities,
        rows=[_row(name, measured, compared) for name in measured[modalities[0]]],
        of_all_rows=compared.all_rows if compared else None,
        of_datasets=compared.mean_of_tasks if compared else None,
        differences=list(_differences(runs)),
    )


def _row(name: str, measured: Mapping[str, Mapping[str, TaskReport]], compared: Comparison | None) -> ModalityRow:
    of_task = compared.tasks.get(name) if compared else None
    any_of = next(iter(measured.values()))[name]
    return ModalityRow(
        name=any_of.name if any_of.name == any_of.dataset else name,
        dimension=any_of.dimension,
        scores={modality: tasks[name].acc for modality, tasks in measured.items()},
        rows=of_task.rows if of_task else 0,
        clusters=of_task.clusters if of_task else None,
        gain=of_task.acc if of_task else None,
    )


def _compared(runs: Mapping[str, Run]) -> Comparison | None:
    """Text against text and video, task by task over the rows that both were asked."""
    if not {"text", "text+video"} <= runs.keys():
        return None
    text, video = _by_base(runs["text"]), _by_base(runs["text+video"])
    tasks = {name: _paired(runs["text"].tasks[task], text[name][1], video[name][1]) for name, (task, _) in text.items()}
    tasks = {name: task for name, task in tasks.items() if task.rows}
    return compare(tasks) if tasks else None


def _by_base(run: Run) -> dict[str, tuple[str, Sequence[SampleRow]]]:
    return {
        base_task(task): (task, [r for r in first_repeat(rows) if is_scored(r)]) for task, rows in run.samples.items()
    }


def _paired(block: Mapping[str, Any], first: Sequence[SampleRow], second: Sequence[SampleRow]) -> PairedTask:
    answers = {row["doc"]["id"]: row["answer"]["label"] for row in second}
    source = SOURCES.get(block["dataset"])
    return PairedTask(
        labels=block["labels"],
        rows=[
            PairedRow(
                gold=row["doc"]["label"],
                first=row["answer"]["label"],
                second=answers[row["doc"]["id"]],
                cluster=source.cluster_of(row["doc"]["id"]) if source else row["doc"]["id"],
            )
            for row in first
            if row["doc"]["id"] in answers
        ],
    )


# ── what does not belong together ─────────────────────────────────────────────────────────────────────────────────


def _refuse_other_model(first: Run, other: Run) -> None:
    ours, theirs = _who(first), _who(other)
    if ours != theirs:
        raise UsageError(
            "a report is about one model, and these runs are of two",
            {str(first.path): ours, str(other.path): theirs},
            next="report each alone; mmla compare A B sets two models side by side",
        )


def _who(run: Run) -> str:
    identity = run.facts["model"]
    revision = f" @ {identity['revision']}" if identity.get("revision") else ""
    adapter = f" + {identity['peft']}" if identity.get("peft") else ""
    return f"{run.results['config']['model']} {run.model}{revision}{adapter}"


def _refuse_other_tasks(first: Run, other: Run) -> None:
    ours, theirs = {base_task(name) for name in first.tasks}, {base_task(name) for name in other.tasks}
    if ours != theirs:
        raise UsageError(
            "these runs are over different tasks",
            {
                f"only in {first.path}": ", ".join(sorted(ours - theirs)) or "nothing",
                f"only in {other.path}": ", ".join(sorted(theirs - ours)) or "nothing",
            },
            next="name runs of the same tasks, or report each alone",
        )


def _differences(runs: Sequence[Run]) -> Iterator[str]:
    """What besides the modality differs, setting by setting; one that a run has no use for is no difference."""
    settings = [{k: v for k, v in _flat(run.facts) if v is not None} for run in runs]
    for key in dict.fromkeys(key for found in settings for key in found):
        said = {modality_of(run): found[key] for run, found in zip(runs, settings, strict=True) if key in found}
        if len(set(map(str, said.values()))) > 1:
            yield f"{key}: " + ", ".join(f"{modality} {value}" for modality, value in said.items())
    for name in map(base_task, runs[0].tasks):
        blocks = [next(block for task, block in run.tasks.items() if base_task(task) == name) for run in runs]
        if len({block["data"]["sha256"] for block in blocks}) > 1:
            yield f"{name}: the data files differ"
        if len({block["counts"]["asked"] for block in blocks}) > 1:
            asked = ", ".join(f"{block['modality']} {block['counts']['asked']:,}" for block in blocks)
            yield f"{name}: rows asked: {asked}"


def _flat(facts: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; a task and its text-only twin by the name that they share."""
    for key, value in facts.items():
        if at or key not in _FOLLOWS:
            name = f"{at}{base_task(key)}"
            if isinstance(value, Mapping):
                yield from _flat(value, f"{name}.")
            else:
                yield name, value
