"""Examples -> the tensors of a training batch: those of evaluation, with the answer behind the prompt.

Prompts and answers are padded on the left together, so that all answers end at the last column and a forward pass needs
to score only the few columns where they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.examples import Example
from harness_ext.backends.hf_batch import BY_TOKEN
from harness_ext.backends.hf_rank import with_tokens
from harness_ext.questions import Question, Skipped, question_of
from mmla_tasks.errors import ClipError, ModelError

IGNORED = -100
"""Label of a token that is no part of an answer."""


@dataclass(frozen=True)
class Row:
    """An example as tensors."""

    example: Example
    inputs: dict[str, Any]
    """Of prompt and answer, B is 1."""
    counted: bool = True
    """Whether its answer is learnt; not where it stands in for one whose clip is bad."""
    bad_clip: str | None = None
    """Name of the example whose clip is bad, where it was left out or asked without video."""

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return int(self.inputs["input_ids"].shape[1])


class Rows:
    """All examples of a run, made into tensors when asked for. A torch dataset.

    Args:
        backend: The model, whose processor makes the tensors.
        examples: In the order of the datasets.
        on_bad_clip: ``error``; ``text`` asks without video; ``skip`` lets the next good example stand in, uncounted,
            so that a batch keeps its size and its kind.
        max_length: Tokens that an example may have.
    """

    def __init__(self, backend: Any, examples: Sequence[Example], on_bad_clip: str, max_length: int | None) -> None:
        self.backend = backend
        self.examples = examples
        self.on_bad_clip = on_bad_clip
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Row | ClipError | ModelError:
        """One row. What is wrong with it is given back: raised in a worker process, it would lose its message."""
        try:
            return self._row(index)
        except (ClipError, ModelError) as error:
            return error

    def _row(self, index: int) -> Row:
        example = self.examples[index]
        question = self._question(example)
        if isinstance(question, Question):
            return self._made(example, question, bad_clip=example.name if question.as_text else None)
        for step in range(1, len(self.examples)):
            other = self.examples[(index + step) % len(self.examples)]
            question = self._question(other)
            if isinstance(question, Question):
                return self._made(other, question, counted=False, bad_clip=example.name)
        raise ClipError("no clip of the training data can be read", first=example.name)

    def _question(self, example: Example) -> Question | Skipped:
        return question_of(example.request, self.backend.frame_policy, self.on_bad_clip)

    def _made(self, example: Example, question: Question, **known: Any) -> Row:
        prompt = self.backend.prepared(question).inputs
        row = Row(example, with_tokens(prompt, [list(example.answer)]), **known)
        if self.max_length is not None and row.length > self.max_length:
            raise ModelError(
                f"{example.name} is too long to be trained on",
                length=f"{row.length} tokens, its answer included",
                limit=f"{self.max_length} tokens",
                next="fewer frames or pixels, a larger max_length, or a model with a longer context",
            )
        return row


class Collator:
    """Lays rows one behind the other.

    Args:
        pad_token: Id to pad with; it is masked.
    """

    def __init__(self, pad_token: int) -> None:
        self.pad_token = pad_token

    def __call__(self, rows: Sequence[Row | ClipError | ModelError]) -> dict[str, Any]:
        """Make one batch.

        Returns:
            ``tensors`` for the model, ``labels`` as `answer_labels` makes them, ``names`` of the rows, ``bad_clips``:
            names of rows that were left out or asked without video. Or ``fault`` alone: what is wrong with a row.
        """
        faults = [row for row in rows if not isinstance(row, Row)]
        if faults:
            return {"fault": faults[0]}
        good = [row for row in rows if isinstance(row, Row)]
        if unlike := _unlike(good):
            return {"fault": unlike}
        return {
            "tensors": joined([row.inputs for row in good], self.pad_token),
            "labels": answer_labels(good),
            "names": [row.example.name for row in good],
            "bad_clips": [row.bad_clip for row in good if row.bad_clip],
        }


def _unlike(rows: Sequence[Row]) -> ModelError | None:
    """Say so where the clips of a batch cannot be laid one behind the other: some processors stack frames."""
    for name in {name for row in rows for name in row.inputs} - set(BY_TOKEN):
        shapes = {tuple(row.inputs[name].shape[1:]) for row in rows if name in row.inputs}
        if len(shapes) > 1:
            return ModelError(
                "clips of one batch have unlike numbers of frames, which this model cannot read together",
                rows="\n".join(row.example.name for row in rows),
                shapes=", ".join(map(str, sorted(shapes))),
                next="`batch_size: 1` with gradient_accumulation, or num_frames instead of fps",
            )
    return None


def joined(inputs: Sequence[dict[str, Any]], pad_token: int) -> dict[str, Any]:
    """Tensors of several rows as one batch, padded on the left; a row without clip lacks what belongs to clips."""
    import torch

    longest = max(one["input_ids"].shape[1] for one in inputs)
    names = list(dict.fromkeys(name for one in inputs for name in one))
    made = {}
    for name in names:
        if name in BY_TOKEN:
            fill = pad_token if name == "input_ids" else 0
            values = [one[name] if name in one else torch.zeros_like(one["input_ids"]) for one in inputs]
            made[name] = torch.cat([_padded(value, longest, fill) for value in values])
        else:
            made[name] = torch.cat([one[name] for one in inputs if name in one])
    return made


def _padded(value: Any, length: int, fill: int) -> Any:
    import torch

    return torch.nn.functional.pad(value, (length - value.shape[1], 0), value=fill)


def answer_labels(rows: Sequence[Row]) -> Any:
    """Int64 [B, K + 1], K the tokens of the longest answer: each at the right end of its row."""
    import torch

    width = 1 + max(len(row.example.answer) for row in rows)
    labels = torch.full((len(rows), width), IGNORED)
    for n, row in enumerate(rows):
        if row.counted:
            labels[n, width - len(row.example.answer) :] = torch.tensor(row.example.answer)
    return labels
