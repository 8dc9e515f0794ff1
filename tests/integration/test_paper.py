"""`--protocol paper` with models: frames, decoding, system prompt and opening turn as released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.released import Family

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
TASK = "mmla_emotion_meld"


@pytest.fixture
def qwen2_vl(tiny_qwen2_vl: Path, tmp_path: Path) -> Path:
    """The tiny Qwen2-VL with generation settings of the kind that its large kin carry."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_qwen2_vl.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink(missing_ok=True)
    own = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, **own}))
    return folder


def test_qwen2_vl_sees_and_decodes_as_released(qwen2_vl: Path, tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> dict[str, Any]:
        return evaluate(
            "mmla-hf", TASK, data_dir="sample", limit=2, run_dir=tmp_path / name,
            **{"model_args": {"pretrained": str(qwen2_vl), "dtype": "float32"}, **options},
        )  # fmt: skip

    paper, clean = run("paper", protocol="paper"), run("clean")
    block = paper["mmla"]
    assert block["released_family"] == "qwen2-vl"
    assert block["frame_policy"]["rule"] == "released_linspace"
    decoding = block["decoding"][TASK]
    assert (decoding["max_gen_toks"], decoding["do_sample"], decoding["repetition_penalty"]) == (128, True, 1.05)
    assert clean["mmla"]["decoding"][TASK]["repetition_penalty"] == 1.0
    assert clean["mmla"]["frame_policy"]["rule"] == "uniform"
    (row, _) = paper["samples"][TASK]
    assert row["response"]["new_tokens"] <= 128
    assert row["response"]["frames"]["indices"] == [
        0,
        3,
        7,
        11,
    ]  # linspace over the sample's 12 frames, cut to integers
    assert ".Respond in the format" in row["arguments"][0][0]
    assert not any("released" in note for note in block["notes"])
    chosen = run(
        "chosen", protocol="paper", model_args={"pretrained": str(qwen2_vl), "dtype": "float32", "num_frames": 2},
        gen_kwargs={"max_gen_toks": 4},
    )  # fmt: skip
    assert chosen["mmla"]["frame_policy"]["num_frames"] == 2
    assert any("frames differ from the released ones of qwen2-vl" in note for note in chosen["mmla"]["notes"])
    assert any("decoding differs from the released one" in note for note in chosen["mmla"]["notes"])


def test_an_opening_turn_and_its_answer_stand_before_the_question(smollm2: Path) -> None:
    from harness_ext.backends.hf import HFLabelLM

    lm = HFLabelLM(str(smollm2), dtype="float32")
    system = {"role": "system", "content": "Be brief."}
    asked = {"role": "user", "content": "Who?"}
    before = lm.apply_chat_template([system, asked])
    lm.follow(Family("some", system="Be brief.", opening="hello", decoding={"max_gen_toks": 8}))
    after = lm.apply_chat_template([system, asked])
    head, tail = before.split("<|im_start|>user\n")
    middle = after.removeprefix(head + "<|im_start|>user\nhello<|im_end|>\n").removesuffix("<|im_start|>user\n" + tail)
    assert middle.startswith("<|im_start|>assistant\n")
    assert len(middle) > len("<|im_start|>assistant\n<|im_end|>\n")  # the model's own words


def test_a_system_prompt_of_the_family_is_used_and_recorded(tiny_qwen2_vl: Path) -> None:
    results = evaluate(
        "mmla-hf", f"{TASK}_text", data_dir="sample", limit=1, protocol="paper", released_family="llama3",
        model_args={"pretrained": str(tiny_qwen2_vl), "dtype": "float32"}, gen_kwargs={"max_gen_toks": 4},
    )  # fmt: skip
    system = "You are a pirate chatbot who always responds in pirate speak!"
    assert results["config"]["system_instruction"] == system
    assert system in results["samples"][f"{TASK}_text"][0]["arguments"][0][0]
