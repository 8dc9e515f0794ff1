"""`mmla-hf` with a real model on real texts, and with a tiny Qwen2-VL on drawn clips."""

from __future__ import annotations

import json
import logging
import re
import statistics
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness_ext.backends.hf import HFLabelLM, Options
from harness_ext.backends.hf_batch import BatchBound, Prepared
from harness_ext.prefetch import DecodeLimits
from harness_ext.questions import Question
from harness_ext.requests import Request, Response
from harness_ext.session import Session, session
from mmla_tasks.errors import ClipError, MissingExtraError, MmlaError, ModelError
from mmla_tasks.records import Clip

from .asking import FEW_LABELS, SETTINGS, answered, prompt_of, request_of, scored_both_ways
from .tiny_models import noisy_adapter

pytestmark = [
    pytest.mark.slow,
    # transformers and peft warn about their own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
torch = pytest.importorskip("torch", reason="the extra `hf` is not installed")

DATASETS = ("MIntRec", "MELD", "CH-SIMSv2.0")


@pytest.fixture(scope="module")
def lm(smollm2: Path) -> HFLabelLM:
    return HFLabelLM(str(smollm2), dtype="float32")


@pytest.fixture(scope="module")
def video_lm(tiny_qwen2_vl: Path) -> HFLabelLM:
    return HFLabelLM(str(tiny_qwen2_vl), dtype="float32", num_frames=4)


@pytest.fixture(scope="module")
def real_requests(lm: HFLabelLM, real_texts: Callable[[str, int], list[str]]) -> Callable[..., list[Request]]:
    def make(rows: int, chat: bool = True) -> list[Request]:
        return [request_of(lm, d, t, i, chat) for d in DATASETS for i, t in enumerate(real_texts(d, rows))]

    return make


@pytest.fixture
def clip_requests(video_lm: HFLabelLM, drawn_clip: Callable[..., Clip]) -> list[Request]:
    """Clips of unequal size and length, so that prompts are padded."""
    sizes = [(320, 240, 12), (640, 360, 16), (160, 120, 3), (240, 320, 9)]
    clips = [drawn_clip(i, width=w, height=h, frames=f) for i, (w, h, f) in enumerate(sizes)]
    texts = ["Oh. Really?", "no way, I would never do that to you", "bye", "so what"]
    asked = [request_of(video_lm, "MIntRec", t, i, clip=c) for i, (t, c) in enumerate(zip(texts, clips, strict=True))]
    return [replace(request, labels=FEW_LABELS) for request in asked]


# ---- a real model on real texts ----------------------------------------------------------------------------------


# Two cores give SmolLM2 about two prompts a second, so two of the modes do without the chat template's 40 tokens.
@pytest.mark.parametrize(("mode", "chat"), [("constrained", False), ("generate", False), ("rank", True)])
@pytest.mark.timeout(1200)
def test_answers_do_not_depend_on_the_batch_size(
    lm: HFLabelLM, real_requests: Callable[..., list[Request]], mode: str, chat: bool
) -> None:
    requests = real_requests(24, chat)
    one, four, sixteen = ([str(a) for a in answered(lm, requests, answer=mode, batch_size=b)] for b in (1, 4, 16))
    assert len(one) == 72
    assert one == four == sixteen
    if mode != "generate":
        assert all(text in request.answer_forms for text, request in zip(one, requests, strict=True))
    else:
        assert any(text not in request.answer_forms for text, request in zip(one, requests, strict=True))


@pytest.mark.parametrize(("dataset", "rows"), [("MIntRec", 2), ("MELD", 2), ("CH-SIMSv2.0", 3)])
def test_rank_equals_scoring_each_full_sequence(
    lm: HFLabelLM, real_texts: Callable[[str, int], list[str]], dataset: str, rows: int
) -> None:
    requests = [request_of(lm, dataset, text, i) for i, text in enumerate(real_texts(dataset, rows))]
    at_once, naive = scored_both_ways(lm, requests)
    print(f"{dataset}: largest difference {float((at_once - naive).abs().max()):.2g}")
    torch.testing.assert_close(at_once, naive, atol=1e-4, rtol=0)


def test_the_fallback_gives_the_same_scores(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    answer = video_lm._tokens_of(clip_requests[0])
    batch = [video_lm._question(request) for request in clip_requests]
    with torch.inference_mode():
        at_once = video_lm.scorer.tree(video_lm._inputs(batch, 16), answer)
        for scores, question in zip(at_once, batch, strict=True):
            naive = video_lm.scorer.naive(video_lm._inputs([question], 16), answer)
            torch.testing.assert_close(scores, naive, atol=1e-4, rtol=0)


def test_one_pass_and_two_give_the_same_scores(video_lm: HFLabelLM, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request_of(video_lm, "MIntRec", text) for text in ("thank you", "no, I would never do such a thing")]
    inputs = video_lm._inputs([Question(request, request.prompt) for request in requests], 16)
    answer = video_lm._tokens_of(requests[0])
    with torch.inference_mode():
        one = video_lm.scorer.tree(inputs, answer)
        monkeypatch.setattr("harness_ext.backends.hf_rank.ONE_PASS_TOKENS", 0)
        torch.testing.assert_close(one, video_lm.scorer.tree(inputs, answer), atol=1e-5, rtol=0)


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put every node of the label trie one position too far."""
    from harness_ext.backends.hf_rank import LabelScorer

    right = LabelScorer.node_positions
    monkeypatch.setattr(LabelScorer, "node_positions", lambda *args: right(*args) + 1)


@pytest.mark.usefixtures("shifted")
def test_a_position_off_by_one_is_noticed(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    for request in (request_of(video_lm, "MIntRec", "thank you"), clip_requests[0]):
        at_once, naive = scored_both_ways(video_lm, [request])
        print(f"shifted by one: largest difference {float((at_once - naive).abs().max()):.2g}")
        assert float((at_once - naive).abs().max()) > 1e-4


@pytest.mark.usefixtures("shifted")
def test_a_model_that_scores_wrongly_at_once_falls_back_and_says_so(
    video_lm: HFLabelLM, clip_requests: list[Request], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_ext.backends.hf_rank import LabelScorer

    _, naive = scored_both_ways(video_lm, clip_requests)
    monkeypatch.setattr(video_lm, "scorer", LabelScorer(video_lm.model))
    with caplog.at_level(logging.WARNING):
        answers = answered(video_lm, clip_requests, answer="rank", batch_size=2)
    assert caplog.text.count("scored as a sequence of its own") == 1
    found = torch.tensor([list((answer.label_scores or {}).values()) for answer in answers])
    torch.testing.assert_close(found, naive, atol=1e-4, rtol=0)


def test_ranking_twenty_labels_costs_at_most_one_and_a_half_prefills(lm: HFLabelLM) -> None:
    request = request_of(lm, "MIntRec", "you know what " * 8 + "I did")
    question, answer = Question(request, request.prompt), lm._tokens_of(request)
    inputs = lm._inputs([question], 16)
    assert 140 <= inputs["input_ids"].shape[1] <= 175
    with torch.inference_mode():
        positions = lm.scorer.positions(inputs)
        ways: dict[str, Callable[[], Any]] = {
            "prefill": lambda: lm.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1),
            "rank": lambda: lm.scorer.tree(inputs, answer),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(10):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    prefill, rank = (statistics.median(seconds[name][1:]) for name in ("prefill", "rank"))
    print(f"prefill {prefill:.3f} s, ranking {len(answer.own)} labels {rank:.3f} s, ratio {rank / prefill:.2f}")
    assert rank <= 1.5 * prefill


def test_rank_gives_scores_and_token_counts_of_every_label(lm: HFLabelLM) -> None:
    request = request_of(lm, "MIntRec", "thank you")
    (answer,) = answered(lm, [request], answer="rank")
    assert set(answer.label_scores or {}) == set(request.labels) == set(answer.label_tokens or {})
    assert (answer.label_tokens or {})["ask for help"] == 3
    best = max(answer.label_scores or {}, key=(answer.label_scores or {}).__getitem__)
    assert answer == f"intent: {best}"


def test_end_tokens_are_scored_where_one_label_begins_another(lm: HFLabelLM) -> None:
    request = replace(request_of(lm, "MELD", "thank you"), labels=("ask", "ask for help"))
    (answer,) = answered(lm, [request], answer="rank")
    assert answer.label_tokens == {"ask": 2, "ask for help": 4}
    at_once, naive = scored_both_ways(lm, [request])
    torch.testing.assert_close(at_once, naive, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "labels", [('say "hi"', "back\\slash"), ("悲伤", "喜悦"), ("yes", "yes please"), ("a\tb", "🙂")]
)
@pytest.mark.parametrize("chat", [True, False])
def test_constrained_spells_any_label(video_lm: HFLabelLM, labels: tuple[str, ...], chat: bool) -> None:
    request = replace(
        request_of(video_lm, "MELD", "hi"),
        labels=labels,
        prompt="Hi. Which?",
        chat=chat,
        gen_kwargs={"max_gen_toks": 1},
    )
    (answer,) = answered(video_lm, [request], answer="constrained")
    assert str(answer) in request.answer_forms
    assert not answer.truncated


def test_an_answer_cut_at_the_limit_is_truncated_and_stop_strings_are_honoured(video_lm: HFLabelLM) -> None:
    request = request_of(video_lm, "MELD", "Who painted small numbers under every cup in here?")
    (cut,) = answered(video_lm, [request])
    assert cut.truncated
    assert cut.new_tokens == SETTINGS["max_gen_toks"]
    stop = cut[len(cut) // 2 :][:3]
    (stopped,) = answered(video_lm, [replace(request, gen_kwargs={**SETTINGS, "until": [stop]})])
    assert stopped == cut[: cut.index(stop)]
    assert not stopped.truncated


def test_an_answer_that_ends_is_not_truncated(video_lm: HFLabelLM) -> None:
    request = replace(request_of(video_lm, "MELD", "hi"), gen_kwargs={**SETTINGS, "max_gen_toks": 4})
    settings = video_lm.model.generation_config
    settings.eos_token_id, before = list(range(49_152)), settings.eos_token_id
    try:
        (ended,) = answered(video_lm, [request])
    finally:
        settings.eos_token_id = before
    assert (ended, ended.truncated, ended.new_tokens) == ("", False, 1)


def test_a_checkpoints_own_generation_settings_do_not_leak(smollm2: Path, tmp_path: Path) -> None:
    for file in smollm2.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    settings = {"eos_token_id": 2, "do_sample": True, "temperature": 0.3, "top_k": 3, "repetition_penalty": 1.5}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    leaky = HFLabelLM(str(tmp_path), dtype="float32")
    used = leaky._generation_config(leaky._settings([Question(request_of(leaky, "MELD", "hi"), "hi")]))
    effective, _ = leaky.model._prepare_generation_config(used)
    assert (effective.do_sample, effective.repetition_penalty, effective.eos_token_id) == (False, 1.0, [2])
    assert effective.temperature in (None, 1.0)


def test_bos_is_not_doubled(lm: HFLabelLM) -> None:
    request = request_of(lm, "MELD", "hi")
    ids = lm._inputs([Question(request, request.prompt)], 1)["input_ids"][0].tolist()
    assert lm.tokenizer.decode(ids) == request.prompt


# ---- video -------------------------------------------------------------------------------------------------------


def test_video_answers_do_not_depend_on_the_batch_size(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    for mode in ("generate", "constrained", "rank"):
        one, three = (answered(video_lm, clip_requests, answer=mode, batch_size=b) for b in (1, 3))
        assert [str(a) for a in one] == [str(a) for a in three]
        assert [a.prompt_tokens for a in one] == [a.prompt_tokens for a in three]
        assert all(a.frames for a in one)
        if mode != "generate":
            assert all(str(a) in r.answer_forms for a, r in zip(one, clip_requests, strict=True))


def test_rank_with_video_equals_scoring_each_full_sequence(
    video_lm: HFLabelLM, clip_requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    at_once, naive = scored_both_ways(video_lm, clip_requests)
    print(f"video: largest difference {float((at_once - naive).abs().max()):.2g}")
    torch.testing.assert_close(at_once, naive, atol=1e-4, rtol=0)
    answered(video_lm, clip_requests, answer="rank", batch_size=4)
    assert "sequence of its own" not in caplog.text


def test_video_costs_the_tokens_that_its_size_says(tiny_qwen2_vl: Path, drawn_clip: Callable[..., Clip]) -> None:
    unbounded = HFLabelLM(str(tiny_qwen2_vl), dtype="float32", num_frames=4, max_pixels=640 * 360)
    prompt = unbounded.apply_chat_template([{"role": "user", "content": "<video>Who?"}])
    request = Request(
        "t", "1", prompt, ("a", "b"), "is:", SETTINGS, clip=drawn_clip(1, width=640, height=360), chat=True
    )
    (answer,) = answered(unbounded, [request])
    assert answer.prompt_tokens == 611  # 2 pairs of frames x 13 x 23 patches of 28 pixels, and 13 of text


def test_frames_are_held_until_their_tensors_are_made_and_no_longer(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_ext import frame_cache

    alive: list[weakref.ref[Any]] = []
    most = 0
    right = frame_cache.frames_of

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal most
        frames = right(*args, **kwargs)
        alive.append(weakref.ref(frames.frames_THWC))
        most = max(most, sum(ref() is not None for ref in alive))
        return frames

    monkeypatch.setattr(frame_cache, "frames_of", counting)
    answered(video_lm, clip_requests * 4, batch_size=2)
    assert len(alive) == 16
    assert most <= DecodeLimits().workers + 1  # one may be on its way out; kept ones would soon be all 16
    assert not any(thread.name.startswith("mmla-prefetch") for thread in threading.enumerate())


def test_decode_limits_change_no_answer(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    usual = answered(video_lm, clip_requests, batch_size=3)
    with session(Session(decode_limits=DecodeLimits(workers=1, memory=1))):
        assert answered(video_lm, clip_requests, batch_size=3) == usual


def test_time_is_noted_by_stage(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    for mode, stages in (
        ("generate", ["decode", "preprocess", "prefill", "generate"]),
        ("constrained", ["decode", "preprocess", "prefill", "generate"]),
        ("rank", ["decode", "preprocess", "prefill"]),
    ):
        with session(Session()) as active:
            answered(video_lm, clip_requests, answer=mode, batch_size=2)
        assert list(active.timings.seconds) == stages
        assert min(active.timings.seconds.values()) > 0


def test_questions_about_one_clip_stand_together(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    right = video_lm._generate

    def noting(batch: list[Prepared]) -> list[Response]:
        asked.extend(Path((one.question.request.clip or {})["path"]).name for one in batch)
        return right(batch)

    monkeypatch.setattr(video_lm, "_generate", noting)
    answered(video_lm, [*clip_requests, *(replace(r, task="other") for r in clip_requests)])
    assert asked[::2] == asked[1::2]
    assert len(set(asked)) == 4


def test_a_clip_of_one_frame_is_shown_as_one_frame(
    video_lm: HFLabelLM, clip_requests: list[Request], drawn_clip: Callable[..., Clip]
) -> None:
    short = replace(clip_requests[0], clip=drawn_clip(7, width=160, height=120, frames=1))
    (alone,) = answered(video_lm, [short])
    assert alone.frames is not None and alone.frames["indices"] == [0]
    assert answered(video_lm, [clip_requests[2], short], batch_size=2)[1] == alone
    (ranked,) = answered(video_lm, [short], answer="rank")
    assert ranked in short.answer_forms


def test_memory_that_runs_out_halves_this_batch_and_those_that_follow(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    right = video_lm._generate
    one_by_one = answered(video_lm, clip_requests * 4)

    def small_memory(batch: list[Prepared]) -> list[Response]:
        asked.append(len(batch) * max(one.length for one in batch))
        if asked[-1] > 1000:
            raise torch.OutOfMemoryError
        return right(batch)

    monkeypatch.setattr(video_lm, "_generate", small_memory)
    assert answered(video_lm, clip_requests * 4, batch_size=4) == one_by_one
    assert asked[0] > 1000  # four of the largest clips
    assert max(asked[1:]) <= 1000
    assert video_lm._bound.tokens == asked[0] // 2


def test_a_single_question_that_does_not_fit_is_named(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(batch: list[Prepared]) -> list[Response]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(video_lm, "_generate", no_memory)
    with pytest.raises(ModelError, match=r"document 1, alone[\s\S]*48\d tokens[\s\S]*20\.00 GiB[\s\S]*num_frames"):
        answered(video_lm, clip_requests[1:2], batch_size=4)


def test_a_batch_is_filled_by_tokens(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Video tokens count, though nobody knows them before the clips are decoded."""
    batches: list[list[int]] = []
    right = video_lm._generate

    def noting(batch: list[Prepared]) -> list[Response]:
        batches.append([one.length for one in batch])
        return right(batch)

    monkeypatch.setattr(video_lm, "_generate", noting)
    answered(video_lm, clip_requests * 3, batch_size="auto", max_batch_tokens=1500)
    assert sum(map(len, batches)) == 12
    assert all(len(lengths) * max(lengths) <= 1500 for lengths in batches)
    for lengths, after in pairwise(batches):
        assert (len(lengths) + 1) * max(*lengths, after[0]) > 1500


def test_an_error_while_answers_are_kept_leaves_no_thread(
    video_lm: HFLabelLM, clip_requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from harness_ext.session import answer_all

    class FullDisk:
        def get(self, key: str) -> None:
            return None

        def add(self, *args: Any) -> None:
            raise OSError("No space left on device")

    video_lm.options, video_lm._bound = Options(), BatchBound(1)
    instances = [SimpleNamespace(request=request) for request in clip_requests]
    with session(Session(journal=FullDisk())), pytest.raises(OSError, match="No space left"):  # type: ignore[arg-type]
        answer_all(video_lm, instances)
    assert not any(thread.name.startswith("mmla-prefetch") for thread in threading.enumerate())


def test_without_a_chat_template_the_models_own_video_token_is_placed(
    video_lm: HFLabelLM, drawn_clip: Callable[..., Clip]
) -> None:
    prompt = prompt_of("MELD", "hi", video=True)
    request = Request("t", "1", prompt, ("joy", "fear"), "emotion:", SETTINGS, clip=drawn_clip(1))
    (answer,) = answered(video_lm, [request])
    assert (answer.prompt_tokens or 0) > 100


def test_bad_clips_stop_or_are_skipped_or_asked_as_text(
    video_lm: HFLabelLM, clip_requests: list[Request], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    clip = Clip(path=str(broken), start_seconds=0.0, end_seconds=None, size=11, mtime_ns=1)
    text = video_lm.apply_chat_template([{"role": "user", "content": prompt_of("MELD", "hi")}])
    bad = replace(clip_requests[0], clip=clip, fallback=text)
    with pytest.raises(ClipError, match=r"broken\.mp4"):
        answered(video_lm, [clip_requests[1], bad])
    good, skipped = answered(video_lm, [clip_requests[1], bad], on_bad_clip="skip", batch_size=2)
    assert skipped.skipped
    assert not good.skipped
    assert good.frames
    good, asked = answered(video_lm, [clip_requests[1], bad], on_bad_clip="text", batch_size=2)
    assert asked.as_text
    assert asked.frames is None
    assert not good.as_text


def test_a_prompt_beyond_the_context_is_named_not_cut(video_lm: HFLabelLM, clip_requests: list[Request]) -> None:
    video_lm.max_length, before = 100, video_lm.max_length
    try:
        with pytest.raises(ModelError, match=r"MIntRec, document 1, is too long"):
            answered(video_lm, clip_requests[1:2])
    finally:
        video_lm.max_length = before


def test_multimodal_is_said_per_model(lm: HFLabelLM, video_lm: HFLabelLM, drawn_clip: Callable[..., Clip]) -> None:
    assert video_lm.MULTIMODAL
    assert not lm.MULTIMODAL
    request = replace(request_of(lm, "MELD", "hi"), clip=drawn_clip(1), task="mmla_emotion_meld")
    with pytest.raises(ModelError, match="takes no video") as caught:
        answered(lm, [request])
    assert "mmla_emotion_meld_text" in str(caught.value)


def test_text_tasks_run_on_a_video_model(video_lm: HFLabelLM) -> None:
    request = request_of(video_lm, "MELD", "hi")
    for mode in ("generate", "constrained", "rank"):
        (answer,) = answered(video_lm, [request], answer=mode)
        assert answer.prompt_tokens


# ---- loading -----------------------------------------------------------------------------------------------------


def test_identity_is_plain_json_and_a_copy_is_the_same_model(tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    from harness_ext.backends.hf_load import folder_digest

    for file in tiny_qwen2_vl.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert folder_digest(tmp_path) == folder_digest(tiny_qwen2_vl)
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert folder_digest(tmp_path) != folder_digest(tiny_qwen2_vl)


def test_identity_survives_json(video_lm: HFLabelLM) -> None:
    identity = video_lm.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["dtype"] == "float32"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_frame": 4}, r"Unknown model argument 'num_frame'[\s\S]*did you mean `num_frames`"),
        ({"answer": "ranked"}, r"answer='ranked'[\s\S]*did you mean `rank`"),
        ({"on_bad_clip": "ignore"}, "on_bad_clip='ignore' is not one of error, skip, text"),
        ({"dtype": "bfloat61"}, r"Unknown dtype 'bfloat61'[\s\S]*did you mean `bfloat16`"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"peft": "/nowhere/at/all"}, "adapter"),
        ({"attn_implementation": "flash_attention_9"}, "flash_attention_9"),
    ],
)
def test_bad_arguments_are_named(tiny_qwen2_vl: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(MmlaError) as caught:
        HFLabelLM(str(tiny_qwen2_vl), **args)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_folders_that_hold_no_model(tmp_path: Path, tiny_qwen2_vl: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        HFLabelLM(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"config\.json is not there"):
        HFLabelLM(str(tmp_path))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny_qwen2_vl / name)
    with pytest.raises(ModelError, match="processor"):
        HFLabelLM(str(tmp_path))


def test_without_torch_the_message_ends_in_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    right = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else right(name, *a))
    with pytest.raises(MissingExtraError, match="mmla-hf needs the package `torch`") as caught:
        HFLabelLM(str(tmp_path))
    assert "pip install" in str(caught.value)


# ---- adapters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_qwen2_vl: Path, tmp_path: Path) -> Callable[[float], Path]:
    """`adapter(scale)`: a LoRA folder whose B matrices are noise of this scale."""
    return lambda scale: noisy_adapter(tiny_qwen2_vl, tmp_path / f"adapter{scale}", scale=scale)


def test_an_adapter_is_applied(tiny_qwen2_vl: Path, adapter: Callable[[float], Path], video_lm: HFLabelLM) -> None:
    adapted = HFLabelLM(str(tiny_qwen2_vl), dtype="float32", peft=str(adapter(1.0)))
    request = request_of(video_lm, "MELD", "hi")
    (with_it,), (without,) = (answered(model, [request], answer="rank") for model in (adapted, video_lm))
    assert with_it.label_scores != without.label_scores
    assert adapted.task_identity("MELD")["peft"]["digest"] and video_lm.task_identity("MELD") == {}


def test_an_adapter_without_effect_is_refused(tiny_qwen2_vl: Path, adapter: Callable[[float], Path]) -> None:
    with pytest.raises(ModelError, match="changes nothing"):
        HFLabelLM(str(tiny_qwen2_vl), dtype="float32", peft=str(adapter(0.0)))


def test_an_adapter_of_another_base_is_refused(smollm2: Path, adapter: Callable[[float], Path]) -> None:
    with pytest.raises(ModelError, match="adapter"):
        HFLabelLM(str(smollm2), dtype="float32", peft=str(adapter(1.0)))
