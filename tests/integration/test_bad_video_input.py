"""Bad clips, bad models and bad arguments through the real command, with a model that sees."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmla_tasks.records import Clip

from ..broken_clips import cut, damage, only_sound

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
TASK = "mmla_speaking_style_mustard"
Ask = Callable[..., Any]


@pytest.fixture
def ask(
    tiny_qwen2_vl: Path,
    mmla: Callable[..., Any],
    tmp_path: Path,
    tsv: Callable[..., Path],
    drawn_clip: Callable[..., Clip],
) -> Ask:
    """`ask(spoil, model_args=)`: a good clip and one that `spoil(path)` has changed, in one run folder."""
    video = tmp_path / "data" / "MUStARD" / "video"
    rows = [("1_1", "A rather longer sentence, asked first.", "sincere"), ("1_2", "Sure.", "sarcastic")]

    def call(spoil: Callable[[Path], object] | None = None, model: Path = tiny_qwen2_vl, **args: Any) -> Any:
        tsv(video.parent / "test.tsv", rows)
        video.mkdir(exist_ok=True)
        for n, (name, _, _) in enumerate(rows):
            shutil.copy(drawn_clip(n)["path"], video / f"MUStARD_{name}.mp4")
        if spoil is not None:
            spoil(video / "MUStARD_1_2.mp4")
        model_args = ",".join(f"{k}={v}" for k, v in {"pretrained": model, "dtype": "float32", **args}.items())
        return mmla(
            "run", "--model", "mmla-hf", "--model_args", model_args, "--tasks", TASK, "--batch_size", 1,
            "--data_dir", tmp_path / "data", "--gen_kwargs", "max_gen_toks=2", "--run_dir", tmp_path / "run",
        )  # fmt: skip

    return call


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this is no video " * 100)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (cut, "the file is cut short"),
        (_overwrite, "the file is not a video"),
        (only_sound, "the file holds audio but no video"),
        (damage, "the decoder gives up"),
    ],
)
def test_a_bad_clip_stops_with_its_name_and_the_same_command_goes_on(
    ask: Ask, spoil: Callable[[Path], None], why: str
) -> None:
    ran = ask(spoil)
    assert ran.status == 2, ran
    assert f"error: clip for {TASK} id 1_2 can't be read" in ran.err, ran.err
    assert "Traceback" not in ran.err
    for part in ("MUStARD_1_2.mp4 (", why, "next", "--on_bad_clip skip"):
        assert part in ran.err, ran.err
    assert ("1 answer is safe in" in ran.err) == (spoil is damage)  # else it stopped before the model was loaded
    mended = ask()
    assert mended.status == 0 and (f"{int(spoil is damage)} answer" in mended.out), mended


def test_an_empty_clip_stops_before_the_model_is_loaded(ask: Ask) -> None:
    ran = ask(lambda path: path.write_bytes(b""), model=Path("nowhere/at/all"))
    assert ran.status == 2
    assert f"clip for {TASK} id 1_2 can't be read" in ran.err and "(0 bytes)" in ran.err


def test_a_clip_of_one_frame_is_a_clip(ask: Ask, drawn_clip: Callable[..., Clip]) -> None:
    ran = ask(lambda path: shutil.copy(drawn_clip(7, frames=1)["path"], path))
    assert ran.status == 0, ran.err


def test_a_prompt_beyond_the_context_names_the_row_and_counts_its_tokens(ask: Ask) -> None:
    ran = ask(max_length=60)
    assert ran.status == 2
    assert f"error: The prompt of {TASK}, document 1_1, is too long for the model" in ran.err, ran.err
    assert "60 tokens" in ran.err and "tokens, and up to 2 for the answer" in ran.err
    assert "fewer frames" in ran.err


def test_a_model_folder_without_its_processor(ask: Ask, tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half a model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_qwen2_vl / name, folder / name)
    ran = ask(model=folder)
    assert ran.status == 2
    assert "half a model" in ran.err and "processor" in ran.err and "Traceback" not in ran.err, ran.err


def test_an_adapter_of_another_base(ask: Ask, smollm2: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(smollm2)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    ran = ask(peft=tmp_path / "adapter")
    assert ran.status == 2
    assert "adapter" in ran.err and "Traceback" not in ran.err, ran.err
    assert "next" in ran.err, ran.err


def test_an_unknown_model_argument_is_told_the_known_one(ask: Ask) -> None:
    ran = ask(num_frame=8)
    assert ran.status == 2
    assert "Unknown model argument 'num_frame'" in ran.err and "did you mean `num_frames`" in ran.err
