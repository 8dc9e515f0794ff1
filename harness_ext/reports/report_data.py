"""What a report says, as plain data: everything that HTML, Markdown, LaTeX, JSON and the figures only lay out.

Scores are fractions from 0 to 1, those of published systems too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness_ext.catalogue import TEXT_SUFFIX, packaged_labels
from harness_ext.reports.provenance import Fact, made, protocol_deltas
from harness_ext.reports.run_files import Run, SampleRow
from harness_ext.reports.table import Average, BadClips, averages, bad_clips, is_whole, notes, published_method
from mmla_tasks.calibration import Calibration, RankedAnswer, calibration
from mmla_tasks.published import METHOD_NAMES, Method, human, leaderboard_average, prior_best, published, source
from mmla_tasks.root import SAMPLE_NOTE
from mmla_tasks.scorers import METRICS, ClassScores, ConfusionMatrix
from mmla_tasks.statistics import Baseline, ClassIntervals, Interval, class_intervals, metric_intervals


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval."""

    value: float | None
    """None where nothing was asked."""
    low: float
    high: float
    sd: float | None = None
    """Standard deviation over repeats; None without repeats."""


@dataclass(frozen=True)
class Neighbours:
    """Published results on the same rows with the same labels."""

    models: Mapping[str, float]
    """Those of the report's method."""
    prior_best: tuple[str, float] | None
    """The best specialised method, and its accuracy."""
    human: float | None

    @property
    def range(self) -> Interval | None:
        """From the worst to the best model."""
        return (min(self.models.values()), max(self.models.values())) if self.models else None

    @property
    def best(self) -> str | None:
        """The model with the highest accuracy."""
        return max(self.models, key=self.models.__getitem__) if self.models else None


@dataclass(frozen=True)
class ClassReport:
    """One label of a task."""

    label: str
    scores: ClassScores
    intervals: ClassIntervals
    """Wilson's; (0, 1) where there is nothing to measure."""
    answered: int
    """Rows that got this label as their answer."""


@dataclass(frozen=True)
class TaskReport:
    """One task."""

    task: str
    name: str
    """Dataset and nothing else where that is enough to tell tasks apart."""
    dimension: str
    dataset: str
    modality: str
    labels: Sequence[str]
    rows: int
    """Asked."""
    of: int
    """Rows that there are: of the released test set where it is known, else of the file."""
    scores: Mapping[str, Score]
    """Every metric of `mmla_tasks.scorers.METRICS`."""
    majority: Baseline
    prior: Baseline
    neighbours: Neighbours | None
    """None for a partial set, other labels or another dataset: nothing published compares."""
    classes: Sequence[ClassReport]
    confusion: ConfusionMatrix
    counts: Mapping[str, Any]
    calibration: Calibration | None
    """None where answers were not ranked."""
    data: Mapping[str, Any]
    """File, digest, rows."""
    prompts_sha256: str

    @property
    def partial(self) -> bool:
        """Whether it is not the whole test set that was asked."""
        return self.rows != self.of

    @property
    def acc(self) -> Score:
        """Accuracy."""
        return self.scores["acc"]


@dataclass(frozen=True)
class DimensionReport:
    """The datasets of one dimension together; every dataset counts alike."""

    name: str
    tasks: Sequence[str]
    acc: float
    published: Mapping[str, float]
    """Model -> the same mean; empty unless all its datasets compare."""
    partial: bool


@dataclass(frozen=True)
class RunReport:
    """One run."""

    model: str
    backend: str
    answer: str
    protocol: str
    modality: str
    date: str
    sample_data: bool
    method: Method | None
    """Of the published rows that stand beside; None for few-shot runs and adapters that nobody told the training of."""
    notes: Sequence[str]
    tasks: Sequence[TaskReport]
    dimensions: Sequence[DimensionReport]
    averages: Sequence[Average]
    """In percent, as everywhere that `Average` is."""
    leaderboard: Mapping[str, float]
    """Published averages over all rows, where this run's compares; else empty."""
    left_out: Sequence[Mapping[str, str]]
    bad_clips: Sequence[BadClips]
    repeats: int
    made: Sequence[Fact]
    deltas: Sequence[str]
    published_source: str

    @property
    def rows(self) -> int:
        """Rows asked, over all tasks."""
        return sum(task.rows for task in self.tasks)

    @property
    def method_name(self) -> str:
        """Such as ``zero-shot``."""
        return METHOD_NAMES[self.method] if self.method else ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-plain; what is not a number is null."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain


def run_report(run: Run, method: Method | None = None) -> RunReport:
    """Measure a run.

    Args:
        run: A finished run.
        method: Of the published rows that stand beside; else what the run tells, see `table.published_method`.

    Raises:
        RunFilesError: Its samples are missing or damaged.
    """
    facts, config = run.facts, run.results["config"]
    chosen = method or published_method(run.results)
    tasks = [_task(run, name, chosen) for name in run.tasks]
    means = averages(run.results)
    comparable = bool(means) and is_whole(run.results) and all(task.neighbours for task in tasks)
    return RunReport(
        model=run.model,
        backend=config["model"],
        answer=facts["answer"],
        protocol=facts["protocol"],
        modality=modality_of(run),
        date=run.results.get("date", ""),
        sample_data=SAMPLE_NOTE in facts["notes"],
        method=chosen,
        notes=notes(run.results),
        tasks=tasks,
        dimensions=list(_dimensions(tasks)),
        averages=means,
        leaderboard={m: v / 100 for m, v in leaderboard_average(chosen).items()} if chosen and comparable else {},
        left_out=facts["left_out"],
        bad_clips=bad_clips(run.results),
        repeats=facts.get("repeats", {}).get("count", 1),
        made=list(made(run)),
        deltas=list(protocol_deltas(run)),
        published_source=source(),
    )


def modality_of(run: Run) -> str:
    """What the model was shown, such as ``text+video``; several where tasks differ."""
    return ", ".join(dict.fromkeys(block["modality"] for block in run.tasks.values()))


def first_repeat(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """The samples of repeat 0, or all where there are no repeats."""
    return [row for row in rows if not row.get("repeat", 0)]


def is_scored(row: SampleRow) -> bool:
    """Whether a sample was asked, so that it counts."""
    return bool(row["answer"]["outcome"] != "skipped")


def _task(run: Run, name: str, method: Method | None) -> TaskReport:
    block = run.tasks[name]
    rows = [row for row in run.samples[name] if is_scored(row)]
    data, asked = block["data"], block["counts"]["asked"]
    return TaskReport(
        task=name,
        name=block["dataset"] if _is_only(run, name) else name,
        dimension=block["dimension"],
        dataset=block["dataset"],
        modality=block["modality"],
        labels=block["labels"],
        rows=asked,
        of=data["known_rows"] or data["rows"],
        scores=_scores(run, name, rows),
        majority=block["baselines"]["majority"],
        prior=block["baselines"]["prior"],
        neighbours=_neighbours(block, method),
        classes=_classes(block, first_repeat(rows)),
        confusion=block["confusion"],
        counts=block["counts"],
        calibration=calibration(_ranked(first_repeat(rows))),
        data=data,
        prompts_sha256=block["prompts_sha256"],
    )


def _is_only(run: Run, name: str) -> bool:
    """Whether no other task of the run asks the same dataset."""
    return [b["dataset"] for b in run.tasks.values()].count(run.tasks[name]["dataset"]) == 1


def _scores(run: Run, name: str, rows: Sequence[SampleRow]) -> dict[str, Score]:
    labels, values = list(run.tasks[name]["labels"]), run.results["results"][name]
    spreads = run.facts.get("repeats", {}).get("tasks", {}).get(name, {}).get("metrics", {})
    per_repeat = [metric_intervals(*_pairs(part), labels) for part in _repeats(rows)]
    return {
        metric: Score(
            value=values.get(f"{metric},none"),
            low=min(bounds[metric][0] for bounds in per_repeat),
            high=max(bounds[metric][1] for bounds in per_repeat),
            sd=spreads.get(metric, {}).get("sd"),
        )
        for metric in METRICS
    }


def _repeats(rows: Sequence[SampleRow]) -> list[list[SampleRow]]:
    count = 1 + max((row.get("repeat", 0) for row in rows), default=0)
    return [[row for row in rows if row.get("repeat", 0) == r] for r in range(count)]


def _pairs(rows: Sequence[SampleRow]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Gold and parsed label, by either rule."""
    clean = [(row["doc"]["label"], row["answer"]["label"]) for row in rows]
    return clean, [(row["doc"]["label"], row["answer"]["released"]) for row in rows]


def _neighbours(block: Mapping[str, Any], method: Method | None) -> Neighbours | None:
    dataset, labels = block["dataset"], packaged_labels().get(block["dataset"])
    if block["labels"] != labels or block["counts"]["asked"] != block["data"]["known_rows"]:
        return None
    table = published(method) if method else {}
    models = {model: row[dataset] / 100 for model, row in table.items() if dataset in row}
    best, people = prior_best().get(dataset), human().get(dataset)
    return Neighbours(
        models=models,
        prior_best=(best["method"], best["accuracy"] / 100) if best else None,
        human=people / 100 if people is not None else None,
    )


def _classes(block: Mapping[str, Any], rows: Sequence[SampleRow]) -> list[ClassReport]:
    intervals = class_intervals(_pairs(rows)[0], block["labels"])
    answers = Counter(row["answer"]["label"] for row in rows)
    return [ClassReport(x, block["per_class"][x], intervals[x], answers[x]) for x in block["labels"]]


def _ranked(rows: Sequence[SampleRow]) -> list[RankedAnswer]:
    return [RankedAnswer(row["doc"]["label"], row["probabilities"]) for row in rows if row.get("probabilities")]


def _dimensions(tasks: Sequence[TaskReport]) -> list[DimensionReport]:
    return [
        _dimension(name, [t for t in tasks if t.dimension == name])
        for name in dict.fromkeys(t.dimension for t in tasks)
    ]


def _dimension(name: str, tasks: Sequence[TaskReport]) -> DimensionReport:
    known = [task.acc.value for task in tasks if task.acc.value is not None]
    tables = [task.neighbours.models if task.neighbours else {} for task in tasks]
    return DimensionReport(
        name=name,
        tasks=[task.task for task in tasks],
        acc=sum(known) / len(known) if known else math.nan,
        published={
            m: sum(table[m] for table in tables) / len(tables) for m in tables[0] if all(m in t for t in tables)
        },
        partial=any(task.partial for task in tasks),
    )


def base_task(name: str) -> str:
    """The name that a task and its text-only twin share."""
    return name.removesuffix(TEXT_SUFFIX)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, (list, tuple)) else value
