"""Adapters in the layers of one loaded model; one at a time is in force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness_ext.adapters import Adapter, Adapters, refuse_other_shapes, without_effect
from mmla_tasks.errors import ModelError

PROBE: Final = "intent: joke"
"""The text whose logits an adapter must change."""


class AdaptedModel:
    """A model with its adapters loaded. A single adapter is in force at once, of several none until `use` says which.

    Args:
        model: The base. Its layers are changed; it keeps its class and its interface.
        tokenizer: Its tokenizer.
        adapters: What to load.

    Raises:
        ModelError: An adapter belongs to another base, adds prompt tokens, or changes nothing.
    """

    def __init__(self, model: Any, tokenizer: Any, adapters: Adapters) -> None:
        refuse_other_shapes(adapters, linear_shapes(model))
        self._names = {adapter.path: f"adapter_{n}" for n, adapter in enumerate(adapters.all)}
        self._adapted = _adapted(model, adapters, self._names)
        self._in_force: Path | None = None
        self._refuse_idle(adapters, tokenizer)
        self.use(adapters.all[0] if len(adapters.all) == 1 else None)

    def use(self, adapter: Adapter | None) -> None:
        """Put one adapter into force; None leaves the base as it is."""
        if adapter is None:
            self._adapted.base_model.disable_adapter_layers()
            self._in_force = None
        elif adapter.path != self._in_force:
            self._adapted.base_model.enable_adapter_layers()
            self._adapted.set_adapter(self._names[adapter.path], inference_mode=True)
            self._in_force = adapter.path

    def merged(self) -> Any:
        """The base with the adapter in force in its own weights; nothing can be switched any more."""
        return self._adapted.merge_and_unload()

    def _refuse_idle(self, adapters: Adapters, tokenizer: Any) -> None:
        """Compare the logits of a few tokens with those of the base."""
        import torch

        ids = tokenizer(PROBE, return_tensors="pt", add_special_tokens=False).input_ids.to(self._adapted.device)

        def logits(adapter: Adapter | None) -> Any:
            self.use(adapter)
            with torch.inference_mode():
                return self._adapted(input_ids=ids).logits

        plain = logits(None)
        idle = [adapter for adapter in adapters.all if torch.equal(logits(adapter), plain)]
        if idle:
            raise without_effect(idle[0])


def linear_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Layer name -> (outputs, inputs), whatever form its weight is stored in."""
    import torch

    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear))
    return {name: (layer.out_features, layer.in_features) for name, layer in layers}


def _adapted(model: Any, adapters: Adapters, names: Mapping[Path, str]) -> Any:
    """Put all adapters into the model's layers, as PEFT's own model around it.

    Raises:
        ModelError: One is of a kind that adds prompt tokens, or its layers are not those of the model.
    """
    from peft import PeftConfig, PeftModel

    adapted = None
    for adapter in adapters.all:
        name = names[adapter.path]
        try:
            config = PeftConfig.from_pretrained(str(adapter.path))
            if config.is_prompt_learning:
                raise ModelError(
                    f"The adapter {adapter.path} adds prompt tokens",
                    next="adapters inside layers are read, such as LoRA",
                )
            config.inference_mode = True
            if adapted is None:
                adapted = PeftModel(model, config, name)
            else:
                adapted.add_adapter(name, config)
            found = adapted.load_adapter(
                str(adapter.path), name, key_mapping=getattr(model, "_checkpoint_conversion_mapping", {})
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise _not_loaded(adapter, error) from error
        _refuse_other_layers(adapter, found)
    assert adapted is not None  # a run without adapters has no AdaptedModel
    return adapted.eval()


def _refuse_other_layers(adapter: Adapter, found: Any) -> None:
    """Refuse an adapter that has weights for layers that are not there, or none for layers that it names.

    PEFT leaves such weights out with a warning, and the model answers as if a part of the training had not been.
    """
    for names, what in ((found.unexpected_keys, "weights that no layer takes"), (found.missing_keys, "no weights for")):
        if names:
            raise ModelError(
                f"The adapter {adapter.path} belongs to another base: it has {what} in {len(names)} places",
                first=names[0],
                trained_on=adapter.trained_on,
                next="pass pretrained= the base that it was trained on",
            )


def _not_loaded(adapter: Adapter, error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelError(
        f"The adapter {adapter.path} cannot be loaded",
        why=f"{type(error).__name__}: {lines[0] if lines else ''}",
        trained_on=adapter.trained_on,
        next="pass pretrained= the base that it was trained on",
    )
