"""Every packaged YAML: strict, complete, and rendered to one golden text."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from harness_ext.catalogue import Catalogue, static_faults, yaml_folder
from mmla_tasks.sources import SOURCES

GOLDEN = Path(__file__).parents[1] / "golden"
CATALOGUE = Catalogue.load()
LEAVES = [name for name, file in CATALOGUE.files.items() if not file.is_group]
DIMENSIONS = {"intent", "emotion", "dialogue act", "sentiment", "speaking style", "communication behavior"}

spec = importlib.util.spec_from_file_location("remake", GOLDEN / "remake.py")
assert spec and spec.loader
remake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(remake)
RENDERINGS = remake.renderings()


def test_twelve_tasks_in_six_dimensions_and_their_twins() -> None:
    assert len(LEAVES) == 24
    assert {CATALOGUE.files[n].config["dimension"] for n in LEAVES} == DIMENSIONS
    assert sorted(CATALOGUE.leaves("mmla_text")) == sorted(n + "_text" for n in CATALOGUE.leaves("mmla"))
    assert {CATALOGUE.files[n].config["dataset"] for n in CATALOGUE.leaves("mmla")} == set(SOURCES)


def test_names_say_dimension_and_twins_take_everything_from_their_task() -> None:
    for name in CATALOGUE.leaves("mmla"):
        file, twin = CATALOGUE.files[name], CATALOGUE.files[name + "_text"]
        assert name.startswith("mmla_" + str(file.config["dimension"]).replace(" ", "_") + "_")
        own = {"task", "modality"}
        assert {k: v for k, v in twin.config.items() if k not in own} == {
            k: v for k, v in file.config.items() if k not in own
        }
        assert twin.modality == "text" and set(twin.lines) == {"include", "task", "modality"}


def test_a_label_list_stands_exactly_once() -> None:
    with_labels = [path for path in yaml_folder().rglob("*.yaml") if "\nlabels:" in path.read_text()]
    assert len(with_labels) == 12


@pytest.mark.parametrize("name", sorted(CATALOGUE.files))
def test_no_faults(name: str) -> None:
    assert static_faults(CATALOGUE.files[name]) == []


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_prompts_are_the_golden_ones(name: str) -> None:
    """Remade by `make golden`."""
    assert RENDERINGS[name] == (GOLDEN / "prompts" / f"{name}.txt").read_text(encoding="utf-8")


def test_golden_folder_holds_nothing_else() -> None:
    assert {p.stem for p in (GOLDEN / "prompts").iterdir()} == set(LEAVES)


def test_the_prompts_of_the_design() -> None:
    text = "Oh, “great” — {{ braces }} & <b>tags</b>."
    labels = "The candidate labels for emotion are: [neutral, surprise, fear, sadness, joy, anger, disgust]. Respond in the format: 'emotion: [label]'. Only one label should be provided."
    video = f"<video>You are presented with a video in which the speaker says: {text} Based on the text and video content, what is the emotion of this speaker?\n{labels}"
    only_text = f"The speaker says: {text} Based on the text, what is the emotion of this speaker?\n{labels}"
    only_video = f"<video>You are presented with a video of a speaker. Based on the video content, what is the emotion of this speaker?\n{labels}"
    assert f"== text+video, clean\n{video}\n" in RENDERINGS["mmla_emotion_meld"]
    assert f"== video, clean\n{only_video}\n" in RENDERINGS["mmla_emotion_meld"]
    assert f"== text, clean\n{only_text}\n" in RENDERINGS["mmla_emotion_meld_text"]
    assert RENDERINGS["mmla_emotion_meld"].endswith("== answer\nemotion: neutral\n")


def test_groups_average_in_both_ways() -> None:
    for file in CATALOGUE.files.values():
        if file.is_group:
            wanted = [{"metric": "acc", "weight_by_size": True}, {"metric": "acc_mean", "weight_by_size": False}]
            assert file.config["aggregate_metric_list"] == wanted
