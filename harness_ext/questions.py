"""A request made ready to be asked: its clip decoded, or set aside as the policy for bad clips says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness_ext.requests import Request
from harness_ext.session import timings
from mmla_tasks.errors import ClipError

if TYPE_CHECKING:
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import Frames

RGB: int = 3
"""Bytes of a pixel."""


@dataclass(frozen=True)
class Question:
    """One request with its frames decoded, or asked without video."""

    request: Request
    prompt: str
    """The final prompt: the request's, or its fallback."""
    frames: Frames | None = None
    as_text: bool = False
    fingerprint: dict[str, Any] | None = None
    """Of frames that are no longer held."""

    @property
    def evidence(self) -> dict[str, Any]:
        """What a `Response` says about how this was asked."""
        return {"as_text": self.as_text, "frames": self.fingerprint if self.frames is None else self.frames.fingerprint}

    def without_frames(self) -> Question:
        """The same with the evidence alone, when the pixels have become a model's tensors."""
        return replace(self, frames=None, fingerprint=self.evidence["frames"])


def question_of(request: Request, policy: FramePolicy, on_bad_clip: str) -> Question | None:
    """Decode the clip of a request, or do as `on_bad_clip` says.

    Returns:
        None for a request to skip.

    Raises:
        ClipError: The clip is bad and the policy is ``error``, or ``text`` without a fallback.
    """
    if request.clip is None:
        return Question(request, request.prompt)
    from harness_ext.frame_cache import frames_of

    try:
        with timings().measure("decode"):
            frames = frames_of(request.clip, policy, who=f"{request.task} id {request.id}")
    except ClipError:
        if on_bad_clip == "skip":
            return None
        if on_bad_clip == "text" and request.fallback is not None:
            return Question(request, request.fallback, as_text=True)
        raise
    return Question(request, request.prompt, frames)


def frame_bytes(request: Request, policy: FramePolicy) -> int:
    """Upper bound on the bytes of a request's frames, known before its clip is opened; 0 without a clip."""
    if request.clip is None:
        return 0
    return (policy.num_frames or policy.max_frames or 1) * policy.max_pixels * RGB
