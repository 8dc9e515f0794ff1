"""One command trains, evaluates, and goes on with whichever of the two it has not finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext.reports.run_files import read_run

pytestmark = [
    pytest.mark.slow,
    # transformers and peft warn about their own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
pytest.importorskip("torch", reason="the extra `hf` is not installed")

TASK = "mmla_speaking_style_mustard"


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_one_command_trains_and_evaluates(
    adapter: str, tiny_llama: Path, tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    command = (
        "finetune", "run", "--model", tiny_llama, "--tasks", TASK, "--data_dir", "sample", "--modality", "text",
        "--adapter", adapter, "--max_steps", 3, "--batch_size", 4, "--learning_rate", 0.01, "--selection.every", 3,
        "--output_dir", tmp_path / "run", "--evaluate.test", "true", "--evaluate.model_args", '{"answer": "rank"}',
    )  # fmt: skip
    ran = mmla(*command)
    assert ran.status == 0, ran.err
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    run = read_run(tmp_path / "run" / "evaluation")
    (block,) = run.facts["training"]
    assert run.facts["method"] == "sft" and block["base"]["digest"] == record["base"]["digest"]
    assert {name: block[name] for name in ("config", "data", "selection", "steps")} == {
        name: record[name] for name in ("config", "data", "selection", "steps")
    }
    what = "LoRA rank 16" if adapter == "lora" else "all weights"
    line = f"SFT, {what}, selected at step {record['selection']['step']} of 3 by dev acc"
    assert any(note.startswith(line) for note in run.facts["notes"]), run.facts["notes"]
    assert bool(run.facts["model"]["peft"]) is (adapter == "lora")

    if adapter == "none":
        return
    trained = (tmp_path / "run" / "training.json").stat().st_mtime_ns
    journal = [path.read_bytes() for path in sorted((run.path / "journal").iterdir())]
    (run.path / "results.json").unlink()
    assert mmla(*command).status == 0
    assert (tmp_path / "run" / "training.json").stat().st_mtime_ns == trained
    assert [path.read_bytes() for path in sorted((run.path / "journal").iterdir())] == journal
    assert read_run(run.path).results["results"] == run.results["results"]
