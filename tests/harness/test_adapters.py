from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness_ext.adapters import Adapters
from mmla_tasks.errors import ModelError


def write(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    (folder / "adapter_model.safetensors").write_bytes(folder.name.encode())
    return folder


def test_one_adapter_is_for_all_tasks(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", rank_pattern={"q_proj": 24})
    adapters = Adapters.read(str(folder))
    assert adapters.max_rank == 24
    assert adapters.of("mmla_intent_mintrec") is adapters.of("mmla_emotion_meld_text") is adapters.all[0]
    adapters.check(["mmla_intent_mintrec", "anything"])


def test_folders_named_after_tasks_serve_the_text_twins_too(tmp_path: Path) -> None:
    for name in ("mmla_intent_mintrec", "mmla_emotion_meld", "mmla_emotion_meld_text"):
        write(tmp_path / name)
    (tmp_path / "logs").mkdir()
    adapters = Adapters.read(str(tmp_path))
    path = {task: adapters.of(task).path.name for task in (*adapters.of_tasks, "mmla_intent_mintrec_text")}  # type: ignore[union-attr]
    assert path["mmla_intent_mintrec_text"] == "mmla_intent_mintrec"
    assert path["mmla_emotion_meld_text"] == "mmla_emotion_meld_text"
    assert adapters.of("mmla_sentiment_mosi") is None
    with pytest.raises(ModelError, match="no adapter for 2 of the tasks") as fault:
        adapters.check(["mmla_intent_mintrec", "mmla_sentiment_mosi", "mmla_emotion_iemocap_text"])
    assert "mmla_sentiment_mosi" in str(fault.value) and "mmla_emotion_iemocap_text" in str(fault.value)


def test_a_file_maps_tasks_to_folders_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "which.json").write_text(json.dumps({"t1": "a", "t2": "a"}))
    adapters = Adapters.read(str(tmp_path / "which.json"))
    assert adapters.of("t1") == adapters.of("t2") and len(adapters.all) == 1


def test_the_digest_tells_adapters_apart(tmp_path: Path) -> None:
    first, second = (Adapters.read(str(write(tmp_path / name))).all[0] for name in ("a", "b"))
    assert first.digest != second.digest
    assert first.identity == {"path": str(first.path), "digest": first.digest}


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    (write(tmp_path / "t1") / "adapter_config.json").write_text("{}")
    (write(tmp_path / "t2") / "adapter_model.safetensors").unlink()
    (write(tmp_path / "t3") / "adapter_config.json").write_text("{")
    (tmp_path / "all.json").write_text(json.dumps({f"t{n}": f"t{n}" for n in range(1, 5)}))
    with pytest.raises(ModelError, match="4 of 4 adapters cannot be used") as fault:
        Adapters.read(str(tmp_path / "all.json"))
    for said in ("peft_type", "adapter_model.safetensors", "no JSON", "there is no folder"):
        assert said in str(fault.value)


def test_what_is_no_plain_lora_is_told_where_nothing_else_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t1", peft_type="IA3")
    write(tmp_path / "t2", use_dora=True)
    write(tmp_path / "t3")
    with pytest.raises(ModelError, match="2 of 3 adapters are no plain LoRA") as fault:
        Adapters.read(str(tmp_path)).check_plain_lora()
    assert "of the kind IA3" in str(fault.value) and "use_dora" in str(fault.value) and "t3" not in str(fault.value)


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="peft=nobody/nothing is neither a folder"):
        Adapters.read("nobody/nothing")


@pytest.mark.parametrize(("content", "said"), [("{", "is no JSON"), ("[1]", "no mapping"), ('{"a": 1}', "no mapping")])
def test_a_bad_mapping(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ModelError, match=said):
        Adapters.read(str(tmp_path / "x.json"))


def test_a_folder_without_adapters(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="1 of 1 adapters") as fault:
        Adapters.read(str(tmp_path))
    assert "adapter_config.json" in str(fault.value)
