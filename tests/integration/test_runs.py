"""Whole runs with real backends: a real language model, and a tiny video model over all twelve tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext.catalogue import Catalogue

from ..broken_clips import damage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def test_a_video_model_answers_all_twelve_tasks(tiny_qwen2_vl: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    ran = mmla(
        "run", "--model", "mmla-hf", "--model_args", f"pretrained={tiny_qwen2_vl},dtype=float32,num_frames=3",
        "--tasks", "mmla", "--data_dir", "sample", "--limit", 3, "--gen_kwargs", "max_gen_toks=4", "--batch_size", 2,
        "--run_dir", tmp_path,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    results = json.loads((tmp_path / "results.json").read_text())
    leaves = Catalogue.load().leaves("mmla")
    assert list(results["mmla"]["tasks"]) == leaves
    assert results["mmla"]["frame_policy"]["num_frames"] == 3
    assert {"torch", "transformers", "av"} <= results["mmla"]["versions"].keys()
    assert "sample data, not a benchmark score" in ran.out
    for leaf in leaves:
        rows = [json.loads(line) for line in (tmp_path / "samples" / f"{leaf}.jsonl").read_text().splitlines()]
        assert len(rows) == 3
        for row in rows:
            assert row["response"]["frames"]["indices"] == [0, 5, 11]
            assert row["arguments"][0][0].count("<|video_pad|>") == 1 and "<video>" not in row["arguments"][0][0]
            assert row["response"]["prompt_tokens"] > 50 and row["response"]["new_tokens"] <= 4


def test_a_clip_that_breaks_while_it_is_read_follows_the_policy(
    tiny_qwen2_vl: Path, mmla: Callable[..., Any], tmp_path: Path, tsv: Callable[..., Path]
) -> None:
    """Two clips: one drawn, one whose pictures are damaged. Under `error` the good answer is kept in the journal."""
    from mmla_tasks.root import DataRoot

    sample = DataRoot.choose("sample").dataset("MUStARD", labels_of=_labels, with_clips=True)
    split = sample.read("test", labels=_labels()["MUStARD"], dimension="speaking style", with_clips=True)
    good = split.documents[0]["clip"]
    assert good is not None
    folder = tmp_path / "data" / "MUStARD"
    tsv(
        folder / "test.tsv",
        [("1_1", "A rather longer sentence, asked first.", "sincere"), ("1_2", "Sure.", "sarcastic")],
    )
    (folder / "video").mkdir()
    (folder / "video" / "MUStARD_1_1.mp4").write_bytes(Path(good["path"]).read_bytes())
    (folder / "video" / "MUStARD_1_2.mp4").write_bytes(Path(good["path"]).read_bytes())
    damage(folder / "video" / "MUStARD_1_2.mp4")
    command = [
        "run", "--model", "mmla-hf", "--model_args", f"pretrained={tiny_qwen2_vl},dtype=float32", "--batch_size", 1,
        "--tasks", "mmla_speaking_style_mustard", "--data_dir", tmp_path / "data", "--gen_kwargs", "max_gen_toks=2",
    ]  # fmt: skip
    stopped = mmla(*command, "--run_dir", tmp_path / "error")
    assert stopped.status == 2 and "mmla_speaking_style_mustard" in stopped.err and "MUStARD_1_2.mp4" in stopped.err
    assert "1 answer is safe" in stopped.err
    for policy, asked in (("skip", 1), ("text", 2)):
        ran = mmla(*command, "--on_bad_clip", policy, "--run_dir", tmp_path / policy)
        assert ran.status == 0, ran.err
        block = json.loads((tmp_path / policy / "results.json").read_text())["mmla"]["tasks"][
            "mmla_speaking_style_mustard"
        ]
        assert block["counts"]["asked"] == asked


def _labels() -> dict[str, list[str]]:
    from harness_ext.catalogue import packaged_labels

    return packaged_labels()


def test_a_text_model_on_a_video_task_names_the_text_task(smollm2: Path, mmla: Callable[..., Any]) -> None:
    ran = mmla(
        "run",
        "--model",
        "mmla-hf",
        "--model_args",
        f"pretrained={smollm2}",
        "--tasks",
        "mmla_intent",
        "--data_dir",
        "sample",
    )
    assert ran.status == 2
    assert "the model takes no video, which mmla_intent_mintrec shows" in ran.err
    assert "--tasks mmla_intent_text" in ran.err


def test_no_model_is_named(mmla: Callable[..., Any]) -> None:
    ran = mmla("run", "--model", "mmla-hf", "--tasks", "mmla_intent_text", "--data_dir", "sample")
    assert ran.status == 2 and "mmla-hf needs a model" in ran.err and "pretrained=" in ran.err


def test_a_gguf_file_is_the_model_that_was_made_from_it(
    smollm2: Path, mmla: Callable[..., Any], tmp_path: Path
) -> None:
    from harness_ext.models import smollm2_gguf

    for name, pretrained in (("gguf", smollm2_gguf()), ("folder", smollm2)):
        ran = mmla(
            "run", "--model", "mmla-hf", "--model_args", f"pretrained={pretrained},dtype=float32", "--limit", 2,
            "--tasks", "mmla_speaking_style_mustard_text", "--data_dir", "sample", "--answer", "rank",
            "--run_dir", tmp_path / name,
        )  # fmt: skip
        assert ran.status == 0, ran.err
    rows = [
        [json.loads(line) for line in (tmp_path / name / "samples" / "mmla_speaking_style_mustard_text.jsonl").open()]
        for name in ("gguf", "folder")
    ]
    for a, b in zip(*rows, strict=True):
        assert a["response"]["label_scores"] == pytest.approx(b["response"]["label_scores"], abs=1e-4)


@pytest.mark.parametrize("mode", ["rank", "constrained"])
def test_a_real_model_twice_gives_equal_bytes_and_every_answer_parses(
    smollm2: Path, mmla: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    for name in ("a", "b"):
        ran = mmla(
            "run", "--model", "mmla-hf", "--model_args", f"pretrained={smollm2},dtype=float32", "--batch_size", 4,
            "--tasks", "mmla_emotion_text", "--data_dir", "sample", "--limit", 4, "--answer", mode,
            "--run_dir", tmp_path / name,
        )  # fmt: skip
        assert ran.status == 0, ran.err
    for file in ("scorecard.md", "samples/mmla_emotion_meld_text.jsonl", "run.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    a, b = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    for results in (a, b):
        del results["date"], results["timings"]
    assert a == b
    assert all(block["counts"]["unparsed"] == 0 for block in a["mmla"]["tasks"].values())
    assert a["mmla"]["chat_template"]["applied"] is True and a["mmla"]["answer"] == mode


def test_the_demo_reads_nothing_but_the_folder_of_the_model(tmp_path: Path) -> None:
    """On a fresh machine the model is converted, and DeepSpeed, where it is installed, prints to standard output."""
    from harness_ext.models import smollm2_gguf

    gguf = smollm2_gguf()
    shutil.copytree(gguf if gguf.is_dir() else gguf.parent, tmp_path / "models/smollm2-gguf")
    environment = {**os.environ, "MMLA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "harness_ext.models"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert told == f"{tmp_path / 'models/smollm2'}\n"
