"""Which LoRA adapter answers which task, as `peft=` says it: one for all tasks, or one for each.

    peft=adapters/intent                one adapter: the folder holds adapter_config.json
    peft=adapters                       one for each task, in folders named after tasks:
                                        adapters/mmla_intent_mintrec, adapters/mmla_emotion_meld, ...
    peft=adapters.json                  {"mmla_intent_mintrec": "runs/a/adapter", ...}, relative to the file

A task's text-only twin (`mmla_intent_mintrec_text`) takes the adapter of its own name, else that of the task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from harness_ext.catalogue import TEXT_SUFFIX
from mmla_tasks.errors import ModelError

CONFIG: Final = "adapter_config.json"
TRAINING: Final = "training.json"
"""Beside the weights: how `mmla finetune` made them."""
WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Adapter:
    """A folder that PEFT wrote, with what its config says."""

    path: Path
    config: Mapping[str, Any]

    @cached_property
    def digest(self) -> str | None:
        """Digest of config and weights."""
        from harness_ext.backends.hf_load import folder_digest

        return folder_digest(self.path)

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max([int(self.config["r"]), *(int(r) for r in (self.config.get("rank_pattern") or {}).values())])

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer of this adapter depends on. JSON-plain."""
        return {"path": str(self.path), "digest": self.digest}

    @property
    def trained_on(self) -> str | None:
        """The base, as the adapter's config names it."""
        return self.config.get("base_model_name_or_path")

    @property
    def beyond_lora(self) -> str | None:
        """What it is or does besides plain LoRA; None where it only adds products of two small matrices to layers."""
        if self.config["peft_type"] != "LORA":
            return f"of the kind {self.config['peft_type']}"
        more = [name for name in ("use_dora", "modules_to_save") if self.config.get(name)]
        return f"changes whole layers ({', '.join(more)})" if more else None

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Layer name in the base model -> (outputs, inputs) of its weight, as far as the weights tell."""
        from safetensors import safe_open

        file = self.path / WEIGHTS[0]
        if not file.is_file():
            return {}
        sides: dict[str, dict[str, int]] = {}
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():
                layer, side, _ = name.removeprefix("base_model.model.").rpartition(".lora_")
                if side:
                    shape = tensors.get_slice(name).get_shape()
                    a_side = name.endswith("lora_A.weight")
                    sides.setdefault(layer, {})["in" if a_side else "out"] = shape[1] if a_side else shape[0]
        return {layer: (side["out"], side["in"]) for layer, side in sides.items() if side.keys() == {"in", "out"}}


@dataclass(frozen=True)
class Adapters:
    """The adapters of a run."""

    source: str
    """What `peft` said."""
    of_tasks: Mapping[str, Adapter]
    """Task name -> adapter; the empty name is for every task."""

    @classmethod
    def read(cls, peft: str) -> Adapters:
        """Read the configs of all adapters that `peft` names.

        Raises:
            ModelError: Something is not there or cannot be read; all faults at once.
        """
        read = {task: _read(folder) for task, folder in _folders(_local(peft)).items()}
        faults = {task or "peft": fault for task, fault in read.items() if isinstance(fault, str)}
        if faults:
            raise ModelError(f"peft={peft}: {len(faults)} of {len(read)} adapters cannot be used", faults)
        return cls(peft, {task: adapter for task, adapter in read.items() if isinstance(adapter, Adapter)})

    @property
    def all(self) -> list[Adapter]:
        """Each adapter once."""
        return list({adapter.path: adapter for adapter in self.of_tasks.values()}.values())

    @property
    def identity(self) -> dict[str, Any]:
        """That of the one adapter, or of each task's. JSON-plain."""
        return self.all[0].identity if "" in self.of_tasks else {t: a.identity for t, a in self.of_tasks.items()}

    @property
    def max_rank(self) -> int:
        """The largest rank of all."""
        return max(adapter.rank for adapter in self.all)

    def of(self, task: str) -> Adapter | None:
        """The adapter that answers a task; None where there is none."""
        names = (task, task.removesuffix(TEXT_SUFFIX), "")
        return next((self.of_tasks[name] for name in names if name in self.of_tasks), None)

    def check_plain_lora(self) -> None:
        """Make sure that every adapter is of the kind that engines take.

        Raises:
            ModelError: Some are not; it lists them.
        """
        others = {str(adapter.path): adapter.beyond_lora for adapter in self.all if adapter.beyond_lora}
        if others:
            raise ModelError(
                f"peft={self.source}: {len(others)} of {len(self.all)} adapters are no plain LoRA",
                others,
                next="ask mmla-hf, or merge the adapter into its base",
            )

    def check(self, tasks: Iterable[str]) -> None:
        """Make sure that every task has its adapter.

        Raises:
            ModelError: Some have none; it lists them.
        """
        without = [task for task in tasks if self.of(task) is None]
        if without:
            raise ModelError(
                f"peft={self.source} has no adapter for {len(without)} of the tasks",
                without="\n".join(without),
                there="\n".join(sorted(self.of_tasks)),
                next="add their folders, or leave these tasks out of --tasks",
            )


def misfits(adapter: Adapter, base: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Layers of an adapter whose size is not that of the base model's layer of the same name.

    Args:
        adapter: The adapter.
        base: Layer name -> shape of its weight.
    """
    for layer, shape in adapter.shapes().items():
        if layer in base and base[layer] != shape:
            here, there = (" x ".join(map(str, sizes)) for sizes in (shape, base[layer]))
            yield f"{layer}: {here} in the adapter, {there} in the model"


def refuse_other_shapes(adapters: Adapters, base: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the sizes of layers: engines put a smaller adapter into a larger model without a word.

    Args:
        adapters: Those of a run.
        base: Layer name -> shape of its weight.

    Raises:
        ModelError: Some do not fit; it lists them with the first layer of each.
    """
    faults = {str(a.path): wrong[0] for a in adapters.all if (wrong := list(misfits(a, base)))}
    if faults:
        raise ModelError(
            f"{len(faults)} of {len(adapters.all)} adapters belong to another base than the model",
            faults,
            trained_on=", ".join(sorted({str(adapter.trained_on) for adapter in adapters.all})),
            next="pass pretrained= the base that they were trained on",
        )


def without_effect(adapter: Adapter) -> ModelError:
    """The error for an adapter with and without which a model says the same."""
    return ModelError(
        f"The adapter {adapter.path} changes nothing: first logits are the same with and without it",
        why="its tensors are zero, or their names fit no layer of this base model",
        base=adapter.trained_on,
        next="pass pretrained= the base that it was trained on, or train it further",
    )


def _local(peft: str) -> Path:
    """The folder or file that is meant; what is on the Hub is fetched."""
    path = Path(peft).expanduser()
    if path.exists() or peft.count("/") != 1 or peft.startswith((".", "~", "/")):
        return path
    from huggingface_hub import snapshot_download

    names = (CONFIG, *WEIGHTS, TRAINING)
    try:
        return Path(snapshot_download(peft, allow_patterns=[f"*{name}" for name in names]))
    except (OSError, ValueError) as error:  # the Hub's own errors are of these kinds
        why = str(error).strip().splitlines()
        raise ModelError(
            f"peft={peft} is neither a folder nor an adapter that the Hub gives", why=why[0] if why else None
        ) from error


def _folders(peft: Path) -> dict[str, Path]:
    """Task name, or the empty name for all tasks -> folder of its adapter."""
    if peft.suffix == ".json" and peft.is_file():
        return {task: peft.parent / folder for task, folder in _mapping(peft).items()}
    if (peft / CONFIG).is_file() or not peft.is_dir():
        return {"": peft}
    folders = {folder.name: folder for folder in sorted(peft.iterdir()) if (folder / CONFIG).is_file()}
    return folders or {"": peft}


def _mapping(file: Path) -> dict[str, str]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"peft={file} is no JSON", why=error) from None
    if not isinstance(value, dict) or not all(isinstance(folder, str) for folder in value.values()):
        raise ModelError(
            f"peft={file} is no mapping of tasks to folders", next='{"mmla_intent_mintrec": "FOLDER", ...}'
        )
    return value


def _read(folder: Path) -> Adapter | str:
    """One adapter, or what is wrong with it."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if not (folder / CONFIG).is_file():
        return f"{folder} holds neither {CONFIG} nor folders of adapters named after tasks"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{folder / CONFIG} is no JSON: {error}"
    if not isinstance(config, dict) or "peft_type" not in config:
        return f"{folder / CONFIG} does not say what kind of adapter it is (peft_type)"
    if not any((folder / name).is_file() for name in WEIGHTS):
        return f"{folder} holds no {WEIGHTS[0]}"
    return Adapter(folder, config)
