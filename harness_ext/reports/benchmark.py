"""What of a run counts as a benchmark score: its whole tasks, and the average when all twelve are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness_ext.catalogue import TEXT_SUFFIX, Catalogue, packaged_labels
from harness_ext.frame_policy import FramePolicy
from harness_ext.reports.run_files import Run
from harness_ext.reports.table import Average, Row, averages, rows
from harness_ext.training import sentences
from mmla_tasks.root import SAMPLE_NOTE
from mmla_tasks.sources import SOURCES

AVERAGE = "mmla"
"""Task id of the average over all test rows."""


@dataclass(frozen=True)
class Standing:
    """The tasks of a run that were asked in one modality."""

    run: Run
    modality: str
    tasks: Mapping[str, str]
    """Whole tasks: task id (the leaf's name without ``_text``) -> leaf name, in the order of the benchmark."""
    faults: Mapping[str, str]
    """Task id -> why it does not count."""

    @property
    def is_whole(self) -> bool:
        """Whether all twelve tasks count, so that their average is the benchmark's."""
        return not self.faults

    def rows(self) -> dict[str, Row]:
        """Task id -> its scores, of whole tasks."""
        by_leaf = {row.task: row for row in rows(self._results())}
        return {task_id: by_leaf[leaf] for task_id, leaf in self.tasks.items()}

    def averages(self) -> tuple[Average, Average]:
        """The average over all test rows, and the mean of datasets; for whole standings."""
        assert self.is_whole
        over_rows, over_datasets = averages(self._results())
        return over_rows, over_datasets

    def _results(self) -> dict[str, Any]:
        """The results with whole tasks alone."""
        facts = {**self.run.facts, "tasks": {leaf: self.run.tasks[leaf] for leaf in self.tasks.values()}}
        if repeats := facts.get("repeats"):
            kept = {leaf: block for leaf, block in repeats["tasks"].items() if leaf in facts["tasks"]}
            facts["repeats"] = {**repeats, "tasks": kept}
        return {**self.run.results, "mmla": facts}


def task_ids() -> dict[str, str]:
    """Task id -> dataset folder, in the order of the benchmark."""
    catalogue = Catalogue.load()
    return {leaf: str(catalogue.files[leaf].config["dataset"]) for leaf in catalogue.leaves("mmla")}


def standings(run: Run) -> list[Standing]:
    """One per modality of the run; tasks that are not MMLA's are passed over."""
    known = task_ids()
    modalities = dict.fromkeys(
        block["modality"] for leaf, block in run.tasks.items() if leaf.removesuffix(TEXT_SUFFIX) in known
    )
    return [_standing(run, modality, known) for modality in modalities]


def _standing(run: Run, modality: str, known: Mapping[str, str]) -> Standing:
    asked = {leaf.removesuffix(TEXT_SUFFIX): leaf for leaf, block in run.tasks.items() if block["modality"] == modality}
    left_out = {item["task"].removesuffix(TEXT_SUFFIX): str(item["why"]) for item in run.facts["left_out"]}
    faults = {}
    for task_id in known:
        if task_id not in asked:
            faults[task_id] = left_out.get(task_id, "not asked")
        elif fault := _fault(run.tasks[asked[task_id]]):
            faults[task_id] = fault
    return Standing(run, modality, {t: asked[t] for t in known if t in asked and t not in faults}, faults)


def _fault(block: Mapping[str, Any]) -> str | None:
    """Why a task is not the benchmark's; None when it is."""
    counts, source = block["counts"], SOURCES.get(block["dataset"])
    if source is None or block["labels"] != packaged_labels()[source.folder]:
        return "another dataset or label list than the benchmark's"
    rows_known = source.rows["test"]
    if block["data"]["rows"] != rows_known:
        return f"the data have {block['data']['rows']:,} rows, the benchmark {rows_known:,}"
    if counts["skipped"]:
        return f"{counts['skipped']:,} rows skipped because of bad clips"
    if counts["as_text"]:
        return f"{counts['as_text']:,} rows asked without their video"
    if counts["asked"] != rows_known:
        return f"a partial set: {counts['asked']:,} of {rows_known:,} rows"
    return None


def why_no_score(run: Run) -> str | None:
    """Why no number of this run is a benchmark score; None when some may be."""
    root, config = run.facts["data"]["root"], run.results["config"]
    if root and root["kind"] == "sample":
        return SAMPLE_NOTE
    if config["model"] == "mmla-echo":
        return "answers by the echo rule, not by a model"
    if config.get("shard"):
        return f"shard {config['shard']} of a run: put the shards together with mmla merge"
    if not standings(run):
        return "no task of MMLA is in it"
    return None


def settings_of(run: Run, modality: str) -> str:
    """How the model was asked, in one line."""
    facts = run.facts
    policy = facts["frame_policy"] if modality != "text" else None
    repeats = facts.get("repeats")
    shots = sorted({run.results["n-shot"].get(leaf, 0) for leaf in run.tasks} - {0})
    parts = [
        f"answer mode: {facts['answer']}",
        f"protocol: {facts['protocol']}" + (f" as for {family}" if (family := facts.get("released_family")) else ""),
        f"modality: {modality}",
        f"video: {FramePolicy(**policy).describe()}" if policy else None,
        *sentences(facts.get("training", ())),
        f"few-shot examples: {', '.join(map(str, shots))}" if shots else None,
        f"labels {order}" if (order := facts.get("label_order")) else None,
        f"mean of {repeats['count']} repeats" if repeats else None,
    ]
    return "; ".join(part for part in parts if part)
