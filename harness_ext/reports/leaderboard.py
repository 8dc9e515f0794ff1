"""Many runs ranked, with the published models beside them: the table as plain data, on the console and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness_ext.reports.benchmark import Standing, settings_of, standings, task_ids, why_no_score
from harness_ext.reports.console import interval, number
from harness_ext.reports.run_files import Run, read_run
from harness_ext.reports.table import method_of
from harness_ext.run_folder import JOURNAL, RESULTS
from mmla_tasks.errors import RunFilesError
from mmla_tasks.published import METHODS, leaderboard_average, published
from mmla_tasks.sources import SOURCES
from mmla_tasks.statistics import wilson_interval

GROUP_NAMES = {"zero_shot": "zero-shot", "few_shot": "few-shot", "sft": "SFT", "it": "IT", "adapter": "adapter"}
"""Methods in the order of the table, as they are printed; any other keeps its own name and comes last."""


@dataclass(frozen=True)
class Entry:
    """One line: a run at one modality, or a published model. Scores are in percent."""

    model: str
    method: str
    is_published: bool
    settings: str
    """How a run was asked; empty where published."""
    folder: str
    """A run's folder below the searched one; empty where published."""
    acc: float
    """Accuracy over all test rows, by which entries are ranked: the published leaderboard's ACC."""
    low: float
    high: float
    mean: float | None
    """Mean of datasets; None where no accuracies by dataset are published."""
    by_dataset: Mapping[str, float]
    """Dataset folder -> accuracy."""


@dataclass(frozen=True)
class Ranked:
    """An entry among those of its method."""

    entry: Entry
    rank: int
    """By accuracy alone; equal accuracies share a rank."""
    best: int
    """The rank if every other interval that overlaps were worse."""
    worst: int
    """The rank if every one of them were better."""


@dataclass(frozen=True)
class Unranked:
    """A run that is not ranked."""

    folder: str
    model: str
    """Empty for results that could not be read."""
    why: str


@dataclass(frozen=True)
class Leaderboard:
    """Everything that is shown."""

    groups: Mapping[str, Sequence[Ranked]]
    """Method -> its entries, best first."""
    unranked: Sequence[Unranked] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------------------- building


def build_leaderboard(folder: Path) -> Leaderboard:
    """Rank all runs below a folder.

    Raises:
        RunFilesError: there is no run below it that can be read.
    """
    runs, unranked = _read_all(folder)
    if not runs:
        faults = {item.folder: item.why for item in unranked}
        raise RunFilesError(
            f"no run below {folder} can be read" if faults else f"there is no run below {folder}",
            faults,
            next="name a folder that holds folders that `mmla run --run_dir FOLDER` made",
        )
    entries = []
    for name, run in runs.items():
        reason = why_no_score(run)
        for standing in [] if reason else standings(run):
            if standing.is_whole:
                entries.append(_entry(name, standing))
            else:
                unranked.append(Unranked(name, run.model, _why(standing)))
        if reason:
            unranked.append(Unranked(name, run.model, reason))
    return Leaderboard(_ranked_groups(entries), sorted(unranked, key=lambda item: item.folder))


def _read_all(folder: Path) -> tuple[dict[str, Run], list[Unranked]]:
    """Every run by its path below the folder, and what only looks like one."""
    runs: dict[str, Run] = {}
    faulty: list[Unranked] = []
    for path in _run_folders(folder):
        name = path.relative_to(folder).as_posix()
        try:
            run = read_run(path)
        except RunFilesError as error:
            faulty.append(Unranked(name, "", _in_one_line(error).replace(str(path), "this folder")))
            continue
        if not _is_merged_shard(run):
            runs[name] = run
    return runs, faulty


def _is_merged_shard(run: Run) -> bool:
    """Whether its rows are also in the results of the run that it is a shard of."""
    return bool(run.results["config"].get("shard")) and (run.path.parent.parent / RESULTS).is_file()


def _run_folders(folder: Path) -> list[Path]:
    """Folders with results, or with answers and no results yet."""
    if not folder.is_dir():
        return []
    found = {path.parent for path in folder.rglob(RESULTS)}
    return sorted(found | {path.parent for path in folder.rglob(JOURNAL) if path.is_dir()})


def _in_one_line(error: RunFilesError) -> str:
    why = error.details.get("why") or error.details.get("schema")
    return f"{error.what} ({why})" if why else error.what


def _why(standing: Standing) -> str:
    datasets, by_reason = task_ids(), dict[str, list[str]]()
    for task_id, reason in standing.faults.items():
        by_reason.setdefault(reason, []).append(datasets[task_id])
    count = f"{len(standing.tasks)} of {len(datasets)} tasks are whole"
    return "; ".join([count, *(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())])


def _entry(folder: str, standing: Standing) -> Entry:
    over_rows, over_datasets = standing.averages()
    assert over_rows.low is not None and over_rows.high is not None
    return Entry(
        model=standing.run.model,
        method=method_of(standing.run.results),
        is_published=False,
        settings=settings_of(standing.run, standing.modality),
        folder=folder,
        acc=over_rows.acc,
        low=over_rows.low,
        high=over_rows.high,
        mean=over_datasets.acc,
        by_dataset={row.dataset: row.acc for row in standing.rows().values() if row.acc is not None},
    )


def _ranked_groups(entries: Iterable[Entry]) -> dict[str, list[Ranked]]:
    """Method -> its runs among its published models; methods without a run are left out."""
    by_method: dict[str, list[Entry]] = {name: [] for name in GROUP_NAMES}
    for entry in entries:
        by_method.setdefault(entry.method, []).append(entry)
    return {name: ranked([*group, *_published_entries(name)]) for name, group in by_method.items() if group}


def _published_entries(name: str) -> Iterator[Entry]:
    method = next((known for known in METHODS if known == name), None)
    if method is None:
        return
    rows = sum(source.rows["test"] or 0 for source in SOURCES.values())
    for model, acc in leaderboard_average(method).items():
        by_dataset = published(method).get(model, {})
        low, high = wilson_interval(round(acc / 100 * rows), rows)
        mean = sum(by_dataset.values()) / len(by_dataset) if by_dataset else None
        yield Entry(model, method, True, "", "", acc, 100 * low, 100 * high, mean, by_dataset)


def ranked(entries: Sequence[Entry]) -> list[Ranked]:
    """Entries by accuracy, best first, each with the ranks that its interval leaves open."""
    return [
        Ranked(
            entry,
            rank=1 + sum(other.acc > entry.acc for other in entries),
            best=1 + sum(other.low > entry.high for other in entries),
            worst=len(entries) - sum(other.high < entry.low for other in entries),
        )
        for entry in sorted(entries, key=lambda entry: (-entry.acc, entry.is_published, entry.model))
    ]


# ------------------------------------------------------------------------------------------------------------ showing


def method_name(method: str) -> str:
    """As it is printed."""
    return GROUP_NAMES.get(method, method)


def rank_range(line: Ranked) -> str:
    """Such as ``3`` or ``2–5``."""
    return str(line.best) if line.best == line.worst else f"{line.best}–{line.worst}"


def print_leaderboard(board: Leaderboard, console: Console) -> None:
    """Print the ranked tables, then what is not ranked and why."""
    for method, lines in board.groups.items():
        console.print()
        console.print(_table(method, lines))
    console.print()
    for text in explanation(board):
        console.print(Text(text))
    if board.unranked:
        console.print("\nnot ranked:")
    for item in board.unranked:
        console.print(Text(f"  {item.folder}{f' ({item.model})' if item.model else ''}: {item.why}"))


def _table(method: str, lines: Sequence[Ranked]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("ranks", no_wrap=True)
    table.add_column(method_name(method), no_wrap=True)
    for heading in ("acc", "95 %", "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for line in lines:
        entry = line.entry
        table.add_row(
            str(line.rank),
            rank_range(line),
            Text(entry.model),
            number(entry.acc),
            interval(entry.low, entry.high),
            number(entry.mean),
            Text("published" if entry.is_published else f"{entry.folder}   {entry.settings}"),
        )
    return table


def explanation(board: Leaderboard) -> list[str]:
    """What the columns mean, a sentence each."""
    if not board.groups:
        return ["Nothing to rank: no run holds all twelve tasks over their whole test sets."]
    return [
        "acc: accuracy over all test rows, the published leaderboard's ACC; mean: mean of the twelve datasets.",
        "ranks: the best and the worst rank that overlapping 95 % intervals leave open, within the method.",
        "Intervals are of sampling rows alone; those of published models are computed from their acc.",
    ]


COLUMNS = ("method", "rank", "best_rank", "worst_rank", "model", "source", "acc", "low", "high", "mean_of_datasets")


def leaderboard_csv(board: Leaderboard) -> str:
    """One row per entry, then one per run that is not ranked; scores in percent, with two decimals."""
    datasets = list(task_ids().values())
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write([*COLUMNS, *datasets, "settings", "folder", "not_ranked_because"])
    for method, lines in board.groups.items():
        for line in lines:
            entry = line.entry
            source = "published" if entry.is_published else "run"
            scores = [entry.acc, entry.low, entry.high, entry.mean, *(entry.by_dataset.get(name) for name in datasets)]
            cells = ["" if score is None else f"{score:.2f}" for score in scores]
            names = [method, line.rank, line.best, line.worst, entry.model, source]
            write([*names, *cells, entry.settings, entry.folder, ""])
    for item in board.unranked:
        blank = [""] * (4 + len(datasets))
        write(["", "", "", "", item.model, "run", *blank, "", item.folder, item.why])
    return text.getvalue()
