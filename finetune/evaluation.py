"""After training: the selected model answers the test split, in the very way of `mmla run`, in a process of its own.

A process of its own has all memory that training held, its results are those that the same command line gives, and
its run folder goes on where it stopped. Of several processes of a training the first one starts it, with as many
processes of `mmla-hf` as this machine trained with; the others end.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from finetune.config import Config
from harness_ext.ranks import Ranks
from mmla_tasks.errors import ModelError

FOLDER: Final = "evaluation"
"""Run folder inside the output folder."""
ENDED: Final = "the evaluation "
"""How the error begins that tells of the evaluation's end; its cause stands above."""
INTERRUPTED: Final = 130
"""Exit status of `mmla` after Ctrl-C."""
LAUNCHERS: Final = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_", "ACCELERATE_", "CROSS_SIZE", "CROSS_RANK",
)  # fmt: skip
"""How names begin that a launcher sets for training; an evaluation that inherits them would wait for other ranks."""


def evaluate(config: Config, trained: Path, say: Callable[[str], None]) -> Path | None:
    """Evaluate on the test split what was trained.

    Args:
        config: Of the training, with ``evaluate``.
        trained: Folder of the adapter, or of the model where its own weights were trained.
        say: Told what is about to be run.

    Returns:
        The run folder; None on a process that is not the first.

    Raises:
        ModelError: The evaluation failed; its own message stands above.
        KeyboardInterrupt: It was interrupted.
    """
    if not Ranks.of_environment().is_first:
        return None
    release_memory()
    arguments = run_arguments(config, trained)
    say(f"test split: mmla {shlex.join(arguments)}")
    status = subprocess.call([*launcher(config), *arguments], env=without_launcher(os.environ))
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise ModelError(
            f"{ENDED}ended with status {status}; training is done"
            if status > 0
            else f"{ENDED}was ended by signal {-status}; training is done",
            trained=trained,
            next="the same command goes on with the evaluation",
        )
    return config.output_dir / FOLDER


def run_arguments(config: Config, trained: Path) -> list[str]:
    """The words of `mmla run` for what was trained."""
    words: dict[str, Any] = {
        "--model": config.evaluate.model,
        "--model_args": json.dumps(model_arguments(config, trained)),
        "--data_dir": config.data_dir,
        "--data_revision": config.data_revision,
        "--modality": config.modality,
        "--on_bad_clip": config.on_bad_clip,
        "--run_dir": config.output_dir / FOLDER,
    }
    given = [word for flag, value in words.items() if value is not None for word in (flag, str(value))]
    include = [word for path in config.include_path for word in ("--include_path", str(path))]
    trust = ["--trust_remote_code"] if config.trust_remote_code else []
    return ["run", *given, *include, *trust, "--tasks", *config.tasks]


def model_arguments(config: Config, trained: Path) -> dict[str, Any]:
    """Model, adapter and frames as in training; what ``evaluate.model_args`` says goes before."""
    if config.adapter == "lora":
        what = {"pretrained": config.model, "revision": config.revision, "peft": str(trained)}
    else:
        what = {"pretrained": str(trained)}
    known = {**what, **config.frames.given}
    return {**{name: value for name, value in known.items() if value is not None}, **config.evaluate.model_args}


def launcher(config: Config) -> list[str]:
    """How the evaluation is started: `mmla-hf` as often as this machine trained, `mmla-vllm` once."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if Ranks.of_environment().count > 1 else 1
    if here == 1 or config.evaluate.model != "mmla-hf":
        return [sys.executable, "-m", "harness_ext.cli"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={here}", "-m",
            "harness_ext.cli"]  # fmt: skip


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as if nothing had been launched.

    >>> without_launcher({"RANK": "0", "TORCHELASTIC_RUN_ID": "7", "PATH": "/bin"})
    {'PATH': '/bin'}
    """
    return {name: value for name, value in environment.items() if not name.startswith(LAUNCHERS)}


def release_memory() -> None:
    """Give back what training left in the caches of this process."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
