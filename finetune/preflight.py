"""What would stop a training on its way, found before its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.config import Config
from finetune.examples import Example
from mmla_tasks.errors import ModelError, UsageError

SHOWN = 10
"""Rows that are named before the rest is counted."""


def refuse_clips(model: str, shows_clips: bool, tasks: Mapping[str, Any]) -> None:
    """A model that takes no video is not trained on tasks that show it.

    Args:
        model: Its name.
        shows_clips: Whether it takes video.
        tasks: Leaf name -> task.

    Raises:
        UsageError: with the tasks.
    """
    with_clips = [name for name, task in tasks.items() if task.has_video]
    if with_clips and not shows_clips:
        raise UsageError(f"{model} takes no video, which {', '.join(with_clips)} show", next="modality: text")


def refuse_uneven_processes(config: Config, tasks: Mapping[str, Any], zero_stage: int, processes: int) -> None:
    """Where one process's batch has clips and another's has none, they wait for each other's gradients forever.

    That is so where the vision tower learns, and under ZeRO-3, which gathers its weights for whoever uses it.

    Args:
        config: The run's.
        tasks: Leaf name -> task.
        zero_stage: Of DeepSpeed; 0 without it.
        processes: How many train.

    Raises:
        UsageError: it could happen.
    """
    if processes < 2 or not (zero_stage == 3 or config.trains_vision):
        return
    shown = {task.has_video for task in tasks.values()}
    why = "some tasks show clips and some none" if len(shown) > 1 else None
    if config.on_bad_clip == "text" and True in shown:
        why = "`on_bad_clip: text` makes rows without clips"
    if why:
        raise UsageError(
            f"{why}, for which {processes} processes would wait for each other",
            because="the vision tower learns" if config.trains_vision else "ZeRO-3 gathers weights when they are used",
            next="one process, tasks of one kind with `on_bad_clip: skip`, or zero2 with `train_vision: false`",
        )


def refuse_long_examples(backend: Any, examples: Sequence[Example], rows: Any) -> None:
    """Examples beyond the limit: of texts all are known, of the tokens of clips those of the row with the longest text.

    Args:
        backend: The model; its `max_length` is the limit.
        examples: All of the run.
        rows: Makes tensors of the example at an index, or says what is wrong with it.

    Raises:
        ModelError: with the rows that are too long.
    """
    if backend.max_length is None or not examples:
        return
    texts = backend.text_lengths([example.request for example in examples])
    lengths = [length + len(example.answer) for length, example in zip(texts, examples, strict=True)]
    over = [example.name for example, length in zip(examples, lengths, strict=True) if length > backend.max_length]
    if over:
        more = f"\nand {len(over) - SHOWN:,} more" if len(over) > SHOWN else ""
        raise ModelError(
            f"{len(over):,} of {len(examples):,} train rows are longer than {backend.max_length:,} tokens",
            rows="\n".join(over[:SHOWN]) + more,
            next="a larger max_length, or a model with a longer context",
        )
    longest = rows[max(range(len(examples)), key=lambda n: lengths[n])]
    if isinstance(longest, ModelError):
        raise longest
