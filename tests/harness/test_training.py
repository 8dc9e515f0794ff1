"""What `training.json` says comes into results, reports and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness_ext.adapters import Adapters
from harness_ext.reports.benchmark import settings_of
from harness_ext.reports.leaderboard import GROUP_NAMES
from harness_ext.reports.run_files import Run
from harness_ext.reports.table import method_of as method_of_run
from harness_ext.reports.table import published_heading, published_method
from harness_ext.training import UNKNOWN, method_of, origin, refuse_other_base, sentences, trainings
from mmla_tasks.errors import ModelError

SELECTION = {"metric": "acc", "value": 0.58, "rows": 150, "step": 120}
RECORD = {
    "method": "SFT",
    "base": {"pretrained": "SmolLM2", "digest": "abc"},
    "config": {"adapter": "lora", "lora": {"rank": 16}},
    "data": {"mmla_intent_mintrec": {"train": {"rows": 1334, "sha256": "f" * 64}, "dev": {"rows": 445}}},
    "steps": 167,
    "selection": SELECTION,
    "overlap": {
        "excluded": False,
        "tasks": {"mmla_intent_mintrec": {"train_rows": 1334, "overlapping": 9}},
        "pairs": [
            {"train": t, "test": t, "test_rows": 445, "text_and_label": 12, "clip": 0, "train_rows": 9}
            for t in ("mmla_intent_mintrec", "mmla_intent_mintrec2")
        ],
    },
}
SENTENCE = (
    "SFT, LoRA rank 16, selected at step 120 of 167 by dev acc 58.0 % on 150 rows; "
    "12 of 445 test rows also stand in train (text and label)"
)


def adapter(folder: Path, record: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))
    (folder / "adapter_model.safetensors").write_bytes(folder.name.encode())
    if record is not None:
        (folder / "training.json").write_text(json.dumps(record))
    return folder


def test_an_adapter_says_how_it_was_trained(tmp_path: Path) -> None:
    adapters = Adapters.read(str(adapter(tmp_path / "a", RECORD)))
    (block,) = trainings(["mmla_intent_mintrec_text"], adapters, Path("org/base"))
    assert list(sentences([block])) == [SENTENCE]
    assert origin(block) == (
        f"SmolLM2 (abc); mmla_intent_mintrec train 1,334 rows ({'f' * 16}); mmla_intent_mintrec dev 445 rows"
    )
    assert method_of([block]) == "sft" and block["base"] == RECORD["base"]
    assert block["adapter"] == adapters.all[0].identity and block["tasks"] == ["mmla_intent_mintrec_text"]


def test_the_record_is_no_part_of_the_digest(tmp_path: Path) -> None:
    digests = [
        Adapters.read(str(adapter(tmp_path / str(n) / "a", r))).all[0].digest for n, r in enumerate((RECORD, None))
    ]
    assert digests[0] == digests[1] is not None


def test_adapters_of_several_tasks_are_told_apart(tmp_path: Path) -> None:
    for task, record in (("mmla_intent_mintrec", RECORD), ("mmla_emotion_meld", None), ("mmla_sentiment_mosi", RECORD)):
        adapter(tmp_path / task, record)
    tasks = ["mmla_intent_mintrec", "mmla_emotion_meld_text"]
    blocks = trainings(tasks, Adapters.read(str(tmp_path)), Path("org/base"))
    assert [block["tasks"] for block in blocks] == [["mmla_emotion_meld_text"], ["mmla_intent_mintrec"]]
    first, second = sentences(blocks)
    assert first.startswith("mmla_emotion_meld_text: adapter mmla_emotion_meld: how it was trained is not known")
    assert second == f"mmla_intent_mintrec: {SENTENCE}"
    assert method_of(blocks) == UNKNOWN and str(tmp_path) not in first


def test_trained_and_merged_weights_speak_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps({**RECORD, "method": "IT", "overlap": {}}))
    (merged,) = trainings(["t"], None, tmp_path)
    assert merged["adapter"] is None and method_of([merged]) == "it"
    assert next(iter(sentences([merged]))).startswith("IT, LoRA rank 16, selected at step 120")
    (tmp_path / "training.json").write_text(json.dumps({**RECORD, "config": {"adapter": "none", "lora": {"rank": 16}}}))
    assert next(iter(sentences(trainings(["t"], None, tmp_path)))).startswith("SFT, all weights, selected")
    assert trainings(["t"], None, tmp_path / "nowhere") == [] and method_of([]) is None


def test_a_model_that_was_trained_twice_tells_both(tmp_path: Path) -> None:
    """As the adapter beside its trained base does, in the same words; the last training names the method."""
    base, task = tmp_path / "base", ["mmla_intent_mintrec"]
    base.mkdir()
    (base / "training.json").write_text(json.dumps(RECORD))
    second = {**RECORD, "method": "IT", "steps": 3, "overlap": {"tasks": {}, "pairs": []}}
    unmerged = trainings(task, Adapters.read(str(adapter(tmp_path / "a", second))), base)
    (base / "training.json").write_text(json.dumps({**second, "before": RECORD}))
    merged = trainings(task, None, base)
    assert list(sentences(merged)) == list(sentences(unmerged)) and len(merged) == 2
    assert next(iter(sentences(merged))) == f"mmla_intent_mintrec: {SENTENCE}"
    assert method_of(merged) == method_of(unmerged) == "it"


def test_overlap_that_nobody_counted_is_told(tmp_path: Path) -> None:
    adapters = Adapters.read(str(adapter(tmp_path / "a", RECORD)))
    tasks = ["mmla_intent_mintrec_text", "mmla_emotion_meld_text", "mmla_dialogue_act_meld"]
    (said,) = sentences(trainings(tasks, adapters, tmp_path))
    not_counted = "; overlap with the test rows of mmla_emotion_meld_text, mmla_dialogue_act_meld was not counted"
    assert said.endswith(not_counted) and "12 of 445 test rows of mmla_intent_mintrec" in said
    record = {key: value for key, value in RECORD.items() if key != "overlap"}
    adapters = Adapters.read(str(adapter(tmp_path / "b", record)))
    assert "counted" not in next(sentences(trainings(tasks, adapters, tmp_path)))


def test_left_out_overlap_is_told(tmp_path: Path) -> None:
    excluded = {**RECORD, "overlap": {**RECORD["overlap"], "excluded": True}}  # type: ignore[dict-item]
    blocks = trainings(["mmla_intent_mintrec"], Adapters.read(str(adapter(tmp_path / "a", excluded))), tmp_path)
    assert next(iter(sentences(blocks))).endswith("rows; train rows that stand in test were left out")


def test_another_base_is_refused_by_its_digest(tmp_path: Path) -> None:
    adapters = Adapters.read(str(adapter(tmp_path / "a", RECORD)))
    refuse_other_base(adapters, "SmolLM2", "abc")
    refuse_other_base(adapters, "org/base", None)
    with pytest.raises(ModelError, match="1 of 1 adapters belong to another base than Other") as fault:
        refuse_other_base(adapters, "Other", "def")
    assert "trained on SmolLM2 (digest abc)" in str(fault.value) and "pass pretrained=" in str(fault.value)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (adapter(tmp_path / "a", None) / "training.json").write_text("{")
    with pytest.raises(ModelError, match=r"training\.json cannot be read"):
        trainings(["t"], Adapters.read(str(tmp_path / "a")), tmp_path)


@pytest.mark.parametrize(("method", "told"), [("sft", "sft"), ("it", "it"), (UNKNOWN, None)])
def test_reports_compare_with_the_published_of_the_method(method: str, told: str | None, tmp_path: Path) -> None:
    facts = {
        "method": method, "model": {"peft": {"path": "x"}}, "tasks": {}, "training": [{**RECORD, "tasks": [],
        "adapter": {"path": "x"}, "rank": 16, "method": method}], "answer": "rank", "protocol": "clean",
        "frame_policy": None,
    }  # fmt: skip
    run = Run(tmp_path, {"mmla": facts, "n-shot": {}})
    assert published_method(run.results) == told and method_of_run(run.results) == method in GROUP_NAMES
    assert published_heading(run.results) == {"sft": "published (SFT)", "it": "published (IT)"}.get(
        told or "", "published"
    )
    assert ("how it was trained is not known" in settings_of(run, "text")) is (method == UNKNOWN)
