"""Recipes carry the released values, every row of them, but for those that are mended and say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cli_recipe import main
from finetune.config import ALL_LINEAR, Config
from finetune.recipes import KEYS_OF_TRAINING, Recipe, models, models_with_it, recipe, recipes
from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES

OUR_NAME = {
    "learning_rate": ("learning_rate", "lr"),
    "epochs": ("epochs",),
    "batch_size": ("bs",),
    "gradient_accumulation": ("ga",),
    "warmup_ratio": ("warmup_ratio",),
    "scheduler": ("scheduler",),
    "weight_decay": ("weight_decay",),
    "max_grad_norm": ("max_grad_norm",),
    "max_length": ("max_length", "cutoff_len"),
    "gradient_checkpointing": ("gradient_checkpointing",),
    "lora.rank": ("lora.rank", "lora_r"),
    "lora.alpha": ("lora.alpha", "lora_alpha"),
    "lora.dropout": ("lora.dropout", "lora_dropout"),
    "save_every": ("save_steps",),
    "keep_checkpoints": ("keep",),
}
"""Key of a config -> its names in the table of released values."""
MENDED = {
    ("llava-ov-7b", "MELD-DA", "gradient_accumulation"): (1e-4, 6),
    ("llava-ov-7b", "MELD-DA", "max_length"): (6, 3072),
    ("llava-video-72b", "MOSI", "epochs"): (1, 15),
    ("llava-video-72b", "MUStARD", "epochs"): (1, 15),
    **{("videollama2-7b", dataset, "dtype"): ("float16", "bfloat16") for dataset in SOURCES},
}
"""Released value and ours, for the table's oddities."""
TABLE_OF_LLM = ("qwen2-0.5b", "qwen2-1.5b", "qwen2-7b", "llama3-8b", "internlm2.5-7b")


@pytest.fixture(scope="session")
def table(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((shared / "reference" / "hyperparameters.yaml").read_text(encoding="utf-8"))
    return found


def released_row(table: Mapping[str, Any], of: Recipe) -> dict[str, Any]:
    """A row of the table of released values with everything that holds for it, nested keys with dots."""
    system = "LLM" if of.name in TABLE_OF_LLM else of.model["system"]
    block = dict(table[of.tuning][system])
    if of.tuning == "it" and system in ("LLM", "MiniCPM-V-2.6-8B"):
        block = {"max_grad_norm": table["sft"]["LLM"]["max_grad_norm"]} | block if system == "LLM" else block
    row = block | block.get("common", {})
    if "per_dataset" in block:
        row |= block["per_dataset"]["CH-SIMS-v2.0" if of.dataset == "CH-SIMSv2.0" else of.dataset]
    return row | {f"lora.{key}": value for key, value in block.get("lora", {}).items()}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key: value for key, value in config.items() if isinstance(value, dict)}
    inner = {f"{key}.{name}": value for key, section in nested.items() for name, value in section.items()}
    return {key: value for key, value in config.items() if key not in nested} | inner


def differences(row: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Key, released value and ours, of the keys that the row states."""
    for key, names in OUR_NAME.items():
        stated = [row[name] for name in names if name in row]
        if stated and stated[0] != config.get(key):
            yield key, stated[0], config.get(key)
    dtype = {"bf16": "bfloat16", "bf16 + tf32": "bfloat16", "fp16": "float16"}[row["precision"]]
    if dtype != config["dtype"]:
        yield "dtype", dtype, config["dtype"]
    target = row.get("lora.target", row.get("lora_target"))
    if target is not None and (
        target not in ("all", "all-linear", "all_linear") or config["lora.targets"] != ALL_LINEAR
    ):
        yield "lora.targets", target, config.get("lora.targets")
    every = row.get("eval_steps", row["save_steps"])
    if every != config["selection.every"]:
        yield "selection.every", every, config["selection.every"]
    files = {"ds_z3_offload_config.json": "zero3-offload", "zero3_offload.json": "zero3-offload", "zero2.json": "zero2"}
    strategy = files.get(row["deepspeed"], row["deepspeed"])
    if strategy != config["deepspeed"]:
        yield "deepspeed", row["deepspeed"], config["deepspeed"]


def test_every_row_of_the_table_has_its_recipe(table: dict[str, Any]) -> None:
    systems = {facts["system"] for facts in models().values()}
    assert {name for name in table["sft"] if name != "LLM"} <= systems
    assert {models()[name]["system"] for name in models_with_it() if name not in TABLE_OF_LLM} == {
        name for name, row in table["it"].items() if row is not None and name != "LLM"
    }
    assert len(list(recipes())) == len(models()) * len(SOURCES) + len(models_with_it()) == 13 * 12 + 9


def test_recipes_carry_the_released_values(table: dict[str, Any]) -> None:
    """Of what is printed, read back; all that differs is what is mended."""
    found = {
        (of.name, of.dataset, key): (released, ours)
        for of in recipes()
        for key, released, ours in differences(released_row(table, of), flat(yaml.safe_load(of.text())))
    }
    assert found == MENDED


def test_what_is_mended_is_said_with_the_released_value() -> None:
    said = {(of.name, of.dataset, key): mend for of in recipes() for key, mend in of.mends.items()}
    assert said.keys() == MENDED.keys()
    for (name, dataset, key), mend in said.items():
        lines = recipe(name, dataset).text().splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith(f"{key}:"))
        above = " ".join(lines[at - 2 : at])
        assert "# mended: released as" in above, (name, key)
        assert mend.released == MENDED[name, dataset, key][0]


def test_values_left_to_a_default_are_said_to_be_such(table: dict[str, Any]) -> None:
    text = recipe("qwen2-vl-7b", "MIntRec").text()
    for key in ("rank: 8", "alpha: 16", "dropout: 0.0"):
        assert f"  {key}  # not set in the script: default of LLaMA-Factory" in text
    assert "learning_rate: 1.1e-4\n" in text
    assert "Published accuracy on test: 56.6 % zero-shot, 80.5 % after SFT." in " ".join(text.replace("#", "").split())


@pytest.mark.parametrize("name", models())
def test_what_is_printed_is_a_config_with_these_values(name: str) -> None:
    for of in (of for of in recipes() if of.name == name):
        printed = yaml.safe_load(of.text())
        plain = Config(**printed).plain()
        for key, value in flat(printed).items():
            assert flat(plain)[key] == value, (of.dataset, key)
        assert set(printed["lora"]) == {key.partition(".")[2] for key in of.values if key.startswith("lora.")}


@pytest.mark.parametrize("of", recipes(), ids=lambda of: f"{of.name}-{of.dataset}")
def test_every_key_is_stated_or_said_to_be_ours(of: Recipe) -> None:
    text = " ".join(of.text().replace("#", "").split())
    unstated = text.partition("our defaults hold:")[2].partition(", seed.")[0]
    stated = flat(yaml.safe_load(of.text()))
    assert [key for key in KEYS_OF_TRAINING if key not in stated] == [
        key.strip() for key in unstated.split(",") if key.strip()
    ]
    assert len(max(of.text().splitlines(), key=len)) <= 120


@pytest.mark.parametrize("name", ["mintrec2.0", "MINTREC20", "MIntRec2.0"])
def test_names_are_read_without_case_and_signs(name: str) -> None:
    assert recipe("Qwen2-VL-7B", name).tasks == ["mmla_intent_mintrec2"]
    assert recipe("qwen2_0.5b", name).tasks == ["mmla_intent_mintrec2_text"]


@pytest.mark.parametrize(
    ("model", "dataset", "says"),
    [
        ("qwen2-vl", "mintrec", "did you mean `qwen2-vl-7b`"),
        ("qwen2-vl-7b", "mintrec2", "did you mean `mintrec` or `mintrec2.0`?"),
        ("llava-video-7b", None, "no instruction tuning was released for LLaVA-Video-7B"),
    ],
)
def test_what_was_not_released_is_refused_with_what_is_near(model: str, dataset: str | None, says: str) -> None:
    with pytest.raises(UsageError) as error:
        recipe(model, dataset)
    assert says in str(error.value)


def test_the_command_prints_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "qwen2-vl-7b", "--dataset", "mintrec"]) == 0
    assert capsys.readouterr().out == recipe("qwen2-vl-7b", "MIntRec").text()
    assert main(["--model", "qwen2-vl-7b", "--it"]) == 0
    assert capsys.readouterr().out == recipe("qwen2-vl-7b", None).text()


def test_the_command_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in models())
    assert "chsimsv2.0" in listed.replace("-", "")
    assert "llava-ov-7b        12 datasets       " in listed and "qwen2-vl-7b        12 datasets, IT   " in listed


@pytest.mark.parametrize("arguments", [[], ["--model", "qwen2-7b"], ["--dataset", "meld"]])
def test_the_command_needs_a_model_and_a_dataset(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="a recipe is for a model and a dataset"):
        main(arguments)
