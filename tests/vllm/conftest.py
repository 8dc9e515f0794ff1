"""The real engine on the CPU, beside transformers in the same environment. Run by `make test-vllm`.

An engine takes most of a minute to start: one for texts, one for clips and one with two adapters serve all tests that
only ask. Nothing here skips for want of vLLM: whoever asks for these tests wants them run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import drawn_clip, labels_of, real_texts, smollm2, tiny_qwen2_vl  # noqa: F401

# Read when torch is loaded: threads that spin while they wait keep the cores from the engine, which is another process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ENGINE = {"dtype": "float32", "enforce_eager": True, "max_length": 2048, "max_num_seqs": 16}
"""What keeps an engine small and exact."""
TASKS = ("mmla_intent_mintrec", "mmla_emotion_meld")
"""Those that have an adapter."""


@pytest.fixture(scope="session", autouse=True)
def small_engines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("VLLM_LOGGING_LEVEL", raising=False)
        yield


@pytest.fixture(scope="session")
def adapters(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Two random adapters of unequal rank, in folders named after their tasks."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, task in enumerate(TASKS):
        write_adapter(smollm2, folder / task, seed=seed, rank=4 + 8 * seed)
    return folder


def write_adapter(base: Path, folder: Path, *, seed: int = 0, rank: int = 4, zero: bool = False) -> Path:
    """A LoRA adapter of the attention layers that visibly changes answers, or one that changes nothing."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], init_lora_weights=zero, task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts(smollm2: Path) -> Iterator[Any]:  # noqa: F811
    """SmolLM2 in vLLM."""
    from harness_ext.backends.vllm import VLLMLabelLM

    lm = VLLMLabelLM(str(smollm2), **ENGINE)
    yield lm
    lm.close()


@pytest.fixture(scope="session")
def clips(tiny_qwen2_vl: Path) -> Iterator[Any]:  # noqa: F811
    """A tiny Qwen2-VL in vLLM."""
    from harness_ext.backends.vllm import VLLMLabelLM

    lm = VLLMLabelLM(str(tiny_qwen2_vl), num_frames=4, **ENGINE)
    yield lm
    lm.close()


@pytest.fixture(scope="session")
def hf_texts(smollm2: Path) -> Any:  # noqa: F811
    from harness_ext.backends.hf import HFLabelLM

    return HFLabelLM(str(smollm2), dtype="float32")


@pytest.fixture(scope="session")
def hf_clips(tiny_qwen2_vl: Path) -> Any:  # noqa: F811
    from harness_ext.backends.hf import HFLabelLM

    return HFLabelLM(str(tiny_qwen2_vl), dtype="float32", num_frames=4)


def engine_processes(parent: int | None = None) -> list[int]:
    """Processes that descend from `parent` (this one, unless said otherwise), without zombies and Python's own helper."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if int(ppid) == (parent or os.getpid()) and state != "Z" and "resource_tracker" not in command:
                found += [int(entry.name), *engine_processes(int(entry.name))]
    return found
