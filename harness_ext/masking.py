"""Keeps tokens and keys out of everything that is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_NAME = re.compile(r"(^|_)(token|key|secret|password|credential)s?$", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:^|[\s,{'\"])[\w-]*?(?:token|key|secret|password|credential)s?['\"]?\s*[=:]\s*)[^\s,}]+", re.IGNORECASE
)


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose secret values are masked, by the names of their keys.

    >>> masked({"pretrained": "x", "token": "hf_abc", "max_gen_tokens": 3})
    {'pretrained': 'x', 'token': '***', 'max_gen_tokens': 3}
    """
    return {k: MASK if is_secret(k, v) else masked(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def masked_text(text: str) -> str:
    """A command line whose secret values are masked.

    >>> masked_text("--model_args pretrained=x,token=hf_abc --limit 3")
    '--model_args pretrained=x,token=*** --limit 3'
    """
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def is_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(_NAME.search(str(name)))
