"""Every fault of a config that can be seen before training, and one example with its masked labels.

Nothing is trained and no weights are read: layers come from the model's config, on torch's meta device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from finetune.config import DEEPSPEED, Config, ConfigText, check_text
from harness_ext.ranks import Ranks
from harness_ext.taskfile import Fault
from mmla_tasks.errors import MmlaError


@dataclass
class Checked:
    """What a look at a config found."""

    faults: list[Fault] = field(default_factory=list)
    shown: str = ""
    """One example, rendered, with what is learnt; empty where it could not be made."""
    facts: list[str] = field(default_factory=list)
    """Lines about the run: rows, steps, layers."""


def check(text: ConfigText) -> Checked:
    """Look for every fault at once."""
    config, faults = check_text(text)
    if config is None:
        return Checked(faults)
    return _Checking(config, text).result()


class _Checking:
    """One look; each step that fails leaves its fault, and the others go on without it."""

    def __init__(self, config: Config, text: ConfigText) -> None:
        self.config, self.text = config, text
        self.found = Checked()

    def result(self) -> Checked:
        from finetune.examples import tasks_of
        from finetune.run import check_packages, check_reporters

        check_packages()
        self._try("report_to", lambda: check_reporters(self.config))
        tasks = self._try("tasks", lambda: tasks_of(self.config)) or {}
        data = {split: self._documents(tasks, split) for split in ("train", "dev")}
        self._model()
        self._batch(tasks)
        processor = self._try("model", self._processor)
        if processor is not None and data["train"]:
            self._examples(processor, tasks, data["train"])
        return self.found

    # ---- data ----------------------------------------------------------------------------------------------------

    def _documents(self, tasks: dict[str, Any], split: str) -> dict[str, list[Any]]:
        from finetune.examples import documents_of

        found: dict[str, list[Any]] = {}
        for name, task in tasks.items():
            documents = self._try("tasks", lambda name=name, task=task: documents_of({name: task}, split))
            if documents:
                found.update(documents)
        if tasks:
            rows = sum(map(len, found.values()))
            self.found.facts.append(f"{split}: {rows:,} rows of {len(found)} of {len(tasks)} tasks")
        return found

    # ---- model ---------------------------------------------------------------------------------------------------

    def _processor(self) -> Any:
        from harness_ext.backends.hf_load import load_processor

        return load_processor(self.config.model, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"revision": self.config.revision, "trust_remote_code": self.config.trust_remote_code}

    def _model(self) -> None:
        """LoRA targets against the layers of the model, built without weights."""
        from finetune.model import lora_layers
        from harness_ext.backends.hf_load import empty_model

        model = self._try("model", lambda: empty_model(self.config.model, **self._how()))
        if model is None or self.config.adapter == "none":
            return
        layers = self._try("lora.targets", lambda: lora_layers(model, self.config))
        if layers is not None:
            self.found.facts.append(f"LoRA: rank {self.config.lora.rank} at {len(layers)} layers")

    # ---- batches -------------------------------------------------------------------------------------------------

    def _batch(self, tasks: dict[str, Any]) -> None:
        """Whether processes can share batches, and DeepSpeed's own file splits them as the config does."""
        from finetune.launch.deepspeed import deepspeed_settings, zero_stage
        from finetune.preflight import refuse_uneven_processes

        name, processes = self.config.deepspeed, Ranks.of_environment().count
        settings = self._try("deepspeed", lambda: deepspeed_settings(name)) if name else None
        self._try("tasks", lambda: refuse_uneven_processes(self.config, tasks, zero_stage(settings), processes))
        if name in DEEPSPEED:
            return
        for what, hint in batch_faults(settings or {}, self.config, processes):
            self._fault("deepspeed", what, hint)

    # ---- examples ------------------------------------------------------------------------------------------------

    def _examples(self, processor: Any, tasks: dict[str, Any], train: dict[str, list[Any]]) -> None:
        from finetune.examples import examples_of
        from finetune.preflight import refuse_clips
        from harness_ext.backends.hf import context_length
        from harness_ext.backends.hf_load import load_config

        asker = Asker(processor, self._try("model", lambda: load_config(self.config.model, **self._how())), self.config)
        refused = len(self.found.faults)
        self._try("modality", lambda: refuse_clips(self.config.model, asker.MULTIMODAL, tasks))
        if len(self.found.faults) > refused:
            return
        shows_clips = any(task.has_video for task in tasks.values())
        limit = self.config.max_length or (asker.config and context_length(asker))
        examples = [one for name in train for one in examples_of(asker, tasks[name], train[name])]
        lengths = asker.text_lengths([one.request for one in examples])
        longest = max(range(len(examples)), key=lambda n: lengths[n])
        row = self._try("on_bad_clip", lambda: asker.row(examples[longest], limit=None))
        if row is None:
            return
        self.found.facts.append(
            f"longest text: {examples[longest].name}, {row.length:,} tokens, clip and answer included"
        )
        if limit is not None and row.length > limit:
            where = "frames" if shows_clips else "max_length"
            self._fault(
                where,
                f"{examples[longest].name} has {row.length:,} tokens, more than the {limit:,} of the context",
                "fewer frames or pixels" if shows_clips else "a larger max_length, or leave it out",
            )
        self.found.shown = rendered(row, asker.tokenizer)

    # ---- faults --------------------------------------------------------------------------------------------------

    def _try(self, key: str, act: Any) -> Any:
        try:
            return act()
        except MmlaError as error:
            told = [(name, error.details[name]) for name in ("hint", "why", "next") if name in error.details]
            details = " ".join(f"{name}: {value}" for name, value in told)
            self._fault(key, error.what, details)
            return None

    def _fault(self, key: str, what: str, hint: str = "") -> None:
        line = self.text.lines.get(key) or self.text.lines.get(key.partition(".")[0])
        fault = Fault(f"line {line}" if line else key, what, hint)
        if fault not in self.found.faults:
            self.found.faults.append(fault)


class Asker:
    """Makes prompts and tensors as the backend does, of a processor alone: no weights are read."""

    def __init__(self, processor: Any, config: Any, settings: Config) -> None:
        from harness_ext.backends.hf_load import end_tokens
        from harness_ext.messages import clips_as, has_chat_template, tokenizer_of

        self.processor, self.config = processor, config
        self.tokenizer = tokenizer_of(processor)
        self.frame_policy = settings.frames.policy
        self.on_bad_clip = settings.on_bad_clip
        self.has_chat_template = has_chat_template(processor)
        self.MULTIMODAL = clips_as(processor) is not None
        self.end_tokens = end_tokens(None, self.tokenizer)

    def apply_chat_template(self, history: Any, add_generation_prompt: bool = True) -> str:
        """Render a chat as the final prompt."""
        from harness_ext.messages import render_chat

        return render_chat(self.processor, history, add_generation_prompt)

    def text_lengths(self, requests: Any) -> list[int]:
        """Tokens of each prompt without its clip."""
        from harness_ext.messages import token_counts

        return token_counts(self.processor, [one.prompt for one in requests], chat=self.has_chat_template)

    def prepared(self, question: Any) -> Any:
        """Tensors of one question."""
        from harness_ext.backends.hf_batch import Prepared
        from harness_ext.messages import model_inputs

        frames = None if question.frames is None else [question.frames]
        return Prepared(
            question,
            model_inputs(
                self.processor,
                [question.prompt],
                frames,
                chat=question.request.chat,
                max_pixels=self.frame_policy.max_pixels or None,
            ),
        )

    def row(self, example: Any, limit: int | None) -> Any:
        """An example as tensors.

        Raises:
            MmlaError: what is wrong with it.
        """
        from finetune.collator import Row, Rows

        row = Rows(self, [example], self.on_bad_clip, limit)[0]
        if not isinstance(row, Row):
            raise row
        return row


def batch_faults(settings: dict[str, Any], config: Config, processes: int) -> Iterator[tuple[str, str]]:
    """What a DeepSpeed file says of batches, against ours.

    Yields:
        What is wrong, what to do.
    """
    micro = settings.get("train_micro_batch_size_per_gpu", "auto")
    accumulation = settings.get("gradient_accumulation_steps", "auto")
    whole = settings.get("train_batch_size", "auto")
    ours = {"batch_size": config.batch_size, "gradient_accumulation": config.gradient_accumulation}
    for name, theirs in (("batch_size", micro), ("gradient_accumulation", accumulation)):
        if theirs not in ("auto", ours[name]):
            yield f"the file says {theirs} where `{name}` is {ours[name]}", 'write "auto" there'
    step = config.batch_size * config.gradient_accumulation * processes
    if whole not in ("auto", step):
        product = f"{config.batch_size} x {config.gradient_accumulation} x {processes} processes"
        yield f"train_batch_size {whole} cannot be split: a step has {product} = {step} rows", 'write "auto" there'


def rendered(row: Any, tokenizer: Any) -> str:
    """One example as the model reads it; what is learnt stands last, between brackets."""
    ids = row.inputs["input_ids"][0].tolist()
    answer = list(row.example.answer)
    prompt = squeezed(tokenizer.convert_ids_to_tokens(ids[: -len(answer)]), tokenizer)
    learnt = tokenizer.convert_ids_to_tokens(answer)
    pieces = ", ".join(json.dumps(tokenizer.decode([token])) for token in answer)
    return (
        f"{row.example.name}: {len(ids):,} tokens, {len(answer)} of them learnt\n"
        f"  not learnt   {prompt}\n"
        f"  learnt       {pieces}      labels -100 ({len(ids) - len(answer):,} times), {', '.join(map(str, answer))}"
        if learnt
        else ""
    )


def squeezed(tokens: list[str], tokenizer: Any) -> str:
    """Text of tokens; one that comes many times in a row, such as those of a clip, once with its count."""
    parts: list[tuple[str, int]] = []
    for token in tokens:
        if parts and parts[-1][0] == token:
            parts[-1] = (token, parts[-1][1] + 1)
        else:
            parts.append((token, 1))
    text, run = "", []
    for token, count in [*parts, ("", 0)]:
        if 0 < count <= 3:
            run += [token] * count
            continue
        text += tokenizer.convert_tokens_to_string(run) + (f"{token} x {count}" if count else "")
        run = []
    return json.dumps(text, ensure_ascii=False)
