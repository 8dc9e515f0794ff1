"""Keeps tokens and keys out of everything that is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_USER = re.compile(r"(\w+://)[^/@\s]+@")
_NAME = re.compile(r"(^|_)(token|key|secret|password|credential)s?$", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:^|[\s,{'\"?&])[\w-]*?(?:token|key|secret|password|credential)s?['\"]?\s*[=:]\s*)[^\s,}&]+", re.IGNORECASE
)


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose secret values are masked: by the names of their keys, and in addresses.

    >>> masked({"pretrained": "x", "token": "hf_abc", "max_gen_tokens": 3})
    {'pretrained': 'x', 'token': '***', 'max_gen_tokens': 3}
    """
    return {name: MASK if is_secret(name, value) else _masked_value(value) for name, value in values.items()}


def _masked_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return masked(value)
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """A command line or an address whose secret values are masked.

    >>> masked_text("--model_args pretrained=x,token=hf_abc --limit 3")
    '--model_args pretrained=x,token=*** --limit 3'
    >>> masked_text("https://me:hf_abc@host/v1?api_key=x&q=1")
    'https://***@host/v1?api_key=***&q=1'
    """
    return _ASSIGNED.sub(rf"\1{MASK}", _USER.sub(rf"\1{MASK}@", text))


def is_secret(name: str, value: Any) -> bool:
    """Whether a value of this name is a secret.

    >>> is_secret("api_key", "abc"), is_secret("api_key_env", "MY_KEY")
    (True, False)
    """
    return isinstance(value, str) and bool(_NAME.search(str(name)))
