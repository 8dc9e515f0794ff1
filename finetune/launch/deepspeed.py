"""DeepSpeed's configurations by name; what they leave open, `Trainer` fills in from ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.config import DEEPSPEED
from mmla_tasks.errors import MissingExtraError, UsageError

FROM_TRAINER = {
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
"""What `Trainer` knows."""


def deepspeed_settings(name: str) -> dict[str, Any]:
    """A configuration for `Trainer`: one of `DEEPSPEED`, or a JSON file.

    Raises:
        UsageError: the file is no JSON object.
        MissingExtraError: deepspeed is not installed.
    """
    from importlib.util import find_spec

    if find_spec("deepspeed") is None:
        raise MissingExtraError("deepspeed", extra="finetune", purpose=f"deepspeed: {name}")
    return {**FROM_TRAINER, **_zero(name)} if name in DEEPSPEED else _from_file(Path(name))


def _zero(name: str) -> dict[str, Any]:
    stage, _, offload = name.partition("-")
    cpu = {"device": "cpu", "pin_memory": False}
    zero: dict[str, Any] = {"stage": int(stage[-1]), "overlap_comm": False, "contiguous_gradients": True}
    if stage == "zero3":
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload:
        zero["offload_optimizer"] = cpu
        if stage == "zero3":
            zero["offload_param"] = cpu
    return {"zero_optimization": zero, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise UsageError(f"the DeepSpeed configuration {path} cannot be read", why=error) from None
    return settings


def zero_stage(settings: dict[str, Any] | None) -> int:
    """How far weights are spread: 3 means that every forward pass gathers them. 0 without DeepSpeed."""
    return int(((settings or {}).get("zero_optimization") or {}).get("stage", 0))
