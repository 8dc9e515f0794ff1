"""A request made ready to be asked: its clip decoded, or set aside as the policy for bad clips says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness_ext.requests import Request, Response
from harness_ext.session import timings
from mmla_tasks.errors import ClipError, ClipFault

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
    clip_fault: ClipFault | None = None
    """Why it is asked without video although there is a clip."""
    fingerprint: dict[str, Any] | None = None
    """Of frames that are no longer held."""

    @property
    def as_text(self) -> bool:
        """Whether it is asked without video because its clip is bad."""
        return self.clip_fault is not None

    @property
    def evidence(self) -> dict[str, Any]:
        """What a `Response` says about how this was asked."""
        shown = self.fingerprint if self.frames is None else self.frames.fingerprint
        return {"as_text": self.as_text, "clip_fault": self.clip_fault, "frames": shown}

    def without_frames(self) -> Question:
        """The same with the evidence alone, when the pixels have become a model's tensors."""
        return replace(self, frames=None, fingerprint=self.evidence["frames"])


@dataclass(frozen=True)
class Skipped:
    """A request that is not asked: its clip is bad."""

    clip_fault: ClipFault

    @property
    def response(self) -> Response:
        """What stands in the place of an answer."""
        return Response("", skipped=True, clip_fault=self.clip_fault)


def question_of(request: Request, policy: FramePolicy, on_bad_clip: str) -> Question | Skipped:
    """Decode the clip of a request, or do as `on_bad_clip` says.

    Raises:
        ClipError: The clip is bad and the policy is ``error``, or ``text`` without a fallback.
    """
    if request.clip is None:
        return Question(request, request.prompt)
    from harness_ext.frame_cache import frames_of

    try:
        with timings().measure("decode"):
            frames = frames_of(request.clip, policy, who=f"{request.task} id {request.id}")
    except ClipError as error:
        if on_bad_clip == "skip":
            return Skipped(error.fault)
        if on_bad_clip == "text" and request.fallback is not None:
            return Question(request, request.fallback, clip_fault=error.fault)
        raise
    return Question(request, request.prompt, frames)


def frame_bytes(request: Request, policy: FramePolicy) -> int:
    """Upper bound on the bytes of a request's frames, known before its clip is opened; 0 without a clip."""
    if request.clip is None:
        return 0
    return (policy.num_frames or policy.max_frames or 1) * policy.max_pixels * RGB
