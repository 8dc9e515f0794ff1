"""The score table of a run as plain data; console and score card only lay it out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.catalogue import Catalogue, packaged_labels
from mmla_tasks.published import METHOD_NAMES, METHODS, Method, published
from mmla_tasks.statistics import wilson_interval

USUAL_MODEL = {"text": "Qwen2-7B", "video": "Qwen2-VL-7B"}
"""The published row of a modality that is shown beside ours, with that of the method's best system."""


@dataclass(frozen=True)
class Row:
    """Scores of one task, in percent."""

    task: str
    dimension: str
    dataset: str
    rows: int
    acc: float | None
    acc_sd: float | None
    """Standard deviation over repeats; None without repeats. So are the others."""
    low: float
    high: float
    weighted_f1: float | None
    weighted_f1_sd: float | None
    macro_f1: float | None
    macro_f1_sd: float | None
    macro_f1_low: float
    macro_f1_high: float
    unparsed: float | None
    agreement: float | None
    """Rows that got one and the same label in all repeats; None without repeats."""
    majority: float | None
    prior: float | None
    published: str
    """Such as ``Qwen2-VL-7B 56.6 · GPT-4o 63.4``; empty for partial sets, other label lists and other datasets."""


@dataclass(frozen=True)
class Average:
    """One way of averaging over the tasks of a run, in percent."""

    name: str
    acc: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BadClips:
    """Rows of one task whose clips had one fault."""

    task: str
    fault: str
    ids: Sequence[str]

    @property
    def listed(self) -> str:
        """The first few ids; results.json holds all."""
        more = f" and {len(self.ids) - 10:,} more" if len(self.ids) > 10 else ""
        return ", ".join(self.ids[:10]) + more


def rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """One row per task that was run, in the order of the run."""
    method = published_method(results)
    for name, block in results["mmla"]["tasks"].items():
        scores = results["results"][name]
        repeated = _repeats(results).get(name, {})
        low, high = block["intervals"]["acc"]
        f1_low, f1_high = block["intervals"]["macro_f1"]
        yield Row(
            task=name,
            dimension=block["dimension"],
            dataset=block["dataset"],
            rows=block["counts"]["asked"],
            acc=_percent(scores.get("acc,none")),
            acc_sd=_spread(repeated, "acc"),
            low=100 * low,
            high=100 * high,
            weighted_f1=_percent(scores.get("weighted_f1,none")),
            weighted_f1_sd=_spread(repeated, "weighted_f1"),
            macro_f1=_percent(scores.get("macro_f1,none")),
            macro_f1_sd=_spread(repeated, "macro_f1"),
            macro_f1_low=100 * f1_low,
            macro_f1_high=100 * f1_high,
            unparsed=_percent(scores.get("unparsed,none")),
            agreement=_percent(repeated.get("agreement")),
            majority=_percent(block["baselines"]["majority"]["accuracy"]),
            prior=_percent(block["baselines"]["prior"]["accuracy"]),
            published=_published(block, method) if block["counts"]["asked"] == block["data"]["known_rows"] else "",
        )


def method_of(results: Mapping[str, Any]) -> str:
    """How the model met the benchmark: ``zero_shot``, ``few_shot``, ``sft``, ``it``, or with some ``adapter``."""
    told: str | None = results["mmla"].get("method")
    few = any(results["n-shot"].get(leaf) for leaf in results["mmla"]["tasks"])
    return told or ("few_shot" if few else "zero_shot")


def published_method(results: Mapping[str, Any]) -> Method | None:
    """Of the published rows that compare with a run; None where none do, or its adapter's training is not known."""
    told = method_of(results)
    if told == "zero_shot" and results["mmla"]["model"].get("peft"):
        return None
    return next((method for method in METHODS if method == told), None)


def published_heading(results: Mapping[str, Any]) -> str:
    """Such as ``published (zero-shot)``: the heading above `Row.published`."""
    method = published_method(results)
    return f"published ({METHOD_NAMES[method]})" if method else "published"


def averages(results: Mapping[str, Any]) -> list[Average]:
    """Both averages over all tasks of the run; none for a single task.

    The first weighs every row alike; on the twelve full test sets it is the published leaderboard's ACC.
    """
    blocks = results["mmla"]["tasks"]
    scored = [(results["results"][name], block["counts"]["asked"]) for name, block in blocks.items()]
    known = [(scores["acc,none"], asked) for scores, asked in scored if scores.get("acc,none") is not None and asked]
    if len(known) < 2:
        return []
    total = sum(asked for _, asked in known)
    correct = round(sum(acc * asked for acc, asked in known), 6)  # no whole number where it is a mean over repeats
    low, high = wilson_interval(round(correct), total)
    weights = {name: block["counts"]["asked"] for name, block in blocks.items()}
    skipped = sum(block["counts"]["skipped"] for block in blocks.values())
    return [
        Average(
            "all rows (leaderboard)" if is_whole(results) else "answered rows" if skipped else "all rows",
            100 * correct / total,
            _spread_of_mean(results, weights),
            100 * low,
            100 * high,
        ),
        Average(
            "mean of datasets",
            100 * sum(acc for acc, _ in known) / len(known),
            _spread_of_mean(results, dict.fromkeys(weights, 1)),
        ),
        *([_over_all_rows(blocks, correct)] if skipped else []),
    ]


def is_whole(results: Mapping[str, Any]) -> bool:
    """Whether all test rows of all twelve tasks were asked, and nothing else."""
    blocks = results["mmla"]["tasks"]
    asked_all = all(block["counts"]["asked"] == block["data"]["known_rows"] for block in blocks.values())
    return list(blocks) in _benchmarks() and asked_all


def _over_all_rows(blocks: Mapping[str, Any], correct: float) -> Average:
    total = sum(block["counts"]["rows"] for block in blocks.values())
    low, high = wilson_interval(round(correct), total)
    return Average("all rows, skipped ones as wrong", 100 * correct / total, None, 100 * low, 100 * high)


def _repeats(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """Task -> its spread over repeats; empty without repeats."""
    tasks: Mapping[str, Any] = results["mmla"].get("repeats", {}).get("tasks", {})
    return tasks


def _spread(repeated: Mapping[str, Any], metric: str) -> float | None:
    sd: float | None = repeated.get("metrics", {}).get(metric, {}).get("sd")
    return _percent(sd)


def _spread_of_mean(results: Mapping[str, Any], weights: Mapping[str, int]) -> float | None:
    """Standard deviation, over repeats, of a weighted mean of tasks' accuracies, in percent."""
    repeated = {
        name: block["metrics"]["acc"]["values"]
        for name, block in _repeats(results).items()
        if "acc" in block["metrics"]
    }
    total = sum(weights[name] for name in repeated)
    if not total:
        return None
    of_repeats = zip(*([weights[name] * value for value in values] for name, values in repeated.items()), strict=True)
    return float(100 * statistics.stdev(sum(values) / total for values in of_repeats))


def notes(results: Mapping[str, Any]) -> list[str]:
    """What must stand beside every score."""
    return [*results["mmla"]["notes"], *_about_averages(results), *_accuracies(results)]


def _about_averages(results: Mapping[str, Any]) -> Iterator[str]:
    """What must stand beside averages that could be taken for the benchmark's."""
    if averages(results) and not is_whole(results):
        yield f"averages are over the rows of these {len(results['mmla']['tasks'])} tasks: not the benchmark average"


def _accuracies(results: Mapping[str, Any]) -> Iterator[str]:
    """Where clips were bad: each task's accuracies, named apart."""
    for name, block in results["mmla"]["tasks"].items():
        if "bad_clips" not in block:
            continue
        counts, acc = block["counts"], results["results"][name].get("acc,none")
        with_video = counts["asked"] - counts["as_text"]
        parts = [
            (acc, f"over the {counts['asked']:,} answered rows"),
            (block["acc_all_rows"], f"over all {counts['rows']:,}, skipped ones as wrong"),
            (block["acc_with_video"], f"over the {with_video:,} shown their video"),
        ]
        differing = [
            part for part, there in zip(parts, (True, counts["skipped"], counts["as_text"]), strict=True) if there
        ]
        told = "; ".join(f"{'–' if value is None else f'{100 * value:.1f}'} {rows}" for value, rows in differing)
        yield f"{name}: accuracy {told}"


def bad_clips(results: Mapping[str, Any]) -> list[BadClips]:
    """Rows that were not shown their clip, by task and by what was wrong with it."""
    return [
        BadClips(name, fault, [row for row, why in block["bad_clips"].items() if why == fault])
        for name, block in results["mmla"]["tasks"].items()
        if "bad_clips" in block
        for fault in sorted(set(block["bad_clips"].values()))
    ]


def _benchmarks() -> list[list[str]]:
    """The twelve leaf tasks, with video and without."""
    catalogue = Catalogue.load()
    return [catalogue.leaves("mmla"), catalogue.leaves("mmla_text")]


def _published(block: Mapping[str, Any], method: Method | None) -> str:
    if method is None or block["labels"] != packaged_labels().get(block["dataset"]):
        return ""
    table = published(method)
    usual, best = USUAL_MODEL["text" if block["modality"] == "text" else "video"], next(iter(table))
    shown = [(model, table[model].get(block["dataset"])) for model in dict.fromkeys((usual, best))]
    return " · ".join(f"{model} {acc:.1f}" for model, acc in shown if acc is not None)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
