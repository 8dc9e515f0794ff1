"""Instruction tuning on real texts: every dataset whose train texts are there, weights, overlap, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from finetune.config import Config
from finetune.mixture import shares
from finetune.progress import RunReporter
from finetune.run import data_of, run
from harness_ext import evaluate
from harness_ext.catalogue import Catalogue
from mmla_tasks.errors import DataError

from .learner import tiny_learner


def tasks_with_train(real_texts: Path) -> list[str]:
    catalogue = Catalogue.load()
    leaves = catalogue.leaves("mmla_text")
    return [n for n in leaves if (real_texts / str(catalogue.files[n].config["dataset"]) / "train.tsv").is_file()]


def settings(real_texts: Path, **changed: Any) -> Config:
    usual = {"model": "none", "tasks": tasks_with_train(real_texts), "data_dir": str(real_texts)}
    return Config(**{**usual, **changed})


def test_tasks_without_train_texts_are_named(real_texts: Path) -> None:
    with pytest.raises(DataError) as refused:
        data_of(settings(real_texts, tasks=["mmla_text"]))
    missing = {
        "intent_mintrec2",
        "emotion_meld",
        "dialogue_act_meld",
        "dialogue_act_iemocap",
        "speaking_style_urfunny2",
    }
    named = str(refused.value).partition(" have no train split")[0].split(", ")
    assert set(named) == {f"mmla_{name}_text" for name in missing}


def test_rows_that_stand_in_test_are_left_out_when_asked_for(real_texts: Path) -> None:
    """Known: 211 test rows of AnnoMi-client and 231 of AnnoMi-therapist stand in train."""
    whole, left = (data_of(settings(real_texts, exclude_test_overlap=out)) for out in (False, True))
    facts = whole.overlap.facts(excluded=False)
    counts = {pair["test"]: pair["text_and_label"] for pair in facts["pairs"] if pair["train"] == pair["test"]}
    assert counts["mmla_communication_behavior_annomi_client_text"] == 211
    assert counts["mmla_communication_behavior_annomi_therapist_text"] == 231
    for name, rows in whole.train.items():
        assert len(rows) - len(left.train[name]) == facts["tasks"][name]["overlapping"], name
    assert left.described()["mmla_communication_behavior_annomi_client_text"]["train"]["rows"] < 3123


def test_a_train_split_that_is_all_test_is_refused(tmp_path: Path, tsv: Any) -> None:
    for split in ("train", "dev", "test"):
        tsv(tmp_path / "MOSI" / f"{split}.tsv", [("a", "So good.", "positive")])
    with pytest.raises(DataError, match="every train row of mmla_sentiment_mosi_text stands in test too"):
        data_of(
            settings(tmp_path, tasks=["mmla_sentiment_mosi_text"], data_dir=str(tmp_path), exclude_test_overlap=True)
        )


@pytest.mark.slow
def test_twenty_steps_over_every_dataset_hold_the_weights(
    real_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, batch = 20, 14
    config = settings(
        real_texts,
        model=str(tiny_learner(tmp_path / "learner")),
        output_dir=tmp_path / "run",
        max_steps=steps,
        batch_size=batch // 2,
        gradient_accumulation=2,
        learning_rate=1e-3,
        mixture={"weights": "temperature", "temperature": 2.0},
        selection={"every": steps, "rows": 14},
        exclude_test_overlap=True,
    )
    assert len(config.tasks) == 7
    record = run(config, RunReporter(Console(width=200)))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(rows) == steps and all(sum(row["rows"].values()) == batch for row in rows)
    held = {name: split["train"]["rows"] for name, split in record["data"].items()}
    assert record["method"] == "IT" and sum(row["loss"] for row in rows[-5:]) < sum(row["loss"] for row in rows[:5])
    for (name, _), share in zip(held.items(), shares(list(held.values()), "temperature", 2.0), strict=True):
        count, drawn = sum(row["rows"][name] for row in rows), steps * batch
        assert abs(count - drawn * share) <= 2 * math.sqrt(drawn * share * (1 - share)), name
        for row in rows:
            assert abs(row["rows"][name] - batch * share) <= 1 + 2 * 7 * share, name
    assert record["overlap"]["excluded"] and len(record["overlap"]["pairs"]) >= 6
    shown = capsys.readouterr().out
    assert "test rows that stand in train too:" in shown and "train rows are left out" in shown
    args = {"pretrained": config.model, "dtype": "float32", "peft": str(tmp_path / "run" / "adapter")}
    asked: dict[str, Any] = {"model_args": args, "data_dir": str(real_texts), "answer": "rank", "limit": 2}
    results = evaluate("mmla-hf", ["mmla_sentiment_mosi_text"], run_dir=tmp_path / "eval", **asked)
    assert results["mmla"]["training"][0]["overlap"] == record["overlap"]
    card = (tmp_path / "eval" / "scorecard.md").read_text()
    assert "IT, LoRA rank 16" in card and "train rows that stand in test were left out" in card
