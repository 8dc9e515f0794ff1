"""The prompts that all tasks share, as Jinja templates compiled once, and the answer form.

`clean` wording: the released one without claims that are not true (no audio reaches a model; a text model sees no
video). The released wordings are in `released`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import jinja2

Protocol = Literal["clean", "paper"]
PROTOCOLS: tuple[Protocol, ...] = ("clean", "paper")

VIDEO = "<video>"
"""The one place in a prompt where a backend puts the video."""

_LABELS = (
    "The candidate labels for {{ dimension }} are: [{{ labels | join(', ') }}]. "
    "Respond in the format: '{{ dimension }}: [label]'. Only one label should be provided."
)
PROMPT = (
    VIDEO + "You are presented with a video in which the speaker says: {{ text }} "
    "Based on the text and video content, what is the {{ dimension }} of this speaker?\n" + _LABELS
)
PROMPT_TEXT = "The speaker says: {{ text }} Based on the text, what is the {{ dimension }} of this speaker?\n" + _LABELS
PROMPT_VIDEO = (
    VIDEO + "You are presented with a video of a speaker. "
    "Based on the video content, what is the {{ dimension }} of this speaker?\n" + _LABELS
)

ANSWER_PREFIX = "{dimension}:"
"""What stands before a label in an answer; one space follows it."""


def answer_prefix(dimension: str) -> str:
    """The fixed part of the answer form, such as ``intent:``."""
    return ANSWER_PREFIX.format(dimension=dimension)


def answer_form(dimension: str, label: str) -> str:
    """The full answer: few-shot target, training target, and what `constrained` and `rank` score."""
    return f"{answer_prefix(dimension)} {label}"


@lru_cache(maxsize=256)
def compiled(template: str) -> jinja2.Template:
    """Compile a template once; an unknown name in it fails when it is rendered."""
    return _environment().from_string(template)


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not given.
    """
    return compiled(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
