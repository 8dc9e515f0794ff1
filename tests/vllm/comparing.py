"""Two backends asked the same, and what they may differ in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness_ext.requests import Request, Response

NEW_TOKENS = 16
NEAR = 1e-3
"""Nats; and logits, where two answers part."""
SETTINGS = {"max_gen_toks": NEW_TOKENS, "do_sample": False, "until": [], "repetition_penalty": 1.0}


def answers(lm: Any, requests: list[Request], mode: str) -> list[Response]:
    lm.options = replace(lm.options, answer=mode)
    lm.batch_size = 8
    found = dict(lm.answer(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def assert_scores_near(ours: list[Response], theirs: list[Response]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.label_scores is not None and b.label_scores is not None
        assert a.label_scores.keys() == b.label_scores.keys() and a.label_tokens == b.label_tokens
        assert max(abs(a.label_scores[label] - b.label_scores[label]) for label in b.label_scores) < NEAR
        assert a.prompt_tokens == b.prompt_tokens and a.frames == b.frames
