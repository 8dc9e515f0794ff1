"""A merged adapter answers as the unmerged one does, and a failed merge leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.cli_merge import main
from finetune.merging import TOLERANCE, Merge, Questions, agreement, merge
from mmla_tasks.errors import ModelError, UsageError

from ..broken_clips import TASK, partly_broken
from .tiny_models import noisy_adapter

pytestmark = [
    pytest.mark.slow,
    # transformers and peft warn about their own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
pytest.importorskip("torch", reason="the extra `hf` is not installed")

RECORD = {
    "method": "SFT",
    "config": {
        "adapter": "lora", "lora": {"rank": 4}, "tasks": ["mmla_intent_mintrec"], "data_dir": "sample",
        "modality": "text", "frames": {"num_frames": None}, "include_path": [],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Over the text model, as `mmla finetune` leaves it."""
    folder = noisy_adapter(tiny_llama, tmp_path_factory.mktemp("adapter") / "adapter")
    (folder / "training.json").write_text(json.dumps(RECORD))
    return folder


def test_a_merged_text_model_gives_the_same_answers(
    adapter: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(adapter), "--output", str(tmp_path / "merged"), "--check", "--rows", "12"]) == 0
    assert "the same answers to 12 of 12 questions" in capsys.readouterr().out
    record = json.loads((tmp_path / "merged" / "training.json").read_text())
    assert {**record, "merged": None} == {**RECORD, "merged": None}
    assert record["merged"]["into"]["pretrained"] == str(tiny_llama)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (tiny_llama / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    differs = agreement(Merge(adapter, tiny_llama), Questions.of_training(adapter, rows=12))
    assert not differs.holds and differs.largest_difference > 100 * TOLERANCE["float32"]


def test_a_merged_video_model_gives_the_same_answers(tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    what = Merge(noisy_adapter(tiny_qwen2_vl, tmp_path / "adapter"), tmp_path / "merged", dtype="float32")
    merge(what)
    questions = Questions(["mmla_emotion_meld"], "sample", frames={"num_frames": 2}, rows=6)
    found = agreement(what, questions)
    assert found.holds and found.rows == 6, found


def test_the_training_of_the_base_is_not_forgotten(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    first = {**RECORD, "method": "IT", "overlap": {"tasks": {}, "pairs": []}}
    (base / "training.json").write_text(json.dumps(first))
    merge(Merge(adapter, tmp_path / "merged", model=str(base)))
    assert json.loads((tmp_path / "merged" / "training.json").read_text())["before"] == first


def test_a_check_leaves_out_what_training_would_have_skipped(
    tiny_qwen2_vl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = noisy_adapter(tiny_qwen2_vl, tmp_path / "adapter")
    broken = partly_broken(tmp_path / "data", 12, every=4)
    config = {"tasks": [TASK], "data_dir": str(tmp_path / "data"), "frames": {"num_frames": 2}, "on_bad_clip": "skip"}
    (trained / "training.json").write_text(json.dumps({"method": "SFT", "config": config}))
    assert main([str(trained), "--output", str(tmp_path / "merged"), "--dtype", "float32", "--check"]) == 0
    rows = 12 - len(broken)
    assert f"the same answers to {rows} of {rows} questions" in capsys.readouterr().out


def test_the_checkpoints_own_decoding_is_kept(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.3, "eos_token_id": 2}))
    merge(Merge(adapter, tmp_path / "merged", model=str(base)))
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text())["repetition_penalty"] == 1.3


def test_what_cannot_be_merged_is_said_and_nothing_is_left(
    adapter: Path, tiny_llama: Path, tiny_qwen2_vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="is there and not empty"):
        merge(Merge(adapter, tmp_path / "full"))
    with pytest.raises(ModelError, match=r"belongs? to another base"):
        merge(Merge(adapter, tmp_path / "out", model=str(tiny_qwen2_vl)))
    (tmp_path / "several").mkdir()
    (tmp_path / "several" / "mmla_emotion_meld").symlink_to(adapter)
    with pytest.raises(ModelError, match="one is merged at a time"):
        merge(Merge(tmp_path / "several", tmp_path / "out"))
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="has no room for the merged model"):
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        merge(Merge(adapter, tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "several"]


def test_a_disk_that_fills_while_it_is_written(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)  # after the weights, as the last part
    with pytest.raises(ModelError, match="No space left on device"):
        merge(Merge(adapter, tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_check_needs_questions(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say on which tasks"):
        main([str(noisy_adapter(tiny_llama, tmp_path / "a")), "--output", str(tmp_path / "out"), "--check"])
    assert not (tmp_path / "out").exists()
