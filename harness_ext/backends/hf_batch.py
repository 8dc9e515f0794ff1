"""What a batch of `mmla-hf` is made of: each question as tensors of its own, how many share a batch, and the padding.

A question is made into tensors alone, in the thread that decoded its clip. So its tokens are counted, video included,
before a batch is filled, the model waits for no processor, and what is shown never depends on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness_ext.messages import VIDEO, model_inputs
from harness_ext.questions import Question

if TYPE_CHECKING:
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import Frames

Inputs = dict[str, Any]
"""Keyword arguments of a model's forward: input_ids [B, L], attention_mask [B, L], pixel values, ..."""

TOKEN_TYPES: Final = ("mm_token_type_ids", "token_type_ids")
"""Inputs [B, L] that mark what a token is; 0 is text."""
LARGE: Final = (1080, 1920)
"""Height and width that no clip is expected to exceed, where the frame policy sets no bound."""
BY_TOKEN: Final = ("input_ids", "attention_mask", *TOKEN_TYPES)
"""Inputs [B, L], which are padded; all others are laid one behind the other."""


@dataclass(frozen=True)
class Prepared:
    """A question ready for the model."""

    question: Question
    """Its pixels are gone: only the fingerprint of its frames is left."""
    inputs: Inputs
    """What the processor made of this question alone: B is 1 and nothing is padded."""

    @property
    def length(self) -> int:
        """Tokens of the prompt, video tokens included."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for value in self.inputs.values())

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What must be equal for tensors to be laid one behind the other."""
        return tuple((name, value.shape[1:]) for name, value in self.inputs.items() if name not in BY_TOKEN)


@dataclass
class BatchBound:
    """How many prompts a batch may have."""

    prompts: int | None
    """None leaves it to `tokens`."""
    tokens: int | None = None
    """Tokens of a batch, its padding included: prompts times the longest of them. None is no bound."""

    def allows(self, lengths: Sequence[int]) -> bool:
        """Whether prompts of these lengths may be one batch; a single one always may."""
        count = len(lengths)
        few = self.prompts is None or count <= self.prompts
        return count == 1 or (few and (self.tokens is None or count * max(lengths) <= self.tokens))

    def halve(self, lengths: Sequence[int]) -> None:
        """Allow half of what did not fit."""
        self.tokens = max(1, len(lengths) * max(lengths) // 2)

    def first(self, prepared: Sequence[Prepared]) -> list[Prepared]:
        """As many as may be one batch, from the first on."""
        count = 1
        while count < len(prepared) and self.allows([one.length for one in prepared[: count + 1]]):
            count += 1
        return list(prepared[:count])


def clip_bytes(processor: Any, policy: FramePolicy, dtype: Any) -> int:
    """Bytes that one clip takes at most, its frames and the tensors made of them, before any is opened.

    The processor is shown a blank clip as large as the policy allows.

    Args:
        processor: One that reads clips.
        policy: What clips are shown as.
        dtype: The model's precision.
    """
    count = policy.num_frames or policy.max_frames or 1
    blank = _blank_clip(min(2, count), policy)
    inputs = model_inputs(processor, [VIDEO], [blank], chat=False, max_pixels=policy.max_pixels or None)
    tensors: int = sum(value.numel() * dtype.itemsize for name, value in inputs.items() if name not in BY_TOKEN)
    return count * (blank.frames_THWC.nbytes + tensors) // len(blank)


def _blank_clip(count: int, policy: FramePolicy) -> Frames:
    import numpy as np

    from harness_ext.frame_policy import resized_shape
    from harness_ext.video import Frames

    shape = resized_shape(*LARGE, policy.max_pixels or LARGE[0] * LARGE[1], factor=2)
    numbers = tuple(range(count))
    return Frames(
        frames_THWC=np.zeros((count, *shape, 3), dtype=np.uint8),
        seconds=tuple(map(float, numbers)),
        indices=numbers,
        first_index=0,
        source_frames=count,
        source_fps=1.0,
        duration_seconds=float(count),
        fingerprint={"reader": policy.reader},
    )


def collate(prepared: Sequence[Prepared], pad_token: int, length: int = 0) -> Inputs:
    """Make one batch, prompts padded on the left.

    Args:
        prepared: Of equal `shapes`.
        pad_token: Id of the token to pad with; it is masked.
        length: Pad to at least so many tokens.
    """
    import torch

    longest = max(length, *(one.length for one in prepared))
    fill = {"input_ids": pad_token}

    def joined(name: str) -> Any:
        values = [one.inputs[name] for one in prepared]
        if name in BY_TOKEN:
            pad, by = torch.nn.functional.pad, fill.get(name, 0)
            values = [pad(value, (longest - value.shape[1], 0), value=by) for value in values]
        return values[0] if len(values) == 1 else torch.cat(values)

    return {name: joined(name) for name in prepared[0].inputs}


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, of whatever device."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error)


def release_memory() -> None:
    """Give back what the allocator of the device keeps for later."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
