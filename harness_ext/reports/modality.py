"""What video adds: runs of one model that was shown text and video, text alone, video alone, paired row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness_ext.reports.comparison import RunComparison, compare_runs
from harness_ext.reports.report_data import Score, TaskReport, base_task, modality_of
from harness_ext.reports.run_files import Run
from mmla_tasks.comparison import Difference, TaskComparison
from mmla_tasks.errors import UsageError

MODALITIES = ("text+video", "text", "video")
"""In the order of columns; the first one that was run is what the rest of a report describes."""

_FOLLOWS = ("modality", "question", "frames", "frames shown", "prompts as sent")
"""Differences between two runs that follow from what they were shown."""


@dataclass(frozen=True)
class ModalityRow:
    """One task in every modality that was run."""

    name: str
    dimension: str
    scores: Mapping[str, Score]
    """Modality -> accuracy of that run."""
    gain: TaskComparison | None
    """Text, then text+video, over the rows that both were asked; None where one of them was not run."""


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

    Raises:
        UsageError: Two of them have no row in common.
    """
    if len(runs) < 2:
        return None
    modalities = [modality_of(run) for run in runs]
    compared = [compare_runs(other, runs[0], anyway=True) for other in runs[1:]]
    added = compared[0] if modalities[:2] == ["text+video", "text"] else None
    gains = {base_task(name): task for name, task in added.scores.tasks.items()} if added else {}
    measured = [{base_task(task.task): task for task in part} for part in tasks]
    return ModalityReport(
        modalities=modalities,
        rows=[
            ModalityRow(
                name=task.name.removesuffix("_text"),
                dimension=task.dimension,
                scores={modality: part[name].acc for modality, part in zip(modalities, measured, strict=True)},
                gain=gains.get(name),
            )
            for name, task in measured[0].items()
        ],
        of_all_rows=added.scores.all_rows if added else None,
        of_datasets=added.scores.mean_of_tasks if added else None,
        differences=[line for one in compared for line in _differences(one)],
    )


def _differences(compared: RunComparison) -> Iterator[str]:
    """What besides the modality differs."""
    first, second = modality_of(compared.first), modality_of(compared.second)
    for one in compared.differs:
        if one.name.split(": ")[0] not in _FOLLOWS:
            yield f"{one.name}: {first} {one.first}, {second} {one.second}"
    yield from (f"A is {first}, B is {second}: {objection}" for objection in compared.objections)


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
