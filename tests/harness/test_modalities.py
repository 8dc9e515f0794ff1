"""Text and video, text alone, video alone: a switch for every task, with the backends that need no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.catalogue import Catalogue
from harness_ext.run import RunOptions, load_tasks
from harness_ext.taskfile import MODALITIES
from mmla_tasks.errors import UsageError

LEAVES = Catalogue.load().leaves("mmla")
SHOWS_TEXT = {"text+video": True, "text": True, "video": False}
SHOWS_VIDEO = {"text+video": True, "text": False, "video": True}


def running_names(modality: str) -> list[str]:
    """The names that tasks run under: text has twins."""
    return Catalogue.load().resolve(LEAVES, modality)


def check(row: dict[str, Any], modality: str) -> None:
    prompt = row["arguments"][0][0]
    assert (row["doc"]["text"] in prompt) is SHOWS_TEXT[modality]
    assert prompt.count("<video>") == SHOWS_VIDEO[modality]
    assert (row["doc"]["clip"] is not None) is SHOWS_VIDEO[modality]


@pytest.mark.parametrize("mode", ["generate", "constrained", "rank"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_every_task_shows_what_the_switch_says(modality: str, mode: str) -> None:
    results = evaluate("mmla-echo", "mmla", data_dir="sample", limit=1, modality=modality, answer=mode)
    names = running_names(modality)
    assert list(results["mmla"]["tasks"]) == names and len(names) == 12
    assert results["mmla"]["modality"] == modality
    for name in names:
        assert results["mmla"]["tasks"][name]["modality"] == results["configs"][name]["modality"] == modality
        (row,) = results["samples"][name]
        check(row, modality)
        assert row["answer"]["outcome"] == "matched"


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_request_carries_a_clip_where_video_is_shown(modality: str) -> None:
    names = running_names(modality)
    tasks = load_tasks(names, RunOptions(model="mmla-echo", tasks=names, data_dir="sample", modality=modality))["tasks"]
    for task in tasks.values():
        task.build_all_requests(limit=1, rank=0, world_size=1)
        (instance,) = task.instances
        assert (instance.request.clip is not None) is SHOWS_VIDEO[modality]
        assert (len(instance.arguments) == 3) is SHOWS_VIDEO[modality]


@pytest.mark.parametrize("modality", MODALITIES)
def test_answers_made_elsewhere_are_scored_in_each_modality(modality: str, tmp_path: Path) -> None:
    names = running_names(modality)
    tasks = load_tasks(names, RunOptions(model="mmla-echo", tasks=names, data_dir="sample", modality=modality))["tasks"]
    rows = [
        {"task": name, "id": task.eval_docs[0]["id"], "response": task.eval_docs[0]["label"]}
        for name, task in tasks.items()
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = evaluate(
        "mmla-predictions", "mmla", data_dir="sample", limit=1, modality=modality, model_args={"answers": str(answers)}
    )
    for name in names:
        assert results["results"][name]["acc,none"] == 1
        check(results["samples"][name][0], modality)


def own_task(folder: Path, body: str) -> Path:
    """A folder with a task of a user on the embedded sample's MELD."""
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "task: own_task\nclass: !function harness_ext.task.LabelTask\ndataset: MELD\ndimension: emotion\n"
        "labels: [neutral, surprise, fear, sadness, joy, anger, disgust]\n" + body
    )
    return folder


def asked(folder: Path, modality: str | None) -> dict[str, Any]:
    results = evaluate("mmla-echo", "own_task", include_path=folder, data_dir="sample", limit=1, modality=modality)
    (row,) = results["samples"]["own_task"]
    return {"prompt": row["arguments"][0][0], **row}


def test_a_task_of_ones_own_has_a_prompt_in_every_modality(tmp_path: Path) -> None:
    """It needs no prompt: the packaged ones ask for its own labels. One of its own is used where it fits."""
    folder = own_task(tmp_path / "own", 'prompt_text: "How does this sound? {{ text }}"\n')
    for modality in ("text+video", "video"):
        check(asked(folder, modality), modality)
        assert "the emotion of this speaker" in asked(folder, modality)["prompt"]
    assert asked(folder, "text")["prompt"].startswith("How does this sound? ")


@pytest.mark.parametrize("modality", ["text+video", "video"])
def test_a_text_task_has_no_video_to_show(tmp_path: Path, modality: str) -> None:
    folder = own_task(tmp_path / "own", "modality: text\n")
    with pytest.raises(UsageError, match="own_task is a text task: it has no video to show"):
        asked(folder, modality)


def test_a_packaged_text_task_asked_for_video_names_its_twin() -> None:
    with pytest.raises(UsageError, match="it has no video to show") as fault:
        evaluate("mmla-echo", "mmla_emotion_meld_text", data_dir="sample", limit=1, modality="video")
    assert "--tasks mmla_emotion_meld" in str(fault.value)


def test_video_alone_cannot_be_asked_with_the_released_wording() -> None:
    with pytest.raises(UsageError, match="no video-only prompt"):
        evaluate("mmla-echo", "mmla_emotion_meld", data_dir="sample", limit=1, modality="video", protocol="paper")
