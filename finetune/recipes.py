"""The published hyperparameters of every model and dataset of the benchmark, as configs ready to run.

The facts stand in `data/recipes.yaml`. A recipe carries the released values, says in comments which of them were left
to a framework's default, which were released otherwise and mended, and what is done otherwise here.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from harness_ext.catalogue import TEXT_SUFFIX, Catalogue
from mmla_tasks.errors import UsageError, suggest
from mmla_tasks.published import Method, published
from mmla_tasks.sources import SOURCES

Tuning = Literal["sft", "it"]
"""One adapter for one dataset, or one for all twelve."""

TUNINGS: Mapping[Tuning, str] = {"sft": "SFT, one adapter for one dataset", "it": "IT, one adapter for all twelve"}
KEYS_OF_TRAINING = (
    "learning_rate",
    "epochs",
    "batch_size",
    "gradient_accumulation",
    "warmup_ratio",
    "scheduler",
    "weight_decay",
    "max_grad_norm",
    "max_length",
    "dtype",
    "gradient_checkpointing",
    "deepspeed",
    "lora.rank",
    "lora.alpha",
    "lora.dropout",
    "lora.targets",
    "selection.every",
    "save_every",
    "keep_checkpoints",
)
"""In the order in which a recipe states them."""
WIDTH = 110
"""Columns of a comment."""


@dataclass(frozen=True)
class Mend:
    """A released value that was changed, and why."""

    released: float | str
    why: str


@dataclass(frozen=True)
class Recipe:
    """One config with where each of its values comes from."""

    name: str
    """Of the model, as `--model` takes it."""
    tuning: Tuning
    dataset: str | None
    """Folder of the dataset; None for IT."""
    model: Mapping[str, Any]
    family: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """Hyperparameters by the keys of a config, dots for nested keys; mended."""
        values = dict(self.family["values"])
        values |= self.family.get(self.tuning, {}) | self.model.get(self.tuning, {})
        if self.dataset is not None:
            values |= self.model.get("datasets", {}).get(self.dataset, {})
        return values

    @property
    def mends(self) -> dict[str, Mend]:
        """The keys whose released value was changed."""
        mended = self.family.get("mended", {}) | self.model.get("mended", {}).get(self.dataset, {})
        return {key: Mend(**mend) for key, mend in mended.items()}

    @property
    def tasks(self) -> list[str]:
        """The tasks that it trains on."""
        suffix = TEXT_SUFFIX if self.family["modality"] == "text" else ""
        return ["mmla" + suffix] if self.dataset is None else [_task_of(self.dataset) + suffix]

    def text(self) -> str:
        """The config as commented YAML."""
        return "\n".join([*self._head(), "", *self._body(), ""])

    def _head(self) -> Iterator[str]:
        script = self.model.get("scripts", self.family.get("scripts", {}))[self.tuning]
        on = "all twelve datasets" if self.dataset is None else self.dataset
        yield f"# {self.model['system']} on {on}: {TUNINGS[self.tuning]}."
        yield from _comment(
            f"Values: {_facts()['source']}/{script} ({self.family['framework']}). Whether exactly these made the "
            f"published numbers cannot be told from the repository. {self._published()}"
        )
        yield "#"
        for note in [
            *self.family["notes"],
            *self.model.get("notes", ()),
            *(self.model.get("notes_of_it", ()) if self.tuning == "it" else ()),
        ]:
            yield from _comment(note, bullet=True)
        yield from _comment(
            "The loss counts the answer's tokens only; prompts, labels, clips and frames are those of the evaluation.",
            bullet=True,
        )
        yield from _comment(self._unstated(), bullet=True)
        yield "#"
        yield "# mmla finetune check FILE lists what does not fit; mmla finetune run FILE trains; keys are flags too."

    def _published(self) -> str:
        """What the paper reports for this model, where it does."""
        methods: list[tuple[Method, str]] = [("zero_shot", "zero-shot"), (self.tuning, f"after {self.tuning.upper()}")]
        if self.dataset is None:
            return ""
        scores = {how: published(method).get(self.model["system"], {}) for method, how in methods}
        shown = [f"{row[self.dataset]:.1f} % {how}" for how, row in scores.items() if row]
        return f"Published accuracy on test: {', '.join(shown)}." if shown else ""

    def _unstated(self) -> str:
        keys = [key for key in KEYS_OF_TRAINING if key not in self.values]
        return f"Not stated in the source, so that our defaults hold: {', '.join(keys)}, seed."

    def _body(self) -> Iterator[str]:
        if "loads" in self.model:
            yield from _comment(self.model["loads"])
        yield f"model: {self.model['model']}"
        yield f"tasks: [{', '.join(self.tasks)}]"
        yield f"modality: {self.family['modality']}"
        yield f"output_dir: runs/{self.name}-{self.tuning if self.dataset is None else _plain(self.dataset)}"
        yield "adapter: lora"
        if "frames" in self.family:
            yield "frames:"
            yield from (f"  {key}: {value}" for key, value in self.family["frames"].items())
        section = ""
        for key in KEYS_OF_TRAINING:
            if key not in self.values:
                continue
            outer, _, inner = key.rpartition(".")
            if outer != section and outer:
                yield f"{outer}:"
            section = outer
            yield from self._line(key, inner, "  " if outer else "")
        if self.dataset is None:
            yield "mixture:"
            yield "  weights: size  # all train splits in one file, shuffled, as released"

    def _line(self, key: str, name: str, indent: str) -> Iterator[str]:
        line = f"{indent}{name}: {_plain_yaml(self.values[key])}"
        mend = self.mends.get(key)
        if mend is not None:
            yield from _comment(f"mended: released as {_plain_yaml(mend.released)}; {mend.why}", indent=indent)
        elif key in self.family["unset"]:
            line += f"  # not set in the script: default of {self.family['framework']}"
        yield line


def recipe(model: str, dataset: str | None) -> Recipe:
    """The recipe of a model for a dataset, or with None for all twelve.

    Raises:
        UsageError: Nothing was released for it; names that are near are suggested.
    """
    name, facts = _model(model)
    family = _facts()["families"][facts["family"]]
    if dataset is None:
        if "it" not in facts and "it" not in family:
            raise UsageError(
                f"no instruction tuning was released for {facts['system']}",
                released_for=", ".join(models_with_it()),
                next=f"mmla finetune recipe --model {name} --dataset mintrec",
            )
        return Recipe(name, "it", None, facts, family)
    return Recipe(name, "sft", _dataset(dataset), facts, family)


def recipes() -> Iterator[Recipe]:
    """Every recipe: each model on each dataset, and on all twelve where that was released."""
    for name in models():
        for dataset in SOURCES:
            yield recipe(name, dataset)
    for name in models_with_it():
        yield recipe(name, None)


def models() -> dict[str, Mapping[str, Any]]:
    """Name -> what is known about the model."""
    found: dict[str, Mapping[str, Any]] = _facts()["models"]
    return found


def models_with_it() -> list[str]:
    """Models for which instruction tuning was released."""
    families = _facts()["families"]
    return [name for name, facts in models().items() if "it" in facts or "it" in families[facts["family"]]]


def _model(name: str) -> tuple[str, Mapping[str, Any]]:
    known = models()
    names = {_plain(key): key for key in known}
    if _plain(name) not in names:
        raise UsageError(
            f"no recipe for the model {name}", hint=suggest(name.lower(), known), models=", ".join(known), next=_LIST
        )
    key = names[_plain(name)]
    return key, known[key]


def _dataset(name: str) -> str:
    names = {_plain(folder): folder for folder in SOURCES}
    if _plain(name) not in names:
        near = suggest(name.lower(), {folder.lower(): folder for folder in SOURCES})
        raise UsageError(f"no recipe for the dataset {name}", hint=near, datasets=", ".join(SOURCES), next=_LIST)
    return names[_plain(name)]


_LIST = "mmla finetune recipe --list      names every model and dataset"


def _plain(name: str) -> str:
    """A name without regard to case and signs: ``CH-SIMSv2.0`` and ``chsims-v2.0`` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _task_of(dataset: str) -> str:
    catalogue = Catalogue.load()
    return next(leaf for leaf in catalogue.leaves("mmla") if catalogue.files[leaf].config["dataset"] == dataset)


def _plain_yaml(value: Any) -> str:
    """A value as one would write it; YAML takes ``1e-4`` for a text and ``1.0e-4`` for a number."""
    if isinstance(value, float) and 0 < abs(value) < 1e-2:
        return f"{value:.1e}".replace("e-0", "e-")
    return str(yaml.safe_dump(value)).removesuffix("...\n").strip()


def _comment(text: str, *, bullet: bool = False, indent: str = "") -> list[str]:
    first = f"{indent}# - " if bullet else f"{indent}# "
    later = f"{indent}#   " if bullet else first
    return textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


@lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    text = resources.files("finetune").joinpath("data", "recipes.yaml").read_text(encoding="utf-8")
    facts: dict[str, Any] = yaml.safe_load(text)
    return facts
