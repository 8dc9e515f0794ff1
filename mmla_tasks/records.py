"""The two things that travel far: a `Clip` (a reference, nothing is opened) and an `Answer` (what a raw text means)."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

UNKNOWN = "unknown"
"""Parsed label when the text names no label or is empty; the released code's word (src/Zero-shot_Inference/eval.py)."""
MULTI = "multi"
"""Parsed label when the text names several labels; the released code's word."""

Outcome = Literal["matched", "none", "several", "empty", "truncated", "skipped"]
"""What parsing found. `truncated`: no label, and the answer was cut at the token limit or inside an unclosed
``<think>``. `skipped`: never asked, its clip is bad and the policy is `skip`."""


class Clip(TypedDict):
    """Reference to a stretch of a video file. A plain dict, so that it passes through JSON; nothing is opened."""

    path: str
    """Absolute path of the video file."""
    start_seconds: float
    """Start of the utterance in the file, inclusive."""
    end_seconds: float | None
    """End of the utterance in the file, exclusive; None is the end of the file."""
    size: int | None
    """Bytes; None when the file is missing."""
    mtime_ns: int | None
    """Modification time in nanoseconds; with path and size the key under which digests are cached."""


class Document(TypedDict):
    """One row of a dataset, as lm-eval sees it."""

    id: str
    text: str
    label: str
    """One of the task's declared labels, in the declared spelling."""
    clip: Clip | None


class Answer(str):
    """What a raw text means: a declared label, ``unknown`` or ``multi``; a `str`, so lm-eval logs just the label.

    Attributes:
        outcome: What parsing found, see `Outcome`.
        rule: The rule that matched (``form``: a line in the requested form; ``mention``: one label mentioned
            anywhere; ``released``: the released rule), None without a match.
        raw: The text as the model gave it.
        released: What the released rule parses from the same text.
        truncated: Whether the answer was cut at the token limit.
    """

    outcome: Outcome
    rule: str | None
    raw: str
    released: str
    truncated: bool

    def __new__(
        cls,
        label: str,
        *,
        outcome: Outcome,
        rule: str | None,
        raw: str,
        released: str,
        truncated: bool = False,
    ) -> Answer:
        """Make the string and attach its evidence."""
        self = super().__new__(cls, label)
        self.outcome = outcome
        self.rule = rule
        self.raw = raw
        self.released = released
        self.truncated = truncated
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let answers be pickled between processes with their evidence."""
        return (str(self),), {
            "outcome": self.outcome,
            "rule": self.rule,
            "raw": self.raw,
            "released": self.released,
            "truncated": self.truncated,
        }
