"""`mmla finetune check` finds at once what else shows one by one, and only after the model is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finetune.checking import check
from finetune.config import config_text
from harness_ext.cli import main
from tests.integration.tiny_models import tiny_llama

from .learner import tiny_learner

pytestmark = pytest.mark.slow

TASK = "mmla_emotion_meld"


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_learner(tmp_path_factory.mktemp("learner"))


def faults_of(file: Path, **flags: Any) -> list[str]:
    return [f"{fault.where}: {fault.what} {fault.hint}" for fault in check(config_text(file, flags)).faults]


def test_every_fault_comes_at_once_with_its_line(learner: Path, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"train_batch_size": 12, "zero_optimization": {"stage": 2}}))
    (tmp_path / "data/MELD").mkdir(parents=True)
    for split in ("train", "test"):
        rows = "id\ttext\tlabel\n1\tGreat.\tjoy\n2\tNo!\tanger\n"
        (tmp_path / f"data/MELD/{split}.tsv").write_text(rows)
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {learner}\ntasks: [{TASK}]\nmodality: text\ndata_dir: {tmp_path / 'data'}\n"
        f"lora: {{targets: [q_prj]}}\nmax_length: 20\ndeepspeed: {tmp_path / 'ds.json'}\nreport_to: [wandb]\n"
    )
    faults = faults_of(file)
    assert len(faults) == 5, faults
    (split,) = [one for one in faults if one.startswith("line 2: ")]
    assert "dev" in split
    (target,) = [one for one in faults if one.startswith("line 5: LoRA targets match no layer: q_prj")]
    assert "did you mean `q_proj`" in target
    assert any(re.match(r"line 6: .* has \d+ tokens, more than the 20 of the context", one) for one in faults)
    assert "line 8: report_to: wandb is not installed pip" in " ".join(faults).replace("next: ", "")
    assert any(one.startswith("line 7: train_batch_size 12 cannot be split: a step has 8 x 1 x 1") for one in faults)


def test_more_frames_than_the_context_holds(learner: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {learner}\ntasks: [{TASK}]\ndata_dir: sample\nmax_length: 160\nframes: {{num_frames: 8}}\n"
    )
    (fault,) = faults_of(file)
    assert re.match(r"line 5: .* has \d+ tokens, more than the 160 of the context fewer frames or pixels", fault)
    assert not faults_of(file, max_length=None)


def test_one_example_is_shown_with_its_masked_labels(
    learner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {learner}\ntasks: [{TASK}]\ndata_dir: sample\nframes: {{num_frames: 2, max_pixels: 12544}}\n"
    )
    assert main(["finetune", "check", str(file)]) == 0
    shown = capsys.readouterr().out
    tokens, learnt = (int(n) for n in re.search(r"([\d,]+) tokens, (\d+) of them learnt", shown).groups())  # type: ignore[union-attr]
    masked = re.search(r"labels -100 \(([\d,]+) times\), ([\d, ]+)", shown)
    assert masked and int(masked[1]) == tokens - learnt and len(masked[2].split(",")) == learnt
    assert "LoRA: rank 16 at" in shown and "the config is in order" in shown


def test_a_text_model_is_not_trained_on_video(
    learner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"model: {tiny_llama(tmp_path / 'llama', learner / 'words')}\ntasks: [{TASK}]\ndata_dir: sample\n")
    (mixed,) = faults_of(file, tasks=["mmla_intent_mintrec_text", TASK])
    (fault,) = faults_of(file)
    assert "takes no video, which mmla_emotion_meld show" in mixed
    assert fault.startswith("modality: ") and "takes no video" in fault and "modality: text" in fault
    assert main(["finetune", "check", str(file)]) == 2 and "takes no video" in capsys.readouterr().err
