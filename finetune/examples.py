"""Documents of a split as training examples: the question exactly as evaluation asks it, and the answer to learn.

Prompts come from the task YAMLs through lm-eval's own code and the model's chat template, tensors from the backend that
evaluates (`HFLabelLM.prepared`). So prompt tokens of a training example are those of the evaluation request of the
same row; a test compares them for all twelve tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.config import Config
from harness_ext.catalogue import Catalogue
from harness_ext.labels import answer_lead, form_ids
from harness_ext.messages import render_chat
from harness_ext.ranks import Ranks
from harness_ext.requests import Request
from harness_ext.run import RunOptions, check_before_load, load_tasks
from mmla_tasks.errors import DataError

EVALUATED_BY = "mmla-hf"
"""The backend whose prompts and tensors training uses."""


@dataclass(frozen=True)
class Example:
    """One document to learn from."""

    request: Request
    """The question, as evaluation asks it."""
    answer: tuple[int, ...]
    """Token ids of the answer form and the end token: what the loss is about."""

    @property
    def name(self) -> str:
        """Task and document, for messages."""
        return f"{self.request.task} id {self.request.id}"


def tasks_of(config: Config) -> dict[str, Any]:
    """Leaf name -> task, built by lm-eval as for an evaluation.

    Raises:
        MmlaError: unknown tasks, bad task files, no data.
    """
    names = Catalogue.load(config.include_path).resolve(config.tasks, config.modality)
    # Where a bad clip does not stop the run, requests need their question without video.
    options = replace(_options(config, names), on_bad_clip="error" if config.on_bad_clip == "error" else "text")
    tasks: dict[str, Any] = load_tasks(names, options)["tasks"]
    return tasks


def check_clips_of(
    config: Config, tasks: Mapping[str, Any], splits: Sequence[Mapping[str, Sequence[Any]]], say: Any
) -> None:
    """Look at every clip before a model is loaded. Each process looks at all of them: it takes milliseconds a clip.

    Args:
        config: Says what a bad clip does.
        tasks: Task name -> task.
        splits: Of each split, task -> documents.
        say: Told how many are bad, where that does not end the run.

    Raises:
        ClipError: ``on_bad_clip`` is ``error`` and a clip is missing, empty, or without a frame by its packets.
    """
    seen = {name: [row for split in splits for row in split[name]] for name, task in tasks.items() if task.has_video}
    check_before_load(seen, tasks, _options(config, config.tasks), Ranks(), say)


def _options(config: Config, names: Sequence[str]) -> RunOptions:
    return RunOptions(
        EVALUATED_BY,
        names,
        include_path=config.include_path,
        data_dir=config.data_dir,
        data_revision=config.data_revision,
        modality=config.modality,
        on_bad_clip=config.on_bad_clip,
    )


def documents_of(tasks: Mapping[str, Any], split: str) -> dict[str, list[Any]]:
    """Task -> its documents of a split.

    Raises:
        DataError: a task has no such split.
    """
    missing = [name for name, task in tasks.items() if not task.dataset_files.has(split)]
    if missing:
        first = tasks[missing[0]]
        raise DataError(
            f"{', '.join(missing)} ha{'s' if len(missing) == 1 else 've'} no {split} split, which fine-tuning needs",
            file=f"{first.dataset_files.files[split]} (missing)",
            next="leave these tasks out, or bring their split",
        )
    for task in tasks.values():
        task.draw_clips(split)
    return {name: list(task.split(split).documents) for name, task in tasks.items()}


def requests_of(backend: Any, task: Any, documents: Sequence[Any]) -> list[Request]:
    """What evaluation asks about documents, chat template applied where the model has one."""
    chat = bool(backend.has_chat_template)
    how = {"apply_chat_template": chat, "chat_template": backend.apply_chat_template}
    requests = []
    for document in documents:
        prompt = task.fewshot_context(
            document, 0, fewshot_as_multiturn=chat, gen_prefix=task.doc_to_prefix(document), **how
        )
        requests.append(task.construct_requests(document, prompt, metadata=("", 0, 1), **how).request)
    return requests


def examples_of(backend: Any, task: Any, documents: Sequence[Any]) -> list[Example]:
    """Documents as examples: the question, and the answer in the requested form with its end token."""
    tokenizer, ends = backend.tokenizer, {}
    examples = []
    for document, request in zip(documents, requests_of(backend, task, documents), strict=True):
        form = task.doc_to_target(document)
        if request.chat not in ends:
            ends[request.chat] = end_token(backend, form if request.chat else None)
        ids = form_ids(tokenizer, answer_lead(request) + form)
        examples.append(Example(request, (*ids, ends[request.chat])))
    return examples


def end_token(backend: Any, answer: str | None) -> int:
    """With which token a learnt answer ends: as the chat template ends the assistant's turn, else the tokenizer's own.

    Args:
        backend: The model.
        answer: Some answer of a chat; None where no template is applied.
    """
    if answer is not None:
        said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": answer}]
        # A generation prompt behind it closes the turn; what matters is the first token that ends one.
        behind = render_chat(backend.processor, said, add_generation_prompt=True).rpartition(answer)[2]
        closing = backend.tokenizer.encode(behind, add_special_tokens=False)
        found = next((token for token in closing if token in backend.end_tokens), None)
        if found is not None:
            return int(found)
    return int(backend.end_tokens[0])
