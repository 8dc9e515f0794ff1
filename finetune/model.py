"""The model that learns: loaded as for evaluation, then an adapter or some of its own weights made trainable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from finetune.config import ALL_LINEAR, Config
from harness_ext.backends.hf import HFLabelLM
from harness_ext.backends.hf_load import Loaded, ModelSource, load
from mmla_tasks.errors import ModelError, suggest


def source_of(config: Config) -> ModelSource:
    """What to load."""
    return ModelSource(
        config.model,
        revision=config.revision,
        dtype=_loaded_dtype(config),
        attn_implementation=attention(config),
        trust_remote_code=config.trust_remote_code,
    )


def precision(config: Config) -> str:
    """``bfloat16`` or ``float32``: in which precision is computed."""
    if config.dtype != "auto":
        return config.dtype
    import torch

    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def _loaded_dtype(config: Config) -> str:
    """Weights that learn stay in float32: a step is often too small for bfloat16 to hold."""
    return precision(config) if config.adapter == "lora" else "float32"


def attention(config: Config) -> str:
    """The attention that is asked for; ``auto`` is FlashAttention-2 on a GPU where it is installed, else SDPA."""
    if config.attention != "auto":
        return config.attention
    return "sdpa" if why_no_flash_attention(config) else "flash_attention_2"


def why_no_flash_attention(config: Config) -> str | None:
    """What keeps FlashAttention-2 from being used; None where nothing does."""
    from importlib.util import find_spec

    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    if precision(config) == "float32":
        return "FlashAttention-2 takes no float32"
    return "flash-attn is not installed" if find_spec("flash_attn") is None else None


def loaded_model(config: Config) -> Loaded:
    """Load the model in the form in which it learns.

    Raises:
        ModelError: it cannot be loaded.
        MissingExtraError: a package is not installed.
    """
    return load(source_of(config))


def trainable(config: Config, loaded: Loaded) -> Any:
    """Make what shall learn trainable, and give what `Trainer` trains: the model, or a PEFT model around it.

    Raises:
        ModelError: targets that match no layer.
    """
    model = loaded.model
    if config.adapter == "none":
        _train_weights(model, config.trains_vision)
        return model
    from peft import LoraConfig, get_peft_model

    names = lora_layers(model, config)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=sorted({name.rpartition(".")[2] for name in names}),
            exclude_modules=_others_named_alike(model, names) or None,
            revision=config.revision,
        ),
    )


def _train_weights(model: Any, train_vision: bool) -> None:
    """Let the text model learn, and with `train_vision` everything else too."""
    model.requires_grad_(train_vision)
    decoder = _decoder(model)
    decoder.requires_grad_(True)
    head = model.get_output_embeddings()
    if head is not None:
        head.requires_grad_(True)


def _decoder(model: Any) -> Any:
    """The text model inside a model that sees; the whole of one that does not."""
    inner = model.get_decoder() if hasattr(model, "get_decoder") else None
    return model if inner is None else inner


def linear_layers(model: Any, train_vision: bool) -> list[str]:
    """Names of the linear layers that an adapter may have: no output layer, and no vision tower unless it learns."""
    import torch

    text = {id(module) for module in _decoder(model).modules()}
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and (train_vision or id(module) in text)
    ]


def lora_layers(model: Any, config: Config) -> list[str]:
    """Names of the layers that get an adapter.

    Raises:
        ModelError: a target matches no linear layer.
    """
    known = linear_layers(model, config.trains_vision)
    wanted = [config.lora.targets] if isinstance(config.lora.targets, str) else config.lora.targets
    if wanted == [ALL_LINEAR]:
        return known
    unmatched = [target for target in wanted if not _matching(known, [target])]
    if unmatched or not wanted:
        ends = sorted({name.rpartition(".")[2] for name in known})
        raise ModelError(
            f"LoRA targets match no layer: {', '.join(unmatched) or 'none is named'}",
            hint=suggest(unmatched[0], ends) if unmatched else None,
            layers=", ".join(ends),
            next=f"name some of these, or {ALL_LINEAR}",
        )
    return _matching(known, wanted)


def _matching(names: Iterable[str], targets: Sequence[str]) -> list[str]:
    return [name for name in names if any(name == target or name.endswith(f".{target}") for target in targets)]


def _others_named_alike(model: Any, chosen: Sequence[str]) -> list[str]:
    """Layers whose last name is that of a chosen one: PEFT takes last names, and is told which ones not to take."""
    ends = {name.rpartition(".")[2] for name in chosen}
    taken = set(chosen)
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends and name not in taken]


def described(config: Config, loaded: Loaded, learner: Any) -> str:
    """What learns and how, such as ``LoRA rank 16: 4.9M of 139.4M weights learn; float32; attention sdpa (no GPU)``."""
    sizes = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in learner.parameters()]
    learns, all_weights = sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
    what = f"LoRA rank {config.lora.rank}" if config.adapter == "lora" else "no adapter"
    used = getattr(loaded.model.config, "_attn_implementation", None) or attention(config)
    why = why_no_flash_attention(config) if config.attention == "auto" else None
    return (
        f"{what}: {learns / 1e6:,.1f}M of {all_weights / 1e6:,.1f}M weights learn; {precision(config)}; "
        f"attention {used}{f' ({why})' if why else ''}"
    )


def backend_of(config: Config, loaded: Loaded, forward: Any = None) -> HFLabelLM:
    """The backend that makes prompts and tensors, and ranks labels, with the model that learns."""
    options = {"answer": "rank", "on_bad_clip": config.on_bad_clip, "max_length": config.max_length}
    return HFLabelLM.of(loaded, forward, **options, **config.frames.given)
