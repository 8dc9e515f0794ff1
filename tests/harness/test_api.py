"""`mmla-api` against a server on loopback that fails in every way that servers do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.backends.api_server import asked_to_wait
from harness_ext.usage import usage_line
from mmla_tasks.errors import ModelError

from .loopback import RETRY_AFTER_SECONDS, Loopback, question_of, random_faults

TASK = "mmla_emotion_meld_text"
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust")
KEY = "sk-sentinel-7d3f0c"

Api = Callable[..., Any]


def drawn(body: Mapping[str, Any]) -> str:
    """An answer that depends on the question alone."""
    return f"emotion: {LABELS[hashlib.sha256(question_of(body).encode()).digest()[0] % 7]}"


@pytest.fixture
def rows(data_root: Callable[..., Path]) -> Callable[[int], Path]:
    """`rows(n)`: a data root of n MELD rows, each with a text of its own."""
    return lambda count: data_root(MELD=[(f"{n}_0", f"Sentence {n}.", LABELS[n % 7]) for n in range(count)])


@pytest.fixture
def api(mmla: Callable[..., Any], tmp_path: Path) -> Api:
    """`api(url, root, ...)`: `mmla run --model mmla-api` with the journal in one folder."""

    def call(url: str, root: Path | str, *flags: object, task: str = TASK, **args: Any) -> Any:
        given = ",".join(f"{name}={value}" for name, value in {"model": "m", "base_url": url, **args}.items())
        told = ("--model", "mmla-api", "--model_args", given, "--tasks", task, "--data_dir", root)
        return mmla("run", *told, "--run_dir", tmp_path / "run", *flags)

    return call


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def journaled(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "run" / "journal" / "answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sampled(tmp_path: Path, task: str = TASK) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "run" / "samples" / f"{task}.jsonl").read_text().splitlines()]


# ---- a server that fails -----------------------------------------------------------------------------------------


def test_three_in_ten_requests_fail_and_everything_is_answered_once(
    rows: Callable[[int], Path], api: Api, tmp_path: Path
) -> None:
    server = Loopback(random_faults(0.3, seed=4), drawn)
    began = time.monotonic()
    with server.serving() as url:
        ran = api(url, rows(320), timeout=4, num_concurrent=24)
    assert ran.status == 0, ran.err
    assert time.monotonic() - began < 90
    failed = [call for call in server.calls if call.fault]
    assert 80 < len(failed) and {call.fault for call in failed} >= {"429", "500", "503", "hang", "cut", "empty", "drop"}
    assert len(server.answered) == 320 and set(server.answered.values()) == {1}
    assert len(journaled(tmp_path)) == 320
    assert all(row["resps"] == [[drawn({"prompt": text_of(row)})]] for row in sampled(tmp_path))
    assert server.most_at_once <= 24
    for call in failed:
        if call.fault in ("429", "429 date"):
            (later,) = sorted(c.began for c in server.calls if c.question == call.question and c.began > call.began)[:1]
            assert later - call.ended >= RETRY_AFTER_SECONDS - 0.01


def text_of(row: Mapping[str, Any]) -> str:
    return str(json.loads(row["arguments"][0][0])[-1]["content"])


def test_what_fails_for_good_is_told_not_scored_and_asked_again(
    rows: Callable[[int], Path], api: Api, tmp_path: Path
) -> None:
    ill = {
        "Sentence 3.": "503",
        "Sentence 17.": "empty",
        "Sentence 20.": "400 maximum context length is 2048 tokens",
        "Sentence 30.": "filtered",
        "Sentence 31.": "429 for an hour",
    }
    server = Loopback(lambda text, _: next((f for t, f in ill.items() if t in text), None), drawn)
    root = rows(40)
    with server.serving() as url:
        ran = api(url, root, max_retries=1)
        assert ran.status == 2
        assert f"5 of 40 requests got no answer from {url}" in ran.err
        assert "1 x status 503: failed\n" in ran.err and f"{TASK} id 3_0" in ran.err
        assert "a reply without an answer" in ran.err and f"{TASK} id 17_0" in ran.err
        assert "status 400: maximum context length is 2048 tokens" in ran.err and f"{TASK} id 20_0" in ran.err
        assert "content filter" in ran.err and f"{TASK} id 30_0" in ran.err and f"{TASK} id 31_0" in ran.err
        assert "35 answers are safe" in ran.err and "the same command asks them again" in ran.err
        assert not (tmp_path / "run" / "results.json").exists() and not (tmp_path / "run" / "samples").exists()
        assert {row["id"] for row in journaled(tmp_path)} == {
            f"{n}_0" for n in range(40) if n not in (3, 17, 20, 30, 31)
        }
        times = {text: sum(text in call.question for call in server.calls) for text in ill}
        assert list(times.values()) == [2, 2, 1, 1, 1]  # what another attempt cannot mend is not repeated
        before = len(server.calls)
        ill.clear()
        assert api(url, root, max_retries=3, num_concurrent=2).status == 0  # how it is asked may change
    assert len(server.calls) - before == 5 and set(server.answered.values()) == {1}
    assert len(sampled(tmp_path)) == 40


def test_a_server_that_is_away_for_a_while(rows: Callable[[int], Path], api: Api, tmp_path: Path) -> None:
    """Refused connections: the server stops listening in the middle of the run, and comes back."""
    server = Loopback(answer_of=drawn, seconds=0.02)
    first = server.serving()
    url = first.__enter__()

    def go_away() -> None:
        while len(server.calls) < 20:
            time.sleep(0.01)
        first.__exit__(None, None, None)
        time.sleep(1.0)
        again.append(server.serving(int(url.split(":")[2].split("/")[0])))
        again[0].__enter__()

    again: list[Any] = []
    thread = threading.Thread(target=go_away)
    thread.start()
    try:
        ran = api(url, rows(100), num_concurrent=4, max_retries=8)
        thread.join()
    finally:
        again[0].__exit__(None, None, None)
    assert ran.status == 0, ran.err
    assert len(server.answered) == 100 and len(journaled(tmp_path)) == 100


def test_a_server_that_is_down_ends_the_run(rows: Callable[[int], Path], api: Api, tmp_path: Path) -> None:
    def down_after_50(text: str, _: int) -> str | None:
        number = int(text.split("Sentence ")[1].split(".")[0])
        return None if 100 <= number < 150 else "500"  # the longest are asked first, so 100 is

    server = Loopback(down_after_50, drawn)
    with server.serving() as url:
        ran = api(url, rows(400), max_retries=0, num_concurrent=4)
    assert ran.status == 2
    in_a_row = int(re.search(r"(\d+) requests in a row got no answer", ran.err)[1])
    assert 16 <= in_a_row <= 16 + 4  # those in flight may still count
    assert "50 answers are safe" in ran.err
    assert len(server.calls) <= 50 + 16 + 2 * 4


def test_the_pace_is_kept(rows: Callable[[int], Path], api: Api) -> None:
    server = Loopback(random_faults(0.2, seed=1, kinds=("500", "empty")), drawn)
    with server.serving() as url:
        assert api(url, rows(40), requests_per_minute=1200, timeout=4).status == 0
    began = sorted(call.began for call in server.calls)
    assert len(began) > 40  # further attempts keep to the pace too
    for n in range(len(began) - 10):
        assert began[n + 10] - began[n] >= 0.35  # ten shares of 50 ms, some late


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({}, 0.0),
        ({"retry-after": "never"}, 0.0),
        ({"retry-after": "Fri, 01 Jan 2010 00:00:00 GMT"}, 0.0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    import httpx2
    import openai

    response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://x"))
    assert asked_to_wait(openai.RateLimitError("", response=response, body=None)) == seconds


# ---- what is the same for all ------------------------------------------------------------------------------------


def test_no_server(rows: Callable[[int], Path], api: Api) -> None:
    with Loopback().serving() as url:
        pass
    ran = api(url, rows(3))
    assert ran.status == 2 and f"no server answers at {url}" in ran.err and "vllm serve" in ran.err


def test_a_server_without_the_model(rows: Callable[[int], Path], api: Api) -> None:
    server = Loopback(lambda text, _: "404 The model `qwen` does not exist.", models={"qwen2-vl": "x", "llama": "x"})
    with server.serving() as url:
        ran = api(url, rows(300), model="qwen2", num_concurrent=4)
    assert ran.status == 2 and "has no model `qwen2`" in ran.err
    assert "did you mean `qwen2-vl`?" in ran.err and "llama, qwen2-vl" in ran.err
    assert len(server.calls) <= 4


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("400 At most 0 video(s) may be provided in one prompt.", "refuses the form of the request"),
        ("404 Not Found", "has no such address or model"),
        ("403 not in your country", "refuses the key"),
        ("429 insufficient_quota", "has no quota left"),
    ],
)
def test_a_refusal_that_all_would_meet_ends_the_run_at_once(
    fault: str, told: str, rows: Callable[[int], Path], api: Api
) -> None:
    server = Loopback(lambda text, _: fault)
    with server.serving() as url:
        ran = api(url, rows(300), num_concurrent=4)
    assert ran.status == 2 and told in ran.err and fault.split(" ", 1)[1] in ran.err
    assert len(server.calls) <= 4


# ---- secrets -----------------------------------------------------------------------------------------------------


def test_the_key_is_written_nowhere(
    rows: Callable[[int], Path],
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Loopback(random_faults(0.3, seed=2, kinds=("429", "503", "cut", "drop")), drawn, wants=f"Bearer {KEY}")
    root = rows(30)
    with server.serving() as url, caplog.at_level("DEBUG"):
        monkeypatch.setenv("MY_KEY", KEY + "-wrong")
        ran = [api(url, root, api_key_env="MY_KEY")]  # the server repeats the wrong key
        assert ran[0].status == 2 and "refuses the key" in ran[0].err and "***" in ran[0].err
        ran.append(api(url, root, api_key=KEY))
        assert ran[1].status == 2 and "would be written to results" in ran[1].err and "OPENAI_API_KEY" in ran[1].err
        ran.append(api(url.replace("http://", f"http://me:{KEY}@"), root))
        assert ran[2].status == 2 and "refuses the key" in ran[2].err  # the password goes in place of the key
        ran.append(api(url, root, timeout=4))
        assert ran[3].status == 0, ran[3].err
    behind_password = Loopback(answer_of=drawn, wants=f"Basic {base64.b64encode(f'me:{KEY}'.encode()).decode()}")
    with behind_password.serving() as url, caplog.at_level("DEBUG"):
        args = {"model": "m", "base_url": url.replace("http://", f"http://me:{KEY}@")}
        evaluate("mmla-api", TASK, data_dir=str(root), model_args=args, run_dir=tmp_path / "behind_password", limit=2)
    fickle = Loopback(lambda text, _: f"401 no longer valid: {KEY}", drawn)  # in Python there is a traceback
    with fickle.serving() as url, pytest.raises(ModelError) as error:
        evaluate("mmla-api", TASK, data_dir=str(root), model_args={"model": "m", "base_url": url})
    assert "no longer valid: ***" in str(error.value)
    seen = ["".join(traceback.format_exception(error.value)), caplog.text]
    seen += [text for r in ran for text in (r.out, r.err)]
    seen += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in seen if KEY in text]


def test_no_key(rows: Callable[[int], Path], mmla: Callable[..., Any]) -> None:
    told = ("run", "--model", "mmla-api", "--tasks", TASK, "--data_dir", rows(1), "--model_args")
    ran = mmla(*told, "model=gpt-4o")
    assert ran.status == 2 and "the environment variable OPENAI_API_KEY is not set" in ran.err
    ran = mmla(*told, "model=gpt-4o,api_key_env=WORK_KEY")
    assert ran.status == 2 and "export WORK_KEY=" in ran.err


def test_a_missing_package_is_named() -> None:
    command = ["run", "--model", "mmla-api", "--model_args", "model=m", "--tasks", TASK, "--data_dir", "sample"]
    code = f"import sys; sys.modules['openai'] = None; from harness_ext.cli import main; sys.exit(main({command}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        ran.returncode == 2 and "mmla-api needs the package `openai`" in ran.stderr and "mmla-eval[api]" in ran.stderr
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "mmla-api needs a model"),
        ({"modell": "x"}, "did you mean `model`?"),
        ({"model": "m", "answer": "rank"}, "--answer rank needs the log-probabilities of given tokens"),
        ({"model": "m", "answer": "rank"}, "mmla-vllm or mmla-hf"),
        ({"model": "m", "clips_as": "gif"}, "is not one of auto, frames, images, video, file"),
        ({"model": "m", "num_concurrent": 0}, "num_concurrent=0 is no whole number above 0"),
        ({"model": "m", "timeout": "soon"}, "timeout=soon is no number above 0"),
        ({"model": "m", "price_in": 1}, "price_in and price_out go together"),
        ({"model": "m", "price_in": "free", "price_out": 0}, "price=free is no number from 0"),
        ({"model": "m", "extra_body": 3}, "extra_body is 3, not a mapping"),
        ({"model": "m", "clips_as": "video", "num_frames": 8}, "the server picks the frames"),
    ],
)
def test_bad_arguments(args: dict[str, Any], told: str) -> None:
    from harness_ext.backends.api import APILabelLM

    with Loopback().serving() as url, pytest.raises(ModelError) as error:
        APILabelLM(base_url=url, **args)
    assert told in str(error.value)


# ---- what is sent ------------------------------------------------------------------------------------------------


@pytest.fixture
def meld(meld_root: Path) -> Callable[..., Any]:
    """`meld(server, ...)`: results over 42 rows."""

    def call(server: Loopback, **options: Any) -> dict[str, Any]:
        with server.serving() as url:
            args = {"model": "m", "base_url": url, **options.pop("model_args", {})}
            return evaluate("mmla-api", TASK, data_dir=str(meld_root), model_args=args, **options)

    return call


def test_a_chat_is_sent_as_messages_and_kept_as_they_are(meld: Callable[..., Any]) -> None:
    server = Loopback(answer_of=drawn)
    results = meld(server, num_fewshot=2, system_instruction="Be brief.", limit=3)
    messages = [list(call.body["messages"]) for call in server.calls]
    assert [[m["role"] for m in chat] for chat in messages] == [["system", *["user", "assistant"] * 2, "user"]] * 3
    assert all(chat[0]["content"] == "Be brief." and chat[2]["content"].startswith("emotion: ") for chat in messages)
    kept = [json.loads(row["arguments"][0][0]) for row in results["samples"][TASK]]
    assert sorted(map(str, kept)) == sorted(map(str, messages))
    assert results["mmla"]["chat_template"] == {"applied": True, "sha256": None}


def test_without_a_chat_template_a_plain_prompt_is_sent(meld: Callable[..., Any]) -> None:
    server = Loopback(answer_of=drawn)
    results = meld(server, apply_chat_template=False, limit=2)
    assert sorted(call.body["prompt"] for call in server.calls) == sorted(
        row["arguments"][0][0] for row in results["samples"][TASK]
    )


def test_decoding_is_said(meld: Callable[..., Any]) -> None:
    plain, vllm = Loopback(answer_of=drawn), Loopback(answer_of=drawn, models={"m": "vllm"})
    meld(plain, limit=1)
    meld(vllm, limit=1)
    sent = {k: v for k, v in plain.calls[0].body.items() if k != "messages"}
    assert sent == {"model": "m", "temperature": 0.0, "max_tokens": 64}
    assert vllm.calls[0].body["repetition_penalty"] == 1.0 and vllm.calls[0].body["top_k"] == 0
    sampled = Loopback(answer_of=drawn)
    meld(sampled, limit=2, gen_kwargs={"temperature": 0.7, "top_p": 0.9, "until": ["\n"], "max_gen_toks": 8})
    first, second = (call.body for call in sampled.calls)
    assert (first["temperature"], first["top_p"], first["stop"], first["max_tokens"]) == (0.7, 0.9, ["\n"], 8)
    assert first["seed"] != second["seed"]
    with pytest.raises(ModelError, match="takes no generation argument `top_k`"):
        meld(Loopback(), limit=1, gen_kwargs={"top_k": 5})


def test_the_newer_name_of_the_token_limit_is_found(meld: Callable[..., Any]) -> None:
    old = "400 Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server = Loopback(lambda text, attempt: None if server.calls else old, drawn)
    meld(server, limit=3, model_args={"num_concurrent": 1})
    sent = [sorted({"max_tokens", "max_completion_tokens"} & set(call.body)) for call in server.calls]
    assert sent == [["max_tokens"], *[["max_completion_tokens"]] * 3]


def test_constrained_by_a_schema_or_by_the_grammar_of_other_backends(meld: Callable[..., Any]) -> None:
    from harness_ext.labels import answer_grammar

    forms = tuple(f"emotion: {label}" for label in LABELS)
    openai = Loopback(answer_of=lambda body: json.dumps({"answer": drawn(body)}))
    results = meld(openai, answer="constrained", limit=4)
    schema = openai.calls[0].body["response_format"]["json_schema"]
    assert schema["strict"] and tuple(schema["schema"]["properties"]["answer"]["enum"]) == forms
    assert all(row["resps"][0][0] in forms for row in results["samples"][TASK])
    assert results["mmla"]["model"]["constrained_by"] == "json_schema"
    vllm = Loopback(answer_of=drawn, models={"m": "vllm"})
    results = meld(vllm, answer="constrained", limit=4)
    assert vllm.calls[0].body["structured_outputs"] == {"grammar": answer_grammar(forms)}
    assert results["mmla"]["model"]["constrained_by"] == "grammar"
    with pytest.raises(ModelError, match="did not keep to the answer forms"):
        meld(
            Loopback(answer_of=lambda body: "I think joy"), answer="constrained", limit=1, model_args={"max_retries": 0}
        )


def test_tokens_and_cost_are_those_of_distinct_questions(
    data_root: Callable[..., Path], api: Api, tmp_path: Path
) -> None:
    root = data_root(MELD=[(f"{n}_0", f"Sentence {n % 5}.", "joy") for n in range(20)])
    server = Loopback(answer_of=drawn)
    with server.serving() as url:
        ran = [api(url, root, price_in=2, price_out=8) for _ in range(2)]  # the second finds all in the journal
    assert len(server.calls) == 5
    usage = json.loads((tmp_path / "run" / "results.json").read_text())["mmla"]["usage"]
    prompts = sum(len(call.question) for call in server.calls)
    assert (usage["questions"], usage["prompt_tokens"], usage["new_tokens"]) == (5, prompts, 20)
    assert usage["cost"] == pytest.approx((2 * prompts + 8 * 20) / 1e6, abs=1e-6)
    assert usage["tasks"][TASK]["prompt_tokens"] == prompts
    assert all(usage_line(usage) in r.out for r in ran)


def test_merged_shards_have_the_tokens_of_a_whole_run(
    rows: Callable[[int], Path], api: Api, mmla: Callable[..., Any], tmp_path: Path
) -> None:
    server, root, prices = Loopback(answer_of=drawn), rows(12), {"price_in": 2, "price_out": 8}
    with server.serving() as url:
        for shard in ("1/2", "2/2"):
            assert api(url, root, "--shard", shard, **prices).status == 0
    assert mmla("merge", tmp_path / "run").status == 0
    usage = json.loads((tmp_path / "run" / "results.json").read_text())["mmla"]["usage"]
    assert usage["questions"] == len(server.calls) == 12
    assert usage["prompt_tokens"] == sum(len(call.question) for call in server.calls) and usage["cost"] > 0


def test_tokens_of_repeats_add_up(meld: Callable[..., Any]) -> None:
    server = Loopback(answer_of=drawn)
    results = meld(server, limit=5, repeats=2, label_order="shuffled:0")
    usage = results["mmla"]["usage"]
    assert usage["questions"] == len(server.calls) == 10 and usage["cost"] is None
    assert usage["prompt_tokens"] == sum(len(call.question) for call in server.calls)


# ---- clips -------------------------------------------------------------------------------------------------------

VIDEO_TASK = "mmla_speaking_style_mustard"


def pixels(encoded: str) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


@pytest.fixture
def shown() -> Iterator[Callable[..., Any]]:
    pytest.importorskip("av", reason="reading clips needs PyAV: pip install -e '.[dev]'")

    def call(owner: str = "somebody", **args: Any) -> tuple[Loopback, list[dict[str, Any]], dict[str, Any]]:
        """The server with what it was sent, the sample rows in the same order, and the results."""
        server = Loopback(answer_of=lambda body: "speaking style: sincere", models={"m": owner})
        with server.serving() as url:
            given = {"model": "m", "base_url": url, **args}
            results = evaluate("mmla-api", VIDEO_TASK, data_dir="sample", model_args=given, limit=3)
        rows = {str(json.loads(row["arguments"][0][0])[0]["content"]): row for row in results["samples"][VIDEO_TASK]}
        return server, [rows["<video>" + call.question] for call in server.calls], results

    return call


def test_images_are_the_frames_of_the_policy(shown: Callable[..., Any]) -> None:
    import numpy as np

    from harness_ext.video import pixel_digest

    server, rows, results = shown(num_frames=3, max_pixels=20_000)
    assert results["mmla"]["model"]["clips_as"] == "images"
    for call, row in zip(server.calls, rows, strict=True):
        *images, text = call.body["messages"][0]["content"]
        assert text["type"] == "text" and [image["type"] for image in images] == ["image_url"] * 3
        urls = [image["image_url"]["url"] for image in images]
        frames = np.stack([pixels(url.removeprefix("data:image/png;base64,")) for url in urls])
        assert pixel_digest(frames) == row["response"]["frames"]["digest"]


def test_frames_are_one_video_with_its_times(shown: Callable[..., Any]) -> None:
    import numpy as np

    from harness_ext.video import pixel_digest

    server, rows, results = shown(owner="vllm", num_frames=3)
    assert results["mmla"]["model"]["clips_as"] == "frames"
    for call, row in zip(server.calls, rows, strict=True):
        video, _ = call.body["messages"][0]["content"]
        encoded = video["video_url"]["url"].removeprefix("data:video/jpeg;base64,").split(",")
        assert pixel_digest(np.stack([pixels(picture) for picture in encoded])) == row["response"]["frames"]["digest"]
        told = call.body["media_io_kwargs"]["video"]
        assert told["frames_indices"] == row["response"]["frames"]["indices"]
        assert told["num_frames"] == -1 and told["do_sample_frames"] is False and told["total_num_frames"] >= 3


def test_the_file_itself(shown: Callable[..., Any]) -> None:
    server, rows, results = shown(clips_as="video")
    assert results["mmla"]["frame_policy"] is None
    for call, row in zip(server.calls, rows, strict=True):
        url = call.body["messages"][0]["content"][0]["video_url"]["url"]
        assert (
            base64.b64decode(url.removeprefix("data:video/mp4;base64,"))
            == Path(row["doc"]["clip"]["path"]).read_bytes()
        )
    server, rows, _ = shown(clips_as="file")
    urls = [call.body["messages"][0]["content"][0]["video_url"]["url"] for call in server.calls]
    assert urls == [Path(row["doc"]["clip"]["path"]).as_uri() for row in rows]


def test_a_clip_needs_a_chat(shown: Callable[..., Any]) -> None:
    with Loopback().serving() as url, pytest.raises(ModelError, match="a clip can only be sent in a chat"):
        args = {"model": "m", "base_url": url}
        evaluate("mmla-api", VIDEO_TASK, data_dir="sample", model_args=args, limit=1, apply_chat_template=False)
