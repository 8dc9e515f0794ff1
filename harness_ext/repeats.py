"""Everything asked k times: what varies from repeat to repeat, and the results of all of them in one.

Repeat r lists the labels in the order drawn from SEED + r and samples with torch seed + r. One repeat is a run as ever.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness_ext.decoding import decoding
from harness_ext.label_order import LabelOrder
from harness_ext.usage import usage_over
from mmla_tasks.errors import UsageError

if TYPE_CHECKING:
    from harness_ext.run import RunOptions

OF_ALL = (
    "Scores are means over repeats. Intervals reach from the lowest lower bound to the highest upper bound of all "
    "repeats. Counts, confusion matrices, per-class scores and digests of prompts are those of repeat 0."
)
"""How the rest of the results is to be read where there are repeats."""

OTHER_ACCURACIES = ("acc_length_normalised", "acc_all_rows", "acc_with_video")
"""Accuracies that stand beside `acc` where there is something to say."""

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Leaf name -> sample rows."""


def repeats_of(options: RunOptions) -> Iterator[RunOptions]:
    """The options of each repeat, the first one's as they were given."""
    yield options
    for count in range(1, options.repeats):
        order = LabelOrder.read(options.label_order).later(count)
        python, numpy_seed, torch_seed, *rest = options.seed
        seeds = (python, numpy_seed, None if torch_seed is None else torch_seed + count, *rest)
        yield replace(options, label_order=str(order), seed=seeds)


def refuse_equal_repeats(tasks: Mapping[str, Any], options: RunOptions) -> None:
    """Refuse repeats that could only say the same again.

    Raises:
        UsageError: neither label order nor answers vary, or sampling has no seed that could.
    """
    if options.repeats == 1:
        return
    fixed = [name for name, task in tasks.items() if not is_sampled(task, options)]
    if len(fixed) < len(tasks) and options.seed[2] is None:
        raise UsageError("--repeats of sampled answers need a torch seed", next="--seed 0,1234,1234,1234")
    if fixed and not LabelOrder.read(options.label_order).is_shuffled:
        raise UsageError(
            f"--repeats {options.repeats} would ask {fixed[0]} the same each time",
            why="labels stand as declared and answers are not sampled",
            next="--label_order shuffled:0      or, with --answer generate, --gen_kwargs temperature=0.7",
        )


def is_sampled(task: Any, options: RunOptions) -> bool:
    """Whether a task's answers are drawn, so that they vary with the torch seed."""
    settings = decoding(task.config.generation_kwargs, options.gen_kwargs)
    return bool(settings["do_sample"]) and options.answer_mode != "rank"


def numbered(repeats: Sequence[Samples]) -> dict[str, list[dict[str, Any]]]:
    """The sample rows of all repeats, task by task; each tells its repeat where there are several."""
    if len(repeats) == 1:
        return {task: [dict(row) for row in rows] for task, rows in repeats[0].items()}
    return {
        task: [{"repeat": r, **row} for r, repeat in enumerate(repeats) for row in repeat[task]] for task in repeats[0]
    }


def over_repeats(results: Sequence[Mapping[str, Any]], samples: Sequence[Samples]) -> dict[str, Any]:
    """One results object for all repeats: the only one as it is, else as `OF_ALL` says, with the block ``repeats``.

    Args:
        results: What `build_results` made of each repeat.
        samples: Their sample rows.
    """
    combined = deepcopy(dict(results[0]))
    if len(results) == 1:
        return combined
    for section in ("results", "groups"):
        for name, scores in combined.get(section, {}).items():
            scores.update(_means([part[section][name] for part in results]))
    for kind in ("tasks", "groups"):
        for name, block in combined["mmla"][kind].items():
            block["intervals"] = _envelopes([part["mmla"][kind][name]["intervals"] for part in results])
    for kind in ("tasks", "groups"):
        for name, block in combined["mmla"][kind].items():
            for accuracy in OTHER_ACCURACIES:
                values = [part["mmla"][kind][name].get(accuracy) for part in results]
                if None not in values:
                    block[accuracy] = statistics.fmean(values)
    if "usage" in combined["mmla"]:
        combined["mmla"]["usage"] = usage_over([part["mmla"]["usage"] for part in results])
    combined["mmla"]["repeats"] = _block(results, samples)
    return combined


def _block(results: Sequence[Mapping[str, Any]], samples: Sequence[Samples]) -> dict[str, Any]:
    first = results[0]["mmla"]
    return {
        "count": len(results),
        "of_all": OF_ALL,
        "label_orders": [part["mmla"].get("label_order", "declared") for part in results],
        "torch_seeds": [part["config"]["torch_seed"] for part in results],
        "tasks": {
            name: {
                "metrics": _spreads([part["results"][name] for part in results]),
                "agreement": _agreement([name], samples),
                "prompt_labels": [
                    part["mmla"]["tasks"][name].get("prompt_labels", part["mmla"]["tasks"][name]["labels"])
                    for part in results
                ],
            }
            for name in first["tasks"]
        },
        "groups": {
            name: {
                "metrics": _spreads([part["results"][name] for part in results]),
                "agreement": _agreement(block["tasks"], samples),
            }
            for name, block in first["groups"].items()
        },
    }


def _values(scores: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """Each of lm-eval's metric keys with its number in every repeat, where every repeat has one."""
    for key in scores[0]:
        values = [part[key] for part in scores]
        if key.endswith(",none") and all(isinstance(value, float) for value in values):
            yield key, values


def _means(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {key: statistics.fmean(values) for key, values in _values(scores)}


def _spreads(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metric -> mean, standard deviation (of k - 1), least, greatest, and every repeat's own value."""
    return {
        key.removesuffix(",none"): {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values),
            "min": min(values),
            "max": max(values),
            "values": values,
        }
        for key, values in _values(scores)
        if not key.endswith("_stderr,none")
    }


def _envelopes(intervals: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    return {
        name: (min(part[name][0] for part in intervals), max(part[name][1] for part in intervals))
        for name in intervals[0]
    }


def _agreement(tasks: Sequence[str], samples: Sequence[Samples]) -> float | None:
    """Share of the asked documents that got one and the same label in all repeats; None when none was asked.

    An answer without a label agrees with none.
    """
    same = [
        len({row["answer"]["label"] for row in rows}) == 1 and rows[0]["answer"]["outcome"] == "matched"
        for task in tasks
        for rows in zip(*(repeat[task] for repeat in samples), strict=True)
        if rows[0]["answer"]["outcome"] != "skipped"
    ]
    return sum(same) / len(same) if same else None
