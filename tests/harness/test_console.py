"""Score tables leave columns out rather than cut a figure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness_ext.reports.console import print_scores


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from harness_ext import evaluate

    return evaluate("mmla-echo", ["mmla_text"], data_dir="sample", repeats=2, label_order="shuffled:0")


def shown(results: dict[str, Any], width: int) -> str:
    out = io.StringIO()
    print_scores(results, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_figure_is_cut(results: dict[str, Any], width: int) -> None:
    text = shown(results, width)
    assert "…" not in text and max(map(len, text.splitlines()[:20])) <= width
    for block in results["mmla"]["tasks"].values():
        assert block["dataset"] in text
    for heading in ("acc", "95 %", "mF1"):
        assert heading in text
    assert ("agreement" in text) == (width >= 100) and ("majority" in text) == (width >= 100)


def test_averages_of_some_tasks_are_named(mmla: Callable[..., Any], tmp_path: Path) -> None:
    ran = mmla(
        "run", "--model", "mmla-echo", "--tasks", "mmla_intent_text", "--data_dir", "sample", "--run_dir", tmp_path / "r"
    )  # fmt: skip
    note = "averages are over the rows of these 2 tasks: not the benchmark average"
    assert note in ran.out and note in (tmp_path / "r/scorecard.md").read_text()
    assert mmla("verify", tmp_path / "r").status == 0
    assert json.loads((tmp_path / "r/results.json").read_text())["mmla"]["notes"]
