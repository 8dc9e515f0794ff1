"""A tiny video model that learns: Qwen2-VL's architecture with random weights and a vocabulary of the tasks' own words.

SmolLM2's vocabulary would be nine tenths of its work. Weights start four times as large as usual: with so few layers
the picture then reaches the answer from the first step on, and five passes over the data do what fifteen did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness_ext.catalogue import Catalogue, packaged_labels
from harness_ext.prompts import PROMPT, PROMPT_TEXT, answer_form, render
from mmla_tasks.sample.rows import dataset_rows
from tests.integration.tiny_models import FAMILIES, SEED, save

VOCABULARY = 1024
SPREAD = 0.08
"""Standard deviation of the weights at the start."""


def tiny_learner(folder: Path, seed: int = SEED) -> Path:
    """Write the model, 0.7 million parameters, and give its folder."""
    words = folder / "words"
    _small_tokenizer().save_pretrained(words)
    family = FAMILIES["Qwen2-VL"]
    save(replace(family, arguments=_spread(family.arguments)), folder, words, seed)
    return folder


def _spread(arguments: Callable[[Callable[[str], int]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def wider(ids: Callable[[str], int]) -> dict[str, Any]:
        given = arguments(ids)
        parts = {name: {**given[name], "initializer_range": SPREAD} for name in ("text_config", "vision_config")}
        return {**given, **parts}

    return wider


def _small_tokenizer() -> Any:
    """Byte-level BPE, as Qwen's, trained on the prompts and answers of the sample's train splits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytes_first = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    how = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=bytes_first)
    tokenizer.train_from_iterator(_texts(), how)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )


def _texts() -> Iterator[str]:
    labels = packaged_labels()
    dimensions = {f.config["dataset"]: f.config["dimension"] for f in Catalogue.load().files.values() if not f.is_group}
    for dataset, names in labels.items():
        values = {"dimension": dimensions[dataset], "labels": names}
        for row in dataset_rows(dataset, names)["train"]:
            yield render(PROMPT, {**values, "text": row.text})
            yield answer_form(dimensions[dataset], row.label)
        yield render(PROMPT_TEXT, {**values, "text": ""})
