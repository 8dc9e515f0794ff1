"""Every task, modality and answer mode with one video model: 108 answers of a tiny Qwen2-VL."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_ext import evaluate
from harness_ext.requests import ANSWER_MODES
from harness_ext.taskfile import MODALITIES
from mmla_tasks.errors import ModelError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("mode", ANSWER_MODES)
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_video_model_is_shown_what_the_switch_says(tiny_qwen2_vl: Path, modality: str, mode: str) -> None:
    results = evaluate(
        "mmla-hf", "mmla", data_dir="sample", limit=1, modality=modality, answer=mode, gen_kwargs={"max_gen_toks": 16},
        model_args={"pretrained": str(tiny_qwen2_vl), "dtype": "float32", "num_frames": 2, "max_pixels": 56 * 56},
    )  # fmt: skip
    assert len(results["samples"]) == 12
    for name, (row,) in results["samples"].items():
        prompt = row["arguments"][0][0]
        assert results["mmla"]["tasks"][name]["modality"] == modality
        assert prompt.count("<|video_pad|>") == ("video" in modality) and "<video>" not in prompt
        assert (row["doc"]["text"] in prompt) is ("text" in modality)
        assert bool(row["response"].get("frames")) is ("video" in modality)
        if mode != "generate":
            assert row["answer"]["outcome"] == "matched", row["resps"]


def test_a_text_model_is_not_asked_with_video(smollm2: Path) -> None:
    for modality in ("text+video", "video"):
        with pytest.raises(ModelError, match="the model takes no video") as fault:
            evaluate(
                "mmla-hf", "mmla_emotion_meld", data_dir="sample", limit=1, modality=modality,
                model_args={"pretrained": str(smollm2), "dtype": "float32"},
            )  # fmt: skip
        assert "--modality text" in str(fault.value)
