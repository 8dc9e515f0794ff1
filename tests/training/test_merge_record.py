"""What a merge takes from the record of the adapter's training; no model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.merging import Merge, Questions, _other_files

BASE = {"pretrained": "org/base", "revision": "1234abc"}
CONFIG = {"tasks": ["t"], "data_revision": "v2", "on_bad_clip": "skip", "modality": None, "frames": {"num_frames": 2}}


def adapter(folder: Path, **record: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def test_a_check_asks_the_data_of_the_training_and_treats_bad_clips_as_it_did(tmp_path: Path) -> None:
    trained = adapter(tmp_path, config=CONFIG)
    asked = Questions.of_training(trained)
    assert (asked.data_revision, asked.on_bad_clip, asked.frames) == ("v2", "skip", {"num_frames": 2})
    assert Questions.of_training(trained, data_dir="sample").data_revision is None
    assert Questions.of_training(adapter(tmp_path), tasks=["t"]).on_bad_clip == "error"


def test_the_base_is_that_of_the_recorded_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = adapter(tmp_path / "adapter", base=BASE)
    assert Merge(trained, tmp_path / "out").revision == "1234abc"
    assert Merge(trained, tmp_path / "out", model="org/base").revision == "1234abc"
    assert Merge(trained, tmp_path / "out", model="org/another").revision is None
    fetched: dict[str, Any] = {}

    def snapshot(name: str, **how: Any) -> str:
        fetched.update(how, name=name)
        return str(tmp_path)

    monkeypatch.setattr(
        pytest.importorskip("huggingface_hub", reason="the extra `hf` is not installed"), "snapshot_download", snapshot
    )
    assert _other_files(Merge(trained, tmp_path / "out")) == []
    assert (fetched["name"], fetched["revision"]) == ("org/base", "1234abc")
