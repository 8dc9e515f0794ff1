"""How free answers are decoded: one set of defaults, and overrides that say what really happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmla_tasks.errors import UsageError

DECODING: Mapping[str, Any] = {
    "until": [],
    "do_sample": False,
    "temperature": 0.0,
    "max_gen_toks": 64,
    "repetition_penalty": 1.0,
}
"""Greedy, 64 new tokens, no stop strings, no repetition penalty; set explicitly so that no default leaks in."""

_SAME_AS_MAX_GEN_TOKS = ("max_new_tokens", "max_tokens", "max_completion_tokens")


def decoding(*overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over the defaults, later ones over earlier ones.

    Other names of ``max_gen_toks`` are taken for it. A temperature above 0 switches sampling on; sampling without a
    temperature is at 1.0, as in transformers.

    Raises:
        UsageError: a temperature together with ``do_sample=False``, or a value that cannot be meant.

    >>> decoding({"max_new_tokens": 8})["max_gen_toks"]
    8
    >>> decoding({"temperature": 0.7})["do_sample"]
    True
    """
    asked: dict[str, Any] = {}
    for override in overrides:
        given = {("max_gen_toks" if k in _SAME_AS_MAX_GEN_TOKS else k): v for k, v in override.items()}
        if given.get("temperature") and "do_sample" not in given:
            asked.pop("do_sample", None)  # a task's greedy default, say: the later temperature says more
        asked |= given
    warm = asked.get("temperature")
    if warm is not None and (isinstance(warm, bool) or not isinstance(warm, (int, float)) or warm < 0):
        raise UsageError(f"temperature is {warm!r}", next="write a number of at least 0")
    if warm and asked.get("do_sample") is False:
        raise UsageError(f"temperature={warm:g} has no effect with do_sample=False", next="leave one of them out")
    if warm and "do_sample" not in asked:
        asked["do_sample"] = True
    if asked.get("do_sample") and not warm:
        asked["temperature"] = 1.0
    limit = asked.get("max_gen_toks")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UsageError(f"max_gen_toks is {limit!r}", next="write a whole number of at least 1")
    if isinstance(asked.get("until"), str):
        asked["until"] = [asked["until"]]
    return {**DECODING, "until": list(DECODING["until"]), **asked}
