"""What ranking labels costs, in prefills of the same prompt: SmolLM2, float32, one prompt of about 150 tokens.

Run as ``python benchmarks/rank_cost.py``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

TASKS = ("mmla_intent_mintrec", "mmla_intent_mintrec2", "mmla_emotion_meld")
WORDS = "you know what I did yesterday "


def main() -> int:
    import torch

    from harness_ext.backends.hf import HFLabelLM
    from harness_ext.catalogue import Catalogue
    from harness_ext.models import smollm2_folder
    from harness_ext.prompts import PROMPT_TEXT, answer_prefix, render
    from harness_ext.questions import Question
    from harness_ext.requests import Request

    lm = HFLabelLM(str(smollm2_folder()), dtype="float32")
    print("| labels | prompt tokens | prefill | rank | prefills |\n|---:|---:|---:|---:|---:|")
    worst = 0.0
    for task in TASKS:
        config = Catalogue.load().files[task].config
        dimension, labels = str(config["dimension"]), tuple(config["labels"])
        text = render(PROMPT_TEXT, {"text": WORDS * 4, "dimension": dimension, "labels": labels})
        prompt = lm.apply_chat_template([{"role": "user", "content": text}])
        request = Request(task, "1", prompt, labels, answer_prefix(dimension), {}, chat=True)
        answer, inputs = lm._tokens_of(request), lm._inputs([Question(request, prompt)], 16)
        with torch.inference_mode():
            positions = lm._scorer.positions(inputs)
            prefill = median_seconds(lambda: lm.model(**inputs, position_ids=positions, logits_to_keep=1))  # noqa: B023
            rank = median_seconds(lambda: lm._scorer.tree(inputs, answer))  # noqa: B023
        tokens = inputs["input_ids"].shape[1]
        worst = max(worst, rank / prefill)
        print(f"| {len(labels)} | {tokens} | {prefill:.2f} s | {rank:.2f} s | {rank / prefill:.2f} |")
    return 0 if worst <= 1.5 else 1


def median_seconds(call: Callable[[], Any], repeats: int = 9) -> float:
    """Median wall time of a call, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
