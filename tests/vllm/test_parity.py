"""The same prompts, frames, answers and scores as `mmla-hf`, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness_ext.requests import Request, Response
from harness_ext.session import Session, session
from mmla_tasks.records import Clip
from tests.integration.asking import FEW_LABELS, request_of

from .comparing import NEAR, NEW_TOKENS, SETTINGS, answers, assert_scores_near

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

DATASETS = ("MIntRec", "MELD", "CH-SIMSv2.0")
ROWS = 20
CLIPS = 40


def prompt_ids(lm: Any, request: Request) -> list[int]:
    """Token ids of a prompt as the engine gets them, places for video filled."""
    question = lm._question(request)
    return list(lm._in_flight.call(lm._prompt, question, NEW_TOKENS)["prompt_token_ids"])


def hf_prompt_ids(lm: Any, request: Request) -> list[int]:
    return lm._inputs([lm._question(request)], NEW_TOKENS)["input_ids"][0].tolist()


def assert_alike(lm: Any, requests: list[Request], ours: list[Response], theirs: list[Response]) -> None:
    """At most one in a hundred differs, and there the model's two best tokens are as good as equal."""
    different = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if str(a) != str(b)]
    assert len(different) <= len(requests) / 100, [(str(ours[i]), str(theirs[i])) for i in different]
    for i in different:
        assert gap_where_they_part(lm, requests[i], str(ours[i]), str(theirs[i])) < NEAR
    for a, b in (pair for i, pair in enumerate(zip(ours, theirs, strict=True)) if i not in different):
        assert (a.prompt_tokens, a.new_tokens, a.truncated, a.frames) == (
            b.prompt_tokens, b.new_tokens, b.truncated, b.frames,
        )  # fmt: skip


def gap_where_they_part(lm: Any, request: Request, one: str, other: str) -> float:
    """Difference of the two answers' logits at their first different token."""
    import torch

    first, second = (lm.tokenizer.encode(text, add_special_tokens=False) for text in (one, other))
    same = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    inputs = lm._inputs([lm._question(request)], NEW_TOKENS)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if name in inputs:
            tail = first[:same] if name == "input_ids" else [int(name == "attention_mask")] * same
            inputs[name] = torch.cat([inputs[name], torch.tensor([tail], dtype=inputs[name].dtype)], dim=1)
    with torch.inference_mode():
        best = lm.model(**inputs).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


@pytest.fixture(scope="module")
def rows(hf_texts: Any, real_texts: Callable[[str, int], list[str]]) -> list[Request]:
    """Twenty real rows of each of three datasets, one of them Chinese."""
    made = [
        request_of(hf_texts, dataset, text, number)
        for dataset in DATASETS
        for number, text in enumerate(real_texts(dataset, ROWS))
    ]
    return [replace(request, gen_kwargs=SETTINGS) for request in made]


@pytest.fixture(scope="module")
def shown(hf_clips: Any, drawn_clip: Callable[..., Clip]) -> list[Request]:
    """Forty drawn clips of several sizes and lengths."""
    sizes = ((320, 240), (160, 120), (240, 320), (480, 360))
    made = []
    for n in range(CLIPS):
        width, height = sizes[n % len(sizes)]
        clip = drawn_clip(n, width=width, height=height, frames=3 + n % 12)
        made.append(request_of(hf_clips, "MELD", f"Sentence {n}.", n, clip=clip))
    return [replace(request, gen_kwargs=SETTINGS) for request in made]


# ---- texts -------------------------------------------------------------------------------------------------------


def test_prompts_of_real_texts_are_the_same_tokens(texts: Any, hf_texts: Any, rows: list[Request]) -> None:
    plain = [replace(rows[n], prompt=f"Who? {n}", chat=False) for n in range(2)]  # special tokens added, and once
    for request in [*rows, *plain]:
        assert prompt_ids(texts, request) == hf_prompt_ids(hf_texts, request)


@pytest.mark.parametrize("mode", ["generate", "constrained"])
def test_real_texts_are_answered_alike(texts: Any, hf_texts: Any, rows: list[Request], mode: str) -> None:
    ours = answers(texts, rows, mode)
    assert_alike(hf_texts, rows, ours, answers(hf_texts, rows, mode))
    if mode == "constrained":
        assert all(str(answer) in request.answer_forms for answer, request in zip(ours, rows, strict=True))


def test_labels_of_real_texts_are_ranked_alike(texts: Any, hf_texts: Any, rows: list[Request]) -> None:
    assert_scores_near(answers(texts, rows, "rank"), answers(hf_texts, rows, "rank"))


def test_a_label_that_begins_another_is_ranked_alike(texts: Any, hf_texts: Any, rows: list[Request]) -> None:
    few = [replace(request, labels=("ask", *FEW_LABELS)) for request in rows[:2]]
    assert_scores_near(answers(texts, few, "rank"), answers(hf_texts, few, "rank"))


def test_sampled_answers_hang_on_seed_and_document_alone(texts: Any, rows: list[Request]) -> None:
    warm = [replace(r, gen_kwargs={**SETTINGS, "do_sample": True, "temperature": 1.0}) for r in rows[:4]]
    with session(Session(seed=1)):
        once = answers(texts, warm, "generate")
        again = answers(texts, warm[::-1], "generate")[::-1]
    with session(Session(seed=2)):
        other = answers(texts, warm, "generate")
    assert once == again != other
    twins = [replace(warm[0], id=str(n)) for n in range(4)]
    with session(Session(seed=1)):
        assert len(set(answers(texts, twins, "generate"))) > 1


def test_time_is_noted_by_stage(texts: Any, rows: list[Request]) -> None:
    with session(Session()) as active:
        answers(texts, rows[:2], "generate")
    assert {"preprocess", "prefill", "generate"} <= active.timings.seconds.keys()


# ---- clips -------------------------------------------------------------------------------------------------------


def test_prompts_with_clips_are_the_same_tokens(clips: Any, hf_clips: Any, shown: list[Request]) -> None:
    plain = replace(shown[0], prompt="<video>Who?", chat=False)
    for request in [*shown, plain]:
        ids = prompt_ids(clips, request)
        assert ids == hf_prompt_ids(hf_clips, request)
        assert ids.count(clips.tokenizer.convert_tokens_to_ids("<|video_pad|>")) > 1


@pytest.mark.parametrize("mode", ["generate", "constrained"])
def test_clips_are_answered_alike(clips: Any, hf_clips: Any, shown: list[Request], mode: str) -> None:
    ours = answers(clips, shown, mode)
    assert_alike(hf_clips, shown, ours, answers(hf_clips, shown, mode))
    assert all(answer.frames and len(answer.frames["indices"]) <= 4 for answer in ours)


def test_labels_of_clips_are_ranked_alike(clips: Any, hf_clips: Any, shown: list[Request]) -> None:
    assert_scores_near(answers(clips, shown, "rank"), answers(hf_clips, shown, "rank"))


def test_other_frames_give_other_scores(clips: Any, shown: list[Request]) -> None:
    """A cache that mixed clips up would give the first one's scores to all."""
    same_text = [replace(request, prompt=shown[0].prompt) for request in shown[:4]]
    scores = [answer.label_scores for answer in answers(clips, same_text, "rank")]
    assert all(a != b for n, a in enumerate(scores) for b in scores[:n])
