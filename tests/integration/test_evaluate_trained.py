"""What was trained is evaluated as `mmla run` does it, by as many processes as trained it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finetune.config import Config
from finetune.evaluation import evaluate, launcher, model_arguments, run_arguments
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import ModelError

from .tiny_models import noisy_adapter

pytestmark = [
    pytest.mark.slow,
    # transformers and peft warn about their own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
pytest.importorskip("torch", reason="the extra `hf` is not installed")


def config(model: Path, output: Path, **more: Any) -> Config:
    values = {
        "model": str(model),
        "tasks": ["mmla_speaking_style_mustard", "mmla_emotion_meld"],
        "data_dir": "sample",
        "modality": "text",
        "output_dir": output,
        "evaluate": {"test": True, "model_args": {"answer": "rank", "batch_size": 8}},
    }
    return Config(**{**values, **more})


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = noisy_adapter(tiny_llama, tmp_path_factory.mktemp("adapter") / "adapter")
    (folder / "training.json").write_text(json.dumps({"method": "IT", "base": {}, "selection": {"step": 2}}))
    return folder


def test_the_first_of_several_processes_starts_as_many(
    tiny_llama: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launched = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nowhere"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    asked = config(tiny_llama, tmp_path)
    assert evaluate(asked, adapter, print) is None and not (tmp_path / "evaluation").exists()
    monkeypatch.setenv("RANK", "0")
    folder = evaluate(asked, adapter, print)
    assert folder == tmp_path / "evaluation"
    run = read_run(folder)
    assert run.facts["method"] == "it" and set(run.tasks) == {f"{task}_text" for task in asked.tasks}
    assert run.facts["model"]["peft"]["path"] == str(adapter) and run.facts["answer"] == "rank"
    assert "2 processes share the requests" in capfd.readouterr().out
    other = asked.model_copy(update={"evaluate": asked.evaluate.model_copy(update={"model": "mmla-vllm"})})
    assert "torch.distributed.run" in launcher(asked) and "torch.distributed.run" not in launcher(other)


def test_a_failed_evaluation_says_that_training_is_done(
    tiny_llama: Path, tiny_qwen2_vl: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = noisy_adapter(tiny_qwen2_vl, tmp_path / "other")
    with pytest.raises(ModelError, match="the evaluation ended with status 2; training is done"):
        evaluate(config(tiny_llama, tmp_path), other, print)
    assert "belongs to another base" in capfd.readouterr().err


def test_what_evaluation_is_told_is_what_training_was_told(tmp_path: Path) -> None:
    frames = {"num_frames": 4, "max_pixels": 50176}
    asked = config(
        tmp_path / "base", tmp_path, modality=None, frames=frames, revision="abc", trust_remote_code=True,
        include_path=[tmp_path], evaluate={"test": True, "model": "mmla-vllm", "model_args": {"max_pixels": 100}},
    )  # fmt: skip
    assert model_arguments(asked, tmp_path / "a") == {
        "pretrained": str(tmp_path / "base"), "revision": "abc", "peft": str(tmp_path / "a"), "num_frames": 4,
        "max_pixels": 100,
    }  # fmt: skip
    whole = asked.model_copy(update={"adapter": "none"})
    assert model_arguments(whole, tmp_path / "model") == {
        "pretrained": str(tmp_path / "model"), "num_frames": 4, "max_pixels": 100
    }  # fmt: skip
    words = run_arguments(asked, tmp_path / "a")
    assert words[:3] == ["run", "--model", "mmla-vllm"] and "--modality" not in words
    assert words[words.index("--include_path") + 1] == str(tmp_path) and "--trust_remote_code" in words
    from harness_ext.cli.run import _parser

    _parser().parse_args(words[1:])
    assert os.environ.get("RANK") is None
