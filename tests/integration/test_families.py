"""`mmla-hf` with every family of models that it has been run with: tiny random weights of the real architectures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness_ext.backends.hf import HFLabelLM
from harness_ext.messages import VIDEO, image_places
from harness_ext.questions import Question
from harness_ext.requests import Request, Response
from mmla_tasks.errors import ModelError
from mmla_tasks.records import Clip

from .asking import answered, one_by_one, prompt_of, request_of
from .tiny_models import FAMILIES, tiny_model

pytestmark = [
    pytest.mark.slow,
    # transformers warns about its own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
torch = pytest.importorskip("torch", reason="the extra `hf` is not installed")

CLIPS = [(320, 240, 12), (640, 360, 16), (160, 120, 3), (240, 320, 9)]
"""Width, height, frames. The third has fewer frames than a model is shown."""
LABELS = ("joke", "ask for help", "ask for opinions")
TEXTS = ["Oh. Really?", "no way, I would never do that to you", "bye", "so what"]
IMAGE_ONLY = ("LLaVA-1.5", "LLaVA-NeXT", "Gemma3")
SMALL = {"dtype": "float32", "num_frames": 4, "max_pixels": 20_000}


@pytest.fixture(scope="module", params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(name, tmp_path_factory.mktemp("tiny"), smollm2)


@pytest.fixture(scope="module")
def lm(folder: Path) -> HFLabelLM:
    return HFLabelLM(str(folder), **SMALL)


@pytest.fixture(scope="module")
def asked(lm: HFLabelLM, drawn_clip: Callable[..., Clip]) -> list[Request]:
    clips = [drawn_clip(i, width=w, height=h, frames=f) for i, (w, h, f) in enumerate(CLIPS)]
    asked = [request_of(lm, "MIntRec", t, i, clip=c) for i, (t, c) in enumerate(zip(TEXTS, clips, strict=True))]
    return [replace(request, labels=LABELS) for request in asked]


@pytest.fixture(scope="module")
def naive(lm: HFLabelLM, asked: list[Request]) -> Any:
    return one_by_one(lm, asked)


@pytest.fixture
def fresh_scorer(lm: HFLabelLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_ext.backends.hf_rank import LabelScorer

    monkeypatch.setattr(lm, "scorer", LabelScorer(lm.model))


def scores_of(answers: list[Response]) -> Any:
    return torch.tensor([list((answer.label_scores or {}).values()) for answer in answers])


@pytest.mark.usefixtures("fresh_scorer")
def test_rank_equals_scoring_each_full_sequence(
    name: str, lm: HFLabelLM, asked: list[Request], naive: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="harness_ext"):
        found = scores_of(answered(lm, asked, answer="rank", batch_size=4))
    print(f"{name}: largest difference {float((found - naive).abs().max()):.1e}")
    torch.testing.assert_close(found, naive, atol=1e-4, rtol=0)
    assert lm.scorer._tree_works
    assert caplog.text == ""


@pytest.mark.usefixtures("fresh_scorer")
def test_a_position_off_by_one_is_noticed_and_the_fallback_is_right(
    name: str,
    lm: HFLabelLM,
    asked: list[Request],
    naive: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = type(lm.scorer).node_positions
    monkeypatch.setattr(type(lm.scorer), "node_positions", lambda *args: right(*args) + 1)
    with torch.inference_mode():
        inputs = [lm._inputs([lm._question(request)], 16) for request in asked]
        shifted = torch.cat([lm.scorer.tree(one, lm._tokens_of(asked[0])) for one in inputs])
    off = (shifted - naive).abs().amax(1)
    print(
        f"{name}: positions off by one, largest difference in each row {float(off.min()):.1e} to {float(off.max()):.1e}"
    )
    assert (off > 1e-4).all()
    with caplog.at_level(logging.WARNING):
        found = scores_of(answered(lm, asked[:2], answer="rank"))
    assert caplog.text.count("scored as a sequence of its own") == 1
    torch.testing.assert_close(found, naive[:2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["generate", "constrained", "rank"])
def test_answers_do_not_depend_on_the_batch_size(lm: HFLabelLM, asked: list[Request], mode: str) -> None:
    one, three = (answered(lm, asked, answer=mode, batch_size=b) for b in (1, 3))
    assert [str(a) for a in one] == [str(a) for a in three]
    assert [a.prompt_tokens for a in one] == [a.prompt_tokens for a in three]
    assert [len((a.frames or {})["indices"]) for a in one] == [4, 4, 3, 4]
    if mode != "generate":
        assert all(str(a) in r.answer_forms for a, r in zip(one, asked, strict=True))


def test_frames_are_seen_in_order(lm: HFLabelLM, asked: list[Request], naive: Any) -> None:
    question = lm._question(asked[0])
    assert question is not None and question.frames is not None
    backwards = replace(question.frames, frames_THWC=question.frames.frames_THWC[::-1].copy())
    with torch.inference_mode():
        scores = lm.scorer.tree(lm._inputs([replace(question, frames=backwards)], 16), lm._tokens_of(asked[0]))
    assert float((scores[0] - naive[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("mode", ["generate", "constrained", "rank"])
def test_texts_and_plain_prompts_are_answered_too(lm: HFLabelLM, drawn_clip: Callable[..., Clip], mode: str) -> None:
    text = request_of(lm, "MELD", "hi")
    plain = replace(request_of(lm, "MELD", "hi", 1, chat=False, clip=drawn_clip(0)), labels=("joy", "fear"))
    said, seen = answered(lm, [text, plain], answer=mode)
    assert said.frames is None and seen.frames is not None
    assert (seen.prompt_tokens or 0) > len(lm.tokenizer(prompt_of("MELD", "hi", video=True)).input_ids)
    if mode != "generate":
        assert str(said) in text.answer_forms and str(seen) in plain.answer_forms


def test_a_run_from_end_to_end(name: str, folder: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    model = ",".join([f"pretrained={folder}", *(f"{key}={value}" for key, value in SMALL.items())])
    ran = mmla(
        "run", "--model", "mmla-hf", "--model_args", model, "--tasks", "mmla_emotion_meld", "--data_dir", "sample",
        "--limit", 2, "--answer", "rank", "--batch_size", 2, "--run_dir", tmp_path,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert "sequence of its own" not in ran.err
    assert ("as images" in ran.out) == (name in IMAGE_ONLY)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mmla"]["tasks"]["mmla_emotion_meld"]["counts"]["unparsed"] == 0
    shown = mmla(
        "show", "mmla_emotion_meld", "--data_dir", "sample", "--n", 1, "--pretrained", folder, "--frames_dir", tmp_path
    )
    assert shown.status == 0 and " tokens and those of the video: " in shown.out


def test_a_prompt_beyond_the_context_is_named(lm: HFLabelLM, asked: list[Request], monkeypatch: Any) -> None:
    monkeypatch.setattr(lm, "max_length", 100)
    with pytest.raises(ModelError, match=r"MIntRec, document 1, is too long") as caught:
        answered(lm, asked[1:2])
    assert "tokens, and up to 8 for the answer" in str(caught.value)


@pytest.mark.parametrize("left", [("tokenizer",), ()])
def test_a_folder_without_processor_is_named(folder: Path, tmp_path: Path, left: tuple[str, ...]) -> None:
    for file in folder.iterdir():
        if file.name in ("config.json", "model.safetensors") or file.name.startswith(left):
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ModelError, match="processor"):
        HFLabelLM(str(tmp_path), **SMALL)


def test_identity_says_how_clips_are_read(name: str, lm: HFLabelLM) -> None:
    identity = lm.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["clips_as"] == ("images" if name in IMAGE_ONLY else "video")


# ---- one family each ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> HFLabelLM:
    return HFLabelLM(str(tiny_model("LLaVA-1.5", tmp_path_factory.mktemp("llava"), smollm2)), **SMALL)


def test_images_stand_as_the_chat_template_puts_them(llava: HFLabelLM) -> None:
    assert llava.apply_chat_template([{"role": "user", "content": "<video>Who?"}]) == "USER: <video>\nWho? ASSISTANT:"
    assert image_places(llava.processor, 3, chat=True) == "<image>\n<image>\n<image>"
    assert image_places(llava.processor, 3, chat=False) == "<image>\n<image>\n<image>\n"
    assert image_places(llava.processor, 1, chat=True) == "<image>"


@pytest.mark.parametrize(
    "image", ["{% set n.i = n.i + 1 %}Picture {{ n.i }}: <image>", "{% if loop.index > 2 %}, {% endif %}<image>"]
)
def test_a_template_that_numbers_images_is_refused(
    llava: HFLabelLM, drawn_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    template = FAMILIES["LLaVA-1.5"].template.replace("<image>\n", image)
    monkeypatch.setattr(llava.processor, "chat_template", "{% set n = namespace(i=0) %}" + template)
    with pytest.raises(ModelError, match="numbers images") as caught:
        answered(llava, [request_of(llava, "MELD", "hi", clip=drawn_clip(0))])
    assert "--no_chat_template" in str(caught.value)


def test_an_image_token_in_a_text_is_a_second_place(llava: HFLabelLM, drawn_clip: Callable[..., Clip]) -> None:
    for chat in (True, False):
        request = request_of(llava, "MELD", "an <image> of me", chat=chat, clip=drawn_clip(0))
        with pytest.raises(ModelError, match="2 places for its video"):
            answered(llava, [request])


def test_a_template_that_drops_the_clip_is_noticed(
    llava: HFLabelLM, drawn_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava.processor, "chat_template", FAMILIES["LLaVA-1.5"].template.replace("<image>\n", ""))
    with pytest.raises(ModelError, match="0 places for its video"):
        answered(llava, [request_of(llava, "MELD", "hi", clip=drawn_clip(0))])


def test_a_tokenizers_own_template_places_the_clip_too(
    llava: HFLabelLM, drawn_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava.processor, "chat_template", None)
    monkeypatch.setattr(llava.tokenizer, "chat_template", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    request = request_of(llava, "MELD", "hi", clip=drawn_clip(0))
    assert request.prompt.startswith(VIDEO + "You are")
    ids = llava._inputs([llava._question(request) or Question(request, "")], 8)["input_ids"]
    assert int((ids == llava.processor.image_token_id).sum()) == 4 * 16


@pytest.mark.parametrize("name_of", ["LLaVA-1.5", "Qwen2.5-VL"])
def test_a_model_without_chat_template_gets_plain_prompts(
    name_of: str, smollm2: Path, tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    folder = tiny_model(name_of, tmp_path / "model", smollm2)
    (folder / "chat_template.jinja").unlink()
    model = ",".join([f"pretrained={folder}", *(f"{key}={value}" for key, value in SMALL.items())])
    ran = mmla(
        "run", "--model", "mmla-hf", "--model_args", model, "--tasks", "mmla_emotion_meld", "--data_dir", "sample",
        "--limit", 2, "--answer", "constrained", "--batch_size", 2, "--run_dir", tmp_path / "run",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mmla"]["chat_template"]["applied"] is False
    assert results["mmla"]["tasks"]["mmla_emotion_meld"]["counts"]["unparsed"] == 0
    rows = (tmp_path / "run" / "samples" / "mmla_emotion_meld.jsonl").read_text().splitlines()
    assert all(json.loads(row)["arguments"][0][0].startswith(VIDEO) for row in rows)


def test_beyond_a_sliding_window_labels_are_scored_one_by_one(
    smollm2: Path, tmp_path: Path, drawn_clip: Callable[..., Clip], caplog: pytest.LogCaptureFixture
) -> None:
    lm = HFLabelLM(str(tiny_model("Gemma3", tmp_path, smollm2)), **SMALL)
    texts = ["hi", "you know what " * 40, "I did " * 60]
    asked = [request_of(lm, "MIntRec", text, i, clip=drawn_clip(i)) for i, text in enumerate(texts)]
    asked = [replace(request, labels=LABELS) for request in asked]
    with caplog.at_level(logging.WARNING):
        found = scores_of(answered(lm, asked, answer="rank"))
    assert caplog.text.count("longer than the sliding window of 200 tokens") == 1
    torch.testing.assert_close(found, one_by_one(lm, asked), atol=1e-4, rtol=0)


def test_positions_do_not_hang_on_the_models_precision(
    smollm2: Path, tmp_path: Path, drawn_clip: Callable[..., Clip]
) -> None:
    """Rounded to bfloat16, 1.575 seconds for two frames put the fourth pair one position too far."""
    folder = str(tiny_model("Qwen2.5-VL", tmp_path, smollm2))
    found = []
    for dtype in ("float32", "bfloat16"):
        lm = HFLabelLM(folder, dtype=dtype, num_frames=10, max_pixels=20_000)
        inputs = lm._inputs([lm._question(request_of(lm, "MELD", "hi", clip=drawn_clip(0, frames=63)))], 8)
        assert str(inputs["pixel_values_videos"].dtype) == f"torch.{dtype}"
        found.append(lm.scorer.positions(inputs))
    torch.testing.assert_close(*found)
