"""The plan's tokens are those of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_ext import evaluate
from harness_ext.plan import make_plan
from harness_ext.run import RunOptions

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("chat", [None, False])
def test_tokens_are_those_that_the_model_is_shown(tiny_qwen2_vl: Path, chat: bool | None) -> None:
    options = {
        "model_args": {"pretrained": str(tiny_qwen2_vl), "dtype": "float32"},
        "data_dir": "sample:6",
        "apply_chat_template": chat,
        "gen_kwargs": {"max_gen_toks": 1},
    }
    names = ["mmla_emotion_meld", "mmla_sentiment_mosi_text"]
    plan = make_plan(RunOptions(model="mmla-hf", tasks=names, **options))
    samples = evaluate("mmla-hf", names, **options)["samples"]
    for task in plan.tasks:
        shown = {
            row["prompt_hash"] + str(row["doc"]["clip"]): row["response"]["prompt_tokens"] for row in samples[task.task]
        }
        assert task.prompt_tokens == sum(shown.values())
        assert task.requests == len(shown)
