"""Parity with the released code: every golden answers file, through `mmla-predictions` and the real road."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.catalogue import Catalogue

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = sorted((SHARED / "golden").glob("*.jsonl"))
TASK_OF = {
    str(file.config["dataset"]): file.name
    for file in Catalogue.load().files.values()
    if not file.is_group and file.modality == "text"
}
RELEASED = {
    "released_acc": "ACC",
    "released_f1": "F1",
    "released_precision": "Precision",
    "released_recall": "Recall",
    "released_wf1": "WF1",
    "released_wp": "WP",
}

pytestmark = pytest.mark.skipif(not GOLDEN, reason=f"no golden answers: {SHARED}/golden is not on this machine")


def run_on(
    rows: list[dict[str, Any]], dataset: str, folder: Path, tsv: Callable[..., Path], **options: Any
) -> dict[str, Any]:
    """Write rows as a test split and an answers file, and score them."""
    task = TASK_OF[dataset]
    tsv(folder / dataset / "test.tsv", [(row["id"], "placeholder", row["label"]) for row in rows])
    answers = folder / "answers.jsonl"
    lines = (json.dumps({"task": task, "id": row["id"], "response": row["response"]}) for row in rows)
    answers.write_text("\n".join(lines), encoding="utf-8")
    return evaluate("mmla-predictions", task, model_args={"answers": str(answers)}, data_dir=str(folder), **options)


def golden_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [{"id": str(n), **json.loads(line)} for n, line in enumerate(lines, 1) if line.strip()]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_parses_and_metrics_are_those_of_the_released_code(
    path: Path, tmp_path: Path, tsv: Callable[..., Path]
) -> None:
    rows = golden_rows(path)
    percent = json.loads(path.with_name(f"{path.stem}.metrics.json").read_text())["percent"]
    task = TASK_OF[path.stem]
    subsets = {"all": rows, "model_answers_only": [r for r in rows if r["source"] != "hand-made"]}
    for subset, chosen in subsets.items():
        results = run_on(chosen, path.stem, tmp_path / subset, tsv)
        for row, sample in zip(chosen, results["samples"][task], strict=True):
            assert sample["answer"]["released"] == row["released_code_parses"], row
        for ours, theirs in RELEASED.items():
            assert 100 * results["results"][task][f"{ours},none"] == pytest.approx(percent[subset][theirs], abs=0.01), (
                ours
            )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_paper_protocol_takes_the_released_parse(path: Path, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    rows = golden_rows(path)
    results = run_on(rows, path.stem, tmp_path, tsv, protocol="paper")
    for row, sample in zip(rows, results["samples"][TASK_OF[path.stem]], strict=True):
        assert sample["filtered_resps"] == [row["released_code_parses"]], row
