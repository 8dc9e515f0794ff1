"""Two runs side by side: what they differ in, whether they may be compared, and which is better by how much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2

from harness_ext.catalogue import TEXT_SUFFIX
from harness_ext.reports.run_files import Run, SampleRow
from mmla_tasks.comparison import Comparison, Difference, PairedRow, PairedTask, TaskComparison, compare
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES

HEADINGS = ("", "", "rows", "A", "B", "B − A", "95 %", "mF1", "95 %", "A only", "B only", "p", "Holm", "detectable")
"""Of the cells that `table` gives."""
MARK = "✱"
"""Beside tasks that differ beyond chance."""


@dataclass(frozen=True)
class Differs:
    """One thing in which two runs differ."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class ComparedTask:
    """The common rows of one task, and what stands against comparing it."""

    name: str
    """The first run's name for it."""
    dimension: str
    dataset: str
    rows: Sequence[tuple[SampleRow, SampleRow]]
    labels: Sequence[str]
    objections: Sequence[str]


@dataclass(frozen=True)
class RunComparison:
    """Two runs compared."""

    first: Run
    second: Run
    tasks: Sequence[ComparedTask]
    differs: Sequence[Differs]
    objections: Sequence[str]
    """Why the two are not comparable as they stand; empty unless the user insisted."""
    scores: Comparison


def compare_runs(first: Run, second: Run, *, anyway: bool = False) -> RunComparison:
    """Compare two runs by their common rows.

    A task and its text-only twin are the same task here: their rows and labels are equal.

    Args:
        first: Called A.
        second: Called B.
        anyway: Compare the common rows also where rows, labels, data or tasks differ.

    Raises:
        UsageError: They have nothing in common, or are not comparable and `anyway` was not said.
    """
    tasks = [_common_rows(first, second, a, b) for a, b in _common_tasks(first, second).items()]
    objections = [*_task_objections(first, second), *(f"{t.name}: {why}" for t in tasks for why in t.objections)]
    tasks = [task for task in tasks if task.rows]
    if not tasks:
        raise UsageError(
            "the two runs have no row in common",
            A=f"{first.where}: {', '.join(first.tasks)}",
            B=f"{second.where}: {', '.join(second.tasks)}",
            why="\n".join(objections) or None,
            next="compare runs of the same tasks",
        )
    if objections and not anyway:
        count = sum(len(task.rows) for task in tasks)
        raise UsageError(
            "the two runs are not comparable as they stand",
            why="\n".join(objections),
            next=f"--anyway compares the {count:,} common rows of {len(tasks)} tasks, and says so",
        )
    scores = compare({task.name: _paired(task) for task in tasks})
    return RunComparison(first, second, tasks, list(_differs(first, second, tasks)), objections, scores)


# ---------------------------------------------------------------------------------------------------- common ground


def _common_tasks(first: Run, second: Run) -> dict[str, str]:
    """The first run's name of each common task -> the second's."""
    common = {}
    for name in first.tasks:
        twin = name.removesuffix(TEXT_SUFFIX) if name.endswith(TEXT_SUFFIX) else name + TEXT_SUFFIX
        other = name if name in second.tasks else twin
        if other in second.tasks and (other == name or other not in first.tasks):
            common[name] = other
    return common


def _task_objections(first: Run, second: Run) -> Iterator[str]:
    common = _common_tasks(first, second)
    for run, name, shared in ((first, "A", common.keys()), (second, "B", common.values())):
        if alone := [task for task in run.tasks if task not in shared]:
            yield f"only {name} was asked {', '.join(alone)}"


def _common_rows(first: Run, second: Run, task: str, twin: str) -> ComparedTask:
    mine, theirs = first.tasks[task], second.tasks[twin]
    a, b = _scored(first.samples[task]), _scored(second.samples[twin])
    shared = [name for name in a if name in b]
    golds = [name for name in shared if a[name]["doc"]["label"] == b[name]["doc"]["label"]]
    objections = []
    if mine["data"]["sha256"] != theirs["data"]["sha256"]:
        digests = [block["data"]["sha256"][:12] for block in (mine, theirs)]
        objections.append(f"the data files differ (SHA-256 {digests[0]}… and {digests[1]}…)")
    if set(mine["labels"]) != set(theirs["labels"]):
        odd = sorted(set(mine["labels"]) ^ set(theirs["labels"]))
        objections.append(f"the label lists differ ({', '.join(odd)})")
    if alone := [
        f"{len(rows) - len(shared):,} rows only in {name}"
        for rows, name in ((a, "A"), (b, "B"))
        if len(rows) > len(shared)
    ]:
        objections.append(" and ".join(alone))
    if len(golds) < len(shared):
        objections.append(f"{len(shared) - len(golds):,} rows have another gold label in B; they are left out")
    return ComparedTask(
        name=task,
        dimension=mine["dimension"],
        dataset=mine["dataset"],
        rows=[(a[name], b[name]) for name in golds],
        labels=list(dict.fromkeys([*mine["labels"], *theirs["labels"]])),
        objections=objections,
    )


def _scored(rows: Sequence[SampleRow]) -> dict[str, SampleRow]:
    """Document id -> row: those that were asked, of repeat 0 where there are several."""
    return {row["doc"]["id"]: row for row in rows if row["answer"]["outcome"] != "skipped" and not row.get("repeat")}


def _paired(task: ComparedTask) -> PairedTask:
    source = SOURCES.get(task.dataset)
    return PairedTask(
        task.labels,
        [
            PairedRow(
                gold=a["doc"]["label"],
                first=a["answer"]["label"],
                second=b["answer"]["label"],
                cluster=source.cluster_of(a["doc"]["id"]) if source else a["doc"]["id"],
            )
            for a, b in task.rows
        ],
    )


# -------------------------------------------------------------------------------------------------- what is different


def _differs(first: Run, second: Run, tasks: Sequence[ComparedTask]) -> Iterator[Differs]:
    a, b = _facts(first, tasks), _facts(second, tasks)
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield Differs(name, _shown(a.get(name)), _shown(b.get(name)))
    pairs = [pair for task in tasks for pair in task.rows]
    for what, of in (("prompts as sent", _prompt), ("frames shown", _frames)):
        count = sum(of(x) != of(y) for x, y in pairs)
        if count:
            yield Differs(what, f"other in {count:,} of {len(pairs):,} rows", "")


def _prompt(row: SampleRow) -> Any:
    return row["prompt_hash"]


def _frames(row: SampleRow) -> Any:
    return row["response"].get("frames")


def _facts(run: Run, tasks: Sequence[ComparedTask]) -> dict[str, Any]:
    """Everything recorded that may move a score, flat; for both runs in one order."""
    facts, config = run.facts, run.results["config"]
    names = [name for name in run.tasks if any(name in (t.name, *_twins(t.name)) for t in tasks)]
    facts_of_tasks = {
        "question": {name: run.results["configs"][name].get("prompt") for name in names},
        "task version": {name: run.results["versions"].get(name) for name in names},
        "examples": {name: run.results["n-shot"].get(name, 0) for name in names},
        "decoding": {name: facts["decoding"].get(name) for name in names},
        "labels in the prompt": {name: run.tasks[name].get("prompt_labels") for name in names},
    }
    return _flat(
        {
            "backend": config["model"],
            "model": facts["model"],
            "answers": facts["answer"],
            "protocol": facts["protocol"],
            "released family": facts.get("released_family"),
            "modality": sorted({run.tasks[name]["modality"] for name in names}),
            "label order": facts.get("label_order"),
            "repeats": facts.get("repeats", {}).get("count"),
            "chat template": facts["chat_template"],
            "system prompt": config["system_instruction"],
            "frames": facts["frame_policy"],
            "bad clips": facts["on_bad_clip"],
            "rows without their video": _one_for_all({name: run.tasks[name]["counts"]["as_text"] for name in names}),
            **{what: _one_for_all(values) for what, values in facts_of_tasks.items()},
            "seeds": {name: config.get(f"{name}_seed") for name in ("random", "numpy", "torch", "fewshot")},
            "data commit": _one_for_all({name: run.tasks[name]["data"]["commit"] for name in names}),
            "versions": facts["versions"],
        }
    )


def _twins(name: str) -> tuple[str, str]:
    return name.removesuffix(TEXT_SUFFIX), name + TEXT_SUFFIX


def _one_for_all(values: Mapping[str, Any]) -> Any:
    """The one value that all tasks have; else each task's, under its name without ``_text``."""
    if all(value == next(iter(values.values())) for value in values.values()):
        return next(iter(values.values()))
    return {name.removesuffix(TEXT_SUFFIX): value for name, value in values.items()}


def _flat(facts: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{at}{key}"
        flat |= _flat(value, f"{name}: ") if isinstance(value, Mapping) else {name: value}
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --------------------------------------------------------------------------------------------------------- laying out


def table(compared: RunComparison) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`, in percent: one row per task, then the averages."""
    rows = [_cells(task, compared.scores.tasks[task.name]) for task in compared.tasks]
    if len(rows) > 1:
        scores = compared.scores
        total = sum(task.rows for task in scores.tasks.values())
        rest = ("",) * 5
        rows.append(("all rows", "", f"{total:,}", *_lead(scores.all_rows), "", "", *rest))
        macro = _lead(scores.mean_of_macro_f1)[2:]
        rows.append(("mean of datasets", "", "", *_lead(scores.mean_of_tasks), *macro, *rest))
    return rows


def _cells(named: ComparedTask, task: TaskComparison) -> tuple[str, ...]:
    return (
        named.dimension,
        named.dataset,
        f"{task.rows:,}",
        *_lead(task.acc),
        *_lead(task.macro_f1)[2:],
        f"{task.only_first:,}",
        f"{task.only_second:,}",
        _p(task.p_value),
        _p(task.corrected) + (f" {MARK}" if task.is_significant else ""),
        "–" if task.detectable is None else f"{100 * task.detectable:.1f}",
    )


def _lead(difference: Difference) -> tuple[str, str, str, str]:
    low, high = difference.interval
    return (
        f"{100 * difference.first:.1f}",
        f"{100 * difference.second:.1f}",
        signed(difference.value),
        f"{signed(low)} to {signed(high)}",
    )


def signed(value: float) -> str:
    """A fraction as percentage points, such as ``+2.1`` or ``−0.3``."""
    points = round(100 * value, 1)
    return "0.0" if points == 0 else f"{points:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict(compared: RunComparison) -> str:
    """What it comes to, in one sentence."""
    tasks = compared.scores.tasks
    better = [f"{name} ({'B' if tasks[name].acc.value > 0 else 'A'} is better)" for name in compared.scores.significant]
    if not better:
        of = "any of " * (len(tasks) > 1) + f"{len(tasks)} task{'s' * (len(tasks) > 1)}"
        return f"no difference beyond chance on {of} (5 % level, Holm's correction)"
    count = f"{len(better)} of {len(tasks)}"
    return f"a difference beyond chance on {count} (5 % level, Holm's correction): {', '.join(better)}"


def method(compared: RunComparison) -> list[str]:
    """How the numbers are to be read."""
    drawn: dict[str, list[str]] = {}
    for task in compared.tasks:
        source = SOURCES.get(task.dataset)
        clusters = compared.scores.tasks[task.name].clusters
        unit = f"{source.clusters}s" if source and clusters else "rows"
        drawn.setdefault(unit, []).append(f"{task.dataset} ({clusters})" if clusters else task.dataset)
    units = "; ".join(f"{unit} of {', '.join(datasets)}" for unit, datasets in drawn.items())
    return [
        "B − A in percentage points of accuracy, then of macro F1 (mF1), each with a 95 % interval of the paired, "
        f"bias-corrected bootstrap (1,000 draws, seed 0); drawn are {units}.",
        "A only, B only: rows that one has right and the other has wrong. p: McNemar's exact test on them. "
        f"Holm: p corrected for the number of tasks; {MARK} below 5 %.",
        "detectable: the least difference that this test would find in 80 % of such pairs of runs, on this task alone.",
    ]


def caveats(compared: RunComparison) -> list[str]:
    """What must stand beside the comparison."""
    notes = [f"not comparable as they stand, compared all the same: {why}" for why in compared.objections]
    for name, run in (("A", compared.first), ("B", compared.second)):
        notes += [f"{name}: {note}" for note in run.facts["notes"]]
        if "repeats" in run.facts:
            notes.append(f"{name}: repeat 0 of {run.facts['repeats']['count']} is compared")
    return notes


def as_markdown(compared: RunComparison) -> str:
    """Lay a comparison out as Markdown."""
    return _rendered("comparison.md.j2", compared, autoescape=False)


def as_html(compared: RunComparison) -> str:
    """Lay a comparison out as one HTML file that needs nothing else."""
    return _rendered("comparison.html.j2", compared, autoescape=True)


def _rendered(template: str, compared: RunComparison, *, autoescape: bool) -> str:
    text: str = _template(template, autoescape).render(
        runs=[("A", compared.first), ("B", compared.second)],
        caveats=caveats(compared),
        verdict=verdict(compared),
        differs=compared.differs,
        headings=HEADINGS,
        rows=table(compared),
        method=method(compared),
        leads=_leads(compared),
        signed=signed,
    )
    return text


@lru_cache(maxsize=2)
def _template(name: str, autoescape: bool) -> jinja2.Template:
    text = resources.files("harness_ext.reports").joinpath(name).read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=autoescape)
    environment.filters["cell"] = _cell
    return environment.from_string(text)


def _cell(value: str) -> str:
    """Keep text from breaking a Markdown table."""
    return value.replace("|", "\\|").replace("\n", " ")


def _leads(compared: RunComparison) -> list[tuple[str, Difference]]:
    """What the picture shows, top to bottom."""
    leads = [(task.dataset, compared.scores.tasks[task.name].acc) for task in compared.tasks]
    averages = [("all rows", compared.scores.all_rows), ("mean of datasets", compared.scores.mean_of_tasks)]
    return [*leads, *(averages if len(leads) > 1 else [])]
