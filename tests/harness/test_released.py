"""`--protocol paper`: every prompt equals the released templates, character for character; settings follow the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness_ext.catalogue import Catalogue
from harness_ext.frame_policy import FramePolicy
from harness_ext.released import COMMON, FAMILIES, family_named, family_of
from harness_ext.task import LabelTask
from mmla_tasks.errors import UsageError

CATALOGUE = Catalogue.load()
LEAVES = [name for name in CATALOGUE.leaves("mmla")]
TEXT = "Oh, “great” — {{ braces }} & <b>tags</b>"
TWO_LABELS = "[positive, negative]"
UPSTREAM = {"CH-SIMSv2.0": "CH-SIMS-v2.0"}
"""Names of `dataset_facts.yaml` where they are not those of the Hub folders."""


def prompt_of(name: str, family: str, tmp_path: Path, *, text: bool = False) -> str:
    """What the real task of this name asks."""
    config = CATALOGUE.files[name].config
    folder = tmp_path / str(config["dataset"])
    folder.mkdir(exist_ok=True)
    (folder / "test.tsv").write_text(f"id\ttext\tlabel\n1\t{TEXT}\t{config['labels'][0]}\n", encoding="utf-8")
    metadata = {"data_dir": str(tmp_path), "protocol": "paper", "released_family": family}
    task = LabelTask({k: v for k, v in config.items() if k != "class"} | {"metadata": metadata})
    clip = {"path": "1.mp4", "start_seconds": 0.0, "end_seconds": None, "size": 1, "mtime_ns": 1}
    return task.doc_to_text({"id": "1", "text": TEXT, "label": "", "clip": None if text else clip})


@pytest.fixture(scope="module")
def released_prompt(shared: Path) -> str:
    """The indented block of protocol.md, section 1."""
    text = (shared / "reference" / "protocol.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    (You are presented.*)$", text, re.MULTILINE)
    return str(block).replace("\\n", "\n")


@pytest.fixture(scope="module")
def facts(shared: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((shared / "reference" / "dataset_facts.yaml").read_text(encoding="utf-8"))
    return dict(loaded["datasets"])


def filled(template: str, facts_of: dict[str, Any], labels: str | None = None) -> str:
    """A released template with what its script puts in: utterance, task, labels in the released order."""
    values = {
        "{utterance}": TEXT,
        "{task}": facts_of["task"].replace("_", " "),
        "{l1}, {l2}, ...": "{labels}",
        "[{labels}]": labels or f"[{', '.join(facts_of['labels_upstream_order'])}]",
    }
    for place, value in values.items():
        template = template.replace(place, value)
    return template


def facts_of(facts: dict[str, Any], name: str) -> dict[str, Any]:
    dataset = str(CATALOGUE.files[name].config["dataset"])
    return dict(facts[UPSTREAM.get(dataset, dataset)])


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2", "llama3", "internlm2.5", "common"])
def test_the_inference_prompt(
    name: str, family: str, released_prompt: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    about = facts_of(facts, name)
    expected = filled(released_prompt, about, TWO_LABELS if "chsims2" in name else None)
    assert prompt_of(name, family, tmp_path) == "<video>" + expected
    assert prompt_of(name, family, tmp_path, text=True) == expected


@pytest.mark.parametrize("name", LEAVES)
def test_the_prompt_of_llava_and_of_videollama2(
    name: str, released_prompt: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    about = facts_of(facts, name)
    llava = filled(released_prompt, about).replace("  Only", " Only")  # and neutral is among its labels
    assert prompt_of(name, "llava", tmp_path) == "<video>" + llava
    videollama2 = filled(released_prompt, about, TWO_LABELS if "chsims2" in name else None)
    assert prompt_of(name, "videollama2", tmp_path) == "<video>\n" + videollama2


@pytest.mark.parametrize("name", LEAVES)
def test_the_prompt_of_minicpm_is_that_of_the_test_jsonl(name: str, facts: dict[str, Any], tmp_path: Path) -> None:
    about = facts_of(facts, name)
    (template,) = {
        t["template"] for t in about["prompt_templates"] if t["files"] == "Swift jsonl" and "test" in t["rows"]
    }
    # The facts fold a template's line break into an empty line, as YAML does.
    assert "speaker?\n" in template
    assert prompt_of(name, "minicpm-v", tmp_path) == "<video>" + filled(template, about)
    (prefix,) = {
        t["answer_prefix"] for t in about["prompt_templates"] if t["files"] == "Swift jsonl" and "test" in t["rows"]
    }
    assert family_named("minicpm-v").dimension(str(CATALOGUE.files[name].config["dimension"])) + ": " == prefix


def test_families_are_recognised_by_their_config() -> None:
    def like(**values: Any) -> str:
        return family_of(SimpleNamespace(**values)).name

    assert like(model_type="qwen2_vl") == "qwen2-vl"
    assert like(model_type="llava_onevision") == "llava"
    assert like(model_type="qwen2") == "qwen2"
    assert like(model_type="llama", vocab_size=128_256, max_position_embeddings=8192) == "llama3"
    assert like(model_type="llama", vocab_size=128_256, max_position_embeddings=131_072) == "common"  # Llama 3.1
    assert like(model_type="llama", vocab_size=49_152, max_position_embeddings=2048) == "common"  # SmolLM2
    assert family_of(None) is COMMON
    with pytest.raises(UsageError, match="did you mean `llama3`"):
        family_named("llama-3")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.name))
def test_settings_of_every_family_are_those_of_the_protocol(family: Any) -> None:
    """The table of reference/protocol.md, section 3."""
    limits = {"qwen2-vl": 128, "llava": 1024, "videollama2": 2048, "minicpm-v": 2048, "qwen2": 1024, "llama3": 256}
    frames = {"qwen2-vl": "4 frames", "llava": "4 frames", "videollama2": "8 frames", "minicpm-v": "1 fps up to 64"}
    assert family.decoding["max_gen_toks"] == limits.get(family.name, 1024)
    policy = FramePolicy.from_args(**family.frames)
    assert policy.describe().startswith(frames.get(family.name, "4 frames"))
    assert policy.rule.startswith("released") == bool(family.frames)
    assert family.own_decoding == (family.name in ("qwen2-vl", "qwen2", "minicpm-v"))


def test_the_family_can_be_named(mmla: Callable[..., Any], meld_root: Path, tmp_path: Path) -> None:
    run = ("run", "--model", "mmla-echo", "--tasks", "mmla_emotion_meld_text", "--data_dir", meld_root, "--limit", "2")
    ran = mmla(*run, "--protocol", "paper", "--released_family", "llama3", "--run_dir", tmp_path / "r")
    assert ran.status == 0
    assert "protocol: paper (llama3)" in ran.out
    card = (tmp_path / "r" / "scorecard.md").read_text()
    assert "paper as for llama3" in card
    assert '"temperature": 0.6' in card
    ran = mmla(*run, "--protocol", "paper", "--run_dir", tmp_path / "c")
    assert "no released settings are known for this model" in ran.out
    ran = mmla(*run, "--released_family", "llama3")
    assert ran.status == 2 and "--protocol paper" in ran.err
    ran = mmla(*run, "--protocol", "paper", "--released_family", "lama3")
    assert ran.status == 2 and "did you mean `llama3`" in ran.err
