"""Requests as the tasks make them, put to `mmla-hf`, and labels scored in a way that shares nothing with its code."""

from __future__ import annotations

from typing import Any

from harness_ext.backends.hf import HFLabelLM, Options, batch_bound
from harness_ext.catalogue import Catalogue
from harness_ext.requests import Request, Response

LABELS = {
    str(file.config["dataset"]): (str(file.config["dimension"]), tuple(file.config["labels"]))
    for file in Catalogue.load().files.values()
    if not file.is_group
}
FEW_LABELS = ("joke", "taunt", "apologise", "ask for help", "ask for opinions")
SETTINGS = {"max_gen_toks": 8, "do_sample": False, "until": [], "repetition_penalty": 1.0}


def prompt_of(dataset: str, text: str, video: bool = False) -> str:
    dimension, labels = LABELS[dataset]
    opening = (
        f"<video>You are presented with a video in which the speaker says: {text} Based on the text and video content, "
        if video
        else f"The speaker says: {text} Based on the text, "
    )
    return (
        f"{opening}what is the {dimension} of this speaker?\n"
        f"The candidate labels for {dimension} are: [{', '.join(labels)}]. "
        f"Respond in the format: '{dimension}: [label]'. Only one label should be provided."
    )


def request_of(lm: HFLabelLM, dataset: str, text: str, number: int = 0, chat: bool = True, **more: Any) -> Request:
    dimension, labels = LABELS[dataset]
    prompt = prompt_of(dataset, text, video="clip" in more)
    if chat:
        prompt = lm.apply_chat_template([{"role": "user", "content": prompt}])
    return Request(dataset, str(number), prompt, labels, f"{dimension}:", SETTINGS, chat=chat, **more)


def answered(lm: HFLabelLM, requests: list[Request], **options: Any) -> list[Response]:
    lm.options = Options(**options)
    lm._bound = batch_bound(lm.options, "cpu")
    answers = dict(lm.answer(requests))
    return [answers[i] for i in range(len(requests))]


def scored_both_ways(lm: HFLabelLM, requests: list[Request]) -> tuple[Any, Any]:
    """Scores of a left-padded batch, and of each prompt + prefix + label as a sequence of its own. [B, labels]."""
    import torch

    batch = [lm._question(request) for request in requests]
    with torch.inference_mode():
        at_once = lm.scorer.tree(lm._inputs(batch, 16), lm._tokens_of(requests[0]))
    return at_once, one_by_one(lm, requests)


def one_by_one(lm: HFLabelLM, requests: list[Request]) -> Any:
    """Score each prompt + prefix + label as a sequence of its own. [B, labels]."""
    import torch

    answer = lm._tokens_of(requests[0])
    with torch.inference_mode():
        prompts = [lm._inputs([lm._question(request)], 16) for request in requests]
        return torch.tensor([[_whole(lm, prompt, answer.prefix, own) for own in answer.own] for prompt in prompts])


def _whole(lm: HFLabelLM, prompt: dict[str, Any], prefix: tuple[int, ...], own: tuple[int, ...]) -> float:
    """One full sequence, masks and positions left to the model."""
    import torch

    tail = torch.tensor([[*prefix, *own]])
    inputs = {**prompt, "input_ids": torch.cat([prompt["input_ids"], tail], dim=1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in {"mm_token_type_ids", "token_type_ids"} & set(inputs):
        inputs[name] = torch.cat([inputs[name], torch.zeros_like(tail)], dim=1)
    logits = lm.model(**inputs, use_cache=False).logits[0, -len(own) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(own)[:, None]).sum())
