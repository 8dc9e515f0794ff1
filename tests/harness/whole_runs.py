"""Run folders as whole benchmark runs leave them: results of a small real run, its counts grown to the known ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from harness_ext import evaluate
from harness_ext.catalogue import packaged_labels
from harness_ext.reports.benchmark import task_ids
from mmla_tasks.sources import SOURCES
from mmla_tasks.statistics import wilson_interval


def small_results(folder: Path) -> dict[str, Any]:
    """Results of `mmla-predictions` over one row per label of each dataset, all answered rightly."""
    lines = []
    for task_id, dataset in task_ids().items():
        labels = packaged_labels()[dataset]
        rows = "".join(f"{n}\tNobody said this.\t{label}\n" for n, label in enumerate(labels))
        (folder / dataset).mkdir(parents=True)
        (folder / dataset / "test.tsv").write_text("id\ttext\tlabel\n" + rows, encoding="utf-8")
        lines += [
            json.dumps({"task": f"{task_id}_text", "id": str(n), "response": label}) for n, label in enumerate(labels)
        ]
    (folder / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    args = {"answers": str(folder / "answers.jsonl"), "name": "small"}
    results = evaluate("mmla-predictions", "mmla_text", model_args=args, data_dir=str(folder))
    return {key: value for key, value in results.items() if key != "samples"}


def grown(small: Mapping[str, Any], name: str, accuracy: float | Mapping[str, float]) -> dict[str, Any]:
    """Results as a run over the whole test sets would leave them.

    Args:
        small: What `small_results` gave.
        name: Of the model.
        accuracy: Of every dataset, or one for all.
    """
    results = json.loads(json.dumps(small))
    results["config"]["model_args"]["name"] = results["mmla"]["model"]["name"] = name
    results["mmla"]["notes"] = []
    for leaf, block in results["mmla"]["tasks"].items():
        known = SOURCES[block["dataset"]].rows["test"] or 0
        wanted = accuracy if isinstance(accuracy, float) else accuracy[block["dataset"]]
        correct = round(wanted * known)
        block["data"].update(rows=known, known_rows=known, difference=None, commit="c" * 40)
        block["counts"].update(rows=known, asked=known)
        block["intervals"]["acc"] = wilson_interval(correct, known)
        results["results"][leaf]["acc,none"] = correct / known
    return results


def write_run(folder: Path, results: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def without(results: Mapping[str, Any], *leaves: str) -> dict[str, Any]:
    """The results of a run that was not asked these tasks."""
    fewer = deepcopy(dict(results))
    for leaf in leaves:
        del fewer["mmla"]["tasks"][leaf]
    return fewer
