"""Two LoRA adapters over one loaded base, each answering its own task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness_ext.adapters import Adapters
from mmla_tasks.errors import ModelError
from tests.integration.asking import request_of

from .comparing import SETTINGS, answers, assert_scores_near
from .conftest import ENGINE, TASKS, write_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

ROWS = 3


@pytest.fixture(scope="module")
def adapted(smollm2: Path, adapters: Path) -> Iterator[Any]:
    """SmolLM2 with two adapters."""
    from harness_ext.backends.vllm import VLLMLabelLM

    mapping = adapters / "adapters.json"
    mapping.write_text(json.dumps({task: task for task in TASKS}))
    lm = VLLMLabelLM(str(smollm2), peft=str(mapping), **ENGINE)
    yield lm
    lm.close()


def test_each_task_is_answered_by_its_own_adapter(
    adapted: Any, hf_texts: Any, smollm2: Path, adapters: Path, real_texts: Callable[[str, int], list[str]]
) -> None:
    from harness_ext.backends.hf import HFLabelLM

    texts = enumerate(real_texts("MELD", ROWS))
    plain = [replace(request_of(hf_texts, "MELD", text, number), gen_kwargs=SETTINGS) for number, text in texts]
    asked = {task: [replace(request, task=task) for request in plain] for task in TASKS}
    alone = {task: HFLabelLM(str(smollm2), dtype="float32", peft=str(adapters / task)) for task in TASKS}
    mixed = [request for one_of_each in zip(*asked.values(), strict=True) for request in one_of_each]
    for mode in ("generate", "rank"):
        ours = answers(adapted, mixed, mode)
        by_task = {task: ours[n :: len(asked)] for n, task in enumerate(asked)}
        theirs = {task: answers(alone[task], asked[task], mode) for task in asked}
        if mode == "rank":
            for task in asked:
                assert_scores_near(by_task[task], theirs[task])
        else:
            assert {n: [*map(str, a)] for n, a in by_task.items()} == {n: [*map(str, a)] for n, a in theirs.items()}
            base = answers(hf_texts, plain, mode)
            assert len({tuple(map(str, found)) for found in (*by_task.values(), base)}) == len(asked) + 1


def test_a_task_without_adapter_is_not_answered_by_the_base(adapted: Any) -> None:
    with pytest.raises(ModelError, match="has no adapter for 1 of the tasks"):
        answers(adapted, [request_of(adapted, "MELD", "Hi.")], "generate")


def test_a_journal_key_holds_the_adapter_of_its_own_task(adapted: Any) -> None:
    digests = [adapted.task_identity(task)["peft"]["digest"] for task in (*TASKS, TASKS[0] + "_text")]
    assert digests[0] == digests[2] != digests[1]
    assert "peft" not in adapted.identity() and adapted.task_identity("mmla_sentiment_mosi") == {}


def test_an_adapter_of_another_base(smollm2: Path, adapters: Path) -> None:
    from harness_ext.backends.vllm import VLLMLabelLM

    config = json.loads((smollm2 / "config.json").read_text())
    other = adapters.parent / "other"
    if not other.is_dir():
        shutil.copytree(smollm2, other, ignore=shutil.ignore_patterns("*.safetensors"))
        (other / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 9}))
    with pytest.raises(ModelError, match="belong to another base") as fault:
        VLLMLabelLM(str(other), peft=str(adapters), **ENGINE)
    assert "v_proj: 192 x 576 in the adapter, 576 x 576 in the model" in str(fault.value)
    assert str(smollm2) in str(fault.value)


def test_an_adapter_that_changes_nothing_or_fits_no_layer(
    adapted: Any, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted._in_flight.call(adapted._try_adapters)
    zero = write_adapter(smollm2, tmp_path / "zero", zero=True)
    odd = tmp_path / "odd"
    shutil.copytree(adapted.adapters.of(TASKS[0]).path, odd)
    rename_layers(odd / "adapter_model.safetensors")
    for number, folder in enumerate((zero, odd), start=90):
        monkeypatch.setattr(adapted, "adapters", Adapters.read(str(folder)))
        monkeypatch.setitem(adapted.__dict__, "_loras", loras_of(adapted, number))
        with pytest.raises(ModelError, match=f"{folder} changes nothing"):
            adapted._in_flight.call(adapted._try_adapters)


def loras_of(lm: Any, number: int) -> dict[Any, Any]:
    """The request of the one adapter, under a number that the engine has not seen."""
    from vllm.lora.request import LoRARequest

    (adapter,) = lm.adapters.all
    return {adapter.path: LoRARequest(adapter.path.name, number, str(adapter.path))}


def rename_layers(weights: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name.replace("self_attn", "attention"): value for name, value in load_file(weights).items()}, weights)


def test_a_task_without_its_adapter_is_named_before_the_engine_starts(
    smollm2: Path, adapters: Path, mmla: Callable[..., Any]
) -> None:
    ran = mmla(
        "run", "--model", "mmla-vllm", "--model_args", f"pretrained={smollm2},peft={adapters},enforce_eager=True",
        "--tasks", "mmla_intent_text,mmla_emotion_text", "--data_dir", "sample", "--limit", 1,
    )  # fmt: skip
    assert ran.status == 2
    assert "has no adapter for 2 of the tasks" in ran.err
    assert "mmla_intent_mintrec2_text" in ran.err and "mmla_emotion_iemocap_text" in ran.err
