"""Texts of IEMOCAP and MOSI leave this machine only for somebody who says that they have the rights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.rights import datasets_of, require_rights
from harness_ext.sending import for_loggers
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES

from .loopback_hub import TOKEN, Hub

Command = Callable[..., Any]
ECHO = ("run", "--model", "mmla-echo", "--model_args", "rule=gold", "--tasks")
TO_HUB = ("--hf_hub_log_args", "hub_results_org=me", "push_results_to_hub=True", "push_samples_to_hub=True")


@pytest.fixture
def roots(data_root: Callable[..., Path]) -> Path:
    rows = [("1", "A sentence that is nobody's.", "positive"), ("2", "Another one.", "negative")]
    return data_root(MOSI=rows, **{"CH-SIMSv2.0": rows})


def test_three_datasets_need_the_flag() -> None:
    refused = []
    for name in SOURCES:
        try:
            require_rights([name], "sending samples", granted=False)
        except UsageError as error:
            refused.append(name)
            assert name in str(error) and SOURCES[name].licence in str(error) and "--i_have_the_rights" in str(error)
        require_rights([name], "sending samples", granted=True)
    assert refused == ["IEMOCAP", "IEMOCAP-DA", "MOSI"]


def test_other_peoples_datasets_are_not_ours_to_judge() -> None:
    require_rights(["office"], "sending samples", granted=False)


def test_made_up_texts_belong_to_nobody() -> None:
    tasks = {"mmla_sentiment_mosi_text": {"dataset": "MOSI"}}
    assert datasets_of({"data": {"root": {"kind": "sample"}}, "tasks": tasks}) == set()
    assert datasets_of({"data": {"root": {"kind": "folder"}}, "tasks": tasks}) == {"MOSI"}
    assert datasets_of({"data": {"root": None}, "tasks": tasks}) == {"MOSI"}


@pytest.mark.parametrize(
    "sending",
    [("--hf_hub_log_args", "push_samples_to_hub=True"), ("--wandb_args", "project=x", "--log_samples")],
    ids=["hub", "wandb"],
)
def test_samples_are_refused_before_anything_runs(mmla: Command, roots: Path, tmp_path: Path, sending: Any) -> None:
    ran = mmla(*ECHO, "mmla_sentiment_text", "--data_dir", roots, "--run_dir", tmp_path / "run", *sending)
    assert ran.status == 2 and not (tmp_path / "run").exists()
    assert sending[0] in ran.err and "MOSI" in ran.err and "restricted (CMU-MultimodalSDK)" in ran.err
    assert "CH-SIMS" not in ran.err


def test_a_flag_that_sends_no_samples_needs_no_rights(mmla: Command, roots: Path) -> None:
    asked = (*ECHO, "mmla_sentiment_text", "--data_dir", roots, "--dry_run")
    assert mmla(*asked, "--log_samples").status == 0
    ran = mmla(*asked, "--wandb_args", "project=x")
    installed = importlib.util.find_spec("wandb") is not None
    assert ran.status == 0 if installed else "pip install wandb" in ran.err and "rights" not in ran.err
    assert mmla(*asked, "--hf_hub_log_args", "push_results_to_hub=True").status == 0


def test_an_output_path_would_push_what_lies_there(mmla: Command, roots: Path) -> None:
    ran = mmla(*ECHO, "mmla_sentiment_text", "--data_dir", roots, "--hf_hub_log_args", "output_path=runs")
    assert ran.status == 2 and "earlier runs" in ran.err


def send(hub: Hub, roots: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness_ext.cli", *ECHO, *arguments, "--data_dir", str(roots)]
    return subprocess.run(command, env={**os.environ, **hub.environment}, capture_output=True, text=True)


def test_scores_and_samples_arrive_where_the_licence_allows(hub: Hub, roots: Path) -> None:
    done = send(hub, roots, "mmla_sentiment_chsims2_text", *TO_HUB)
    assert done.returncode == 0, done.stderr
    files = {path: text for commit in hub.commits for path, text in commit.files.items()}
    samples = [text for path, text in files.items() if "samples_mmla_sentiment_chsims2_text" in path]
    results = [text for path, text in files.items() if "results_" in path]
    assert "A sentence that is nobody's." in samples[0]
    assert json.loads(results[0])["results"]["mmla_sentiment_chsims2_text"]["acc,none"] == 1
    assert TOKEN not in done.stdout + done.stderr + "".join(files.values())


def test_a_hub_that_does_not_take_it_is_said(hub: Hub, roots: Path) -> None:
    environment = {**os.environ, **hub.environment, "HF_TOKEN": "hf_another"}
    command = [sys.executable, "-m", "harness_ext.cli", *ECHO, "mmla_sentiment_chsims2_text", *TO_HUB]
    done = subprocess.run([*command, "--data_dir", str(roots)], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "the Hub did not take the results" in done.stderr and "401" in done.stderr


def test_lm_evals_loggers_read_our_samples(roots: Path) -> None:
    """What they make of a row, without the services that they send it to."""
    from lm_eval.loggers.trackio_logger import _sample_to_trace
    from lm_eval.loggers.wandb_logger import WandbLogger

    task = "mmla_sentiment_chsims2_text"
    outcome = evaluate("mmla-echo", task, model_args={"rule": "gold"}, data_dir=str(roots))
    rows = outcome.pop("samples")
    config = for_loggers(outcome, rows)["configs"][task]
    table = object.__new__(WandbLogger)._generate_dataset(rows[task], config)
    assert list(table["labels"]) == list(table["raw_predictions"]) == ["sentiment: positive", "sentiment: negative"]
    assert list(table["acc"]) == [1, 1]
    trace = _sample_to_trace(SimpleNamespace(Trace=dict), rows[task][0], task, config["output_type"])
    assert "A sentence that is nobody's." in trace["messages"][0]["content"]
    assert trace["messages"][1]["content"] == "positive" and trace["metadata"]["target"]
