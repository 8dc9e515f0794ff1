"""Way 2: unmodified lm_eval runs the text tasks, with the prompts and scores of `mmla run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TASKS = "mmla_intent_text"


def lm_eval(smollm2: Path, out: Path, *more: str) -> dict[str, list[dict[str, Any]]]:
    """Run the installed `lm_eval` in a process of its own; return its samples per task."""
    from harness_ext.catalogue import yaml_folder

    command = [
        sys.executable, "-m", "lm_eval", "--include_path", str(yaml_folder()), "--model", "hf",
        "--model_args", f"pretrained={smollm2},dtype=float32", "--device", "cpu", "--tasks", TASKS, "--limit", "5",
        "--gen_kwargs", "max_gen_toks=12", "--output_path", str(out), "--log_samples", *more,
    ]  # fmt: skip
    environment = {**os.environ, "MMLA_DATA_DIR": "sample", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    samples = {}
    for path in out.rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        samples[path.name.removeprefix("samples_").rsplit("_", 1)[0]] = sorted(rows, key=lambda row: row["doc_id"])
    return samples


def test_same_prompts_and_scores(smollm2: Path, tmp_path: Path) -> None:
    from harness_ext import evaluate

    theirs = lm_eval(smollm2, tmp_path, "--apply_chat_template")
    ours = evaluate(
        "mmla-hf", TASKS, model_args={"pretrained": str(smollm2), "dtype": "float32"}, device="cpu",
        data_dir="sample", limit=5, gen_kwargs={"max_gen_toks": 12},
    )  # fmt: skip
    assert theirs.keys() == ours["samples"].keys()
    for task, rows in theirs.items():
        assert len(rows) == 5
        for a, b in zip(rows, ours["samples"][task], strict=True):
            assert a["arguments"]["gen_args_0"]["arg_0"] == b["arguments"][0][0]
            assert a["resps"][0][0].strip() == b["resps"][0][0].strip()
            assert (a["filtered_resps"], a["acc"]) == (b["filtered_resps"], b["acc"])
