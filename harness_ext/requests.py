"""What a backend is asked (`Request`) and what it gives back (`Response`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmla_tasks.errors import ClipFault
from mmla_tasks.records import Clip

AnswerMode = Literal["generate", "constrained", "rank"]
ANSWER_MODES: tuple[AnswerMode, ...] = ("generate", "constrained", "rank")
BAD_CLIP_POLICIES = ("error", "skip", "text")
"""What happens to a missing or broken clip: the run stops, the row is left out, or it is asked without video."""


@dataclass(frozen=True)
class Request:
    """One question to a model.

    `prompt` is final: lm-eval has applied the chat template (then `chat` is true, and no special tokens may be
    added when it is tokenised). With a clip it holds exactly one place for the video: whatever the backend's
    `apply_chat_template` put there, or the literal ``<video>`` when no template was applied.
    """

    task: str
    id: str
    prompt: str
    labels: tuple[str, ...]
    answer_prefix: str
    """What stands before the label in the answer form, such as ``intent:``; one space follows it."""
    gen_kwargs: Mapping[str, Any]
    """lm-eval's names, set explicitly: max_gen_toks, do_sample, until, repetition_penalty, ..."""
    clip: Clip | None = None
    chat: bool = False
    """Whether a chat template was applied to `prompt`."""
    fallback: str | None = None
    """The same question without video, final too; set when a bad clip is to be asked as text."""
    version: int = 1
    """The task's version: a change to prompts, parsing or scoring asks anew."""
    gold: str = ""
    """The document's label. Only scripted backends (`mmla-echo`) may read it."""

    @property
    def answer_forms(self) -> tuple[str, ...]:
        """The closed list of full answers, such as ``intent: joke``, in the order of `labels`."""
        return tuple(f"{self.answer_prefix} {label}" for label in self.labels)


class Response(str):
    """A raw answer: a `str` for lm-eval, with what the backend knows about it.

    Attributes:
        truncated: Generation ended at the token limit and not at an end token.
        skipped: The clip is bad and the policy is `skip`; the text is empty and nothing is scored.
        as_text: The clip is bad and the question was asked without video.
        clip_fault: What is wrong with the clip, in one word, of a response that is `skipped` or `as_text`.
        prompt: The prompt that was sent, where it is not the request's own (`as_text`).
        label_scores: `rank` only: label -> summed log-probability (natural log) of the label's own tokens.
        label_tokens: `rank` only: label -> number of those tokens.
        frames: Fingerprint of the frames that were shown (see `harness_ext.video.Frames.fingerprint`).
        prompt_tokens: Length of the prompt as the model saw it, video tokens included.
        new_tokens: Number of generated tokens.
    """

    FIELDS = (
        "truncated", "skipped", "as_text", "clip_fault", "prompt",
        "label_scores", "label_tokens", "frames", "prompt_tokens", "new_tokens",
    )  # fmt: skip
    truncated: bool
    skipped: bool
    as_text: bool
    clip_fault: ClipFault | None
    prompt: str | None
    label_scores: dict[str, float] | None
    label_tokens: dict[str, int] | None
    frames: dict[str, Any] | None
    prompt_tokens: int | None
    new_tokens: int | None

    def __new__(
        cls,
        text: str,
        *,
        truncated: bool = False,
        skipped: bool = False,
        as_text: bool = False,
        clip_fault: ClipFault | None = None,
        prompt: str | None = None,
        label_scores: dict[str, float] | None = None,
        label_tokens: dict[str, int] | None = None,
        frames: dict[str, Any] | None = None,
        prompt_tokens: int | None = None,
        new_tokens: int | None = None,
    ) -> Response:
        """Make the string and attach what is known."""
        self = super().__new__(cls, text)
        self.truncated = truncated
        self.skipped = skipped
        self.as_text = as_text
        self.clip_fault = clip_fault
        self.prompt = prompt
        self.label_scores = label_scores
        self.label_tokens = label_tokens
        self.frames = frames
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        return self

    def to_dict(self) -> dict[str, Any]:
        """The text as `response` and every attribute that says something; `from_dict` reverses it."""
        known = {name: getattr(self, name) for name in self.FIELDS}
        return {"response": str(self), **{k: v for k, v in known.items() if v is not None and v is not False}}

    def with_(self, **changes: Any) -> Response:
        """A copy with some attributes changed."""
        return Response(str(self), **{**{name: getattr(self, name) for name in self.FIELDS}, **changes})

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Response:
        """Rebuild a response from `to_dict`; other keys of the row are ignored."""
        return cls(row["response"], **{name: row[name] for name in cls.FIELDS if name in row})

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let responses be pickled between processes."""
        return (str(self),), {name: getattr(self, name) for name in self.FIELDS}
