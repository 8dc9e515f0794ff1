"""Way 2: unmodified lm_eval runs the text tasks as `mmla run` does, and the video tasks with its own `hf-multimodal`."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest

from harness_ext.catalogue import yaml_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TASKS = "mmla_intent_text"
VIDEO_TASKS = ("mmla_intent_mintrec", "mmla_intent_mintrec2")
FRAMES = {"num_frames": 2, "max_pixels": 56 * 56}
Samples = dict[str, list[dict[str, Any]]]


def lm_eval(out: Path, *arguments: str, package: Path | None = None) -> tuple[str, Samples]:
    """Run `lm_eval` in a process of its own, from the folder `package` or as installed.

    Returns:
        What it printed, and its samples per task.
    """
    command = [
        sys.executable, "-m", "lm_eval", "--device", "cpu", *arguments, "--output_path", str(out), "--log_samples",
    ]  # fmt: skip
    path = os.pathsep.join(str(p) for p in (package, ROOT) if p)
    environment = {**os.environ, "MMLA_DATA_DIR": "sample", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]
    samples = {}
    for file in out.rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        samples[file.name.removeprefix("samples_").rsplit("_", 1)[0]] = sorted(rows, key=lambda row: row["doc_id"])
    return done.stdout, samples


def test_same_prompts_and_scores(smollm2: Path, tmp_path: Path) -> None:
    from harness_ext import evaluate

    _, theirs = lm_eval(
        tmp_path, "--include_path", str(yaml_folder()), "--model", "hf",
        "--model_args", f"pretrained={smollm2},dtype=float32", "--tasks", TASKS, "--limit", "5",
        "--gen_kwargs", "max_gen_toks=12", "--apply_chat_template",
    )  # fmt: skip
    ours = evaluate(
        "mmla-hf", TASKS, model_args={"pretrained": str(smollm2), "dtype": "float32"}, device="cpu",
        data_dir="sample", limit=5, gen_kwargs={"max_gen_toks": 12},
    )  # fmt: skip
    assert theirs.keys() == ours["samples"].keys()
    for task, rows in theirs.items():
        assert len(rows) == 5
        for a, b in zip(rows, ours["samples"][task], strict=True):
            assert a["arguments"]["gen_args_0"]["arg_0"] == b["arguments"][0][0]
            assert a["resps"][0][0].strip() == b["resps"][0][0].strip()
            assert (a["filtered_resps"], a["acc"]) == (b["filtered_resps"], b["acc"])


# ---- video -------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Path]:
    """A folder with a copy of lm-eval that the tasks are linked into."""
    from harness_ext.cli.link import link

    found = importlib.util.find_spec("lm_eval")
    assert found and found.submodule_search_locations
    shutil.copytree(found.submodule_search_locations[0], tmp_path / "copied" / "lm_eval", symlinks=True)
    link(tmp_path / "copied" / "lm_eval" / "tasks" / "mmla")
    yield tmp_path / "copied"


@pytest.mark.parametrize("chat", [(), ("--apply_chat_template",)], ids=["plain", "chat"])
def test_video_with_its_own_model(tiny_qwen2_vl: Path, tmp_path: Path, chat: tuple[str, ...]) -> None:
    printed, samples = lm_eval(tmp_path, "--include_path", str(yaml_folder()), *chat, *on_video(tiny_qwen2_vl))
    place = "<|vision_start|><|image_pad|><|vision_end|>\n" if chat else "<image>\n"
    check_video_run(printed, samples, place)


def test_linked_tasks_need_no_include_path(tiny_qwen2_vl: Path, tmp_path: Path, linked: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    printed, samples = lm_eval(out, *on_video(tiny_qwen2_vl), package=linked)
    check_video_run(printed, samples, "<image>\n")


def on_video(model: Path) -> list[str]:
    return [
        "--model", "hf-multimodal", "--model_args", f"pretrained={model},dtype=float32", "--tasks", "mmla_intent",
        "--limit", "2", "--gen_kwargs", "max_gen_toks=4", "--metadata", json.dumps(FRAMES),
    ]  # fmt: skip


def check_video_run(printed: str, samples: Samples, place: str) -> None:
    for task in VIDEO_TASKS:
        assert f"- {task}" in printed
        assert len(samples[task]) == 2
        for row in samples[task]:
            prompt, _, shown = row["arguments"]["gen_args_0"].values()
            assert f"{place * 2}You are presented with a video" in prompt
            assert shown["visual"]["clip"] == row["doc"]["clip"]
            assert shown["visual"]["frames"]["num_frames"] == 2
    for metric in ("acc", "macro_f1", "weighted_f1", "unparsed", "released_acc"):
        assert f"|{metric} " in printed


@pytest.mark.filterwarnings("ignore")  # of lm-eval's and transformers' own
def test_the_model_sees_the_frames_of_decode(tiny_qwen2_vl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.models  # noqa: F401  # registers hf-multimodal
    from lm_eval.api.registry import get_model
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager
    from PIL import Image

    from harness_ext import session
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.video import decode

    monkeypatch.setattr(session, "_backends", WeakSet())  # other tests hold on to models of ours
    lm = get_model("hf-multimodal")(pretrained=str(tiny_qwen2_vl), dtype="float32", device="cpu", batch_size=3)
    encode, seen = lm.tok_batch_multimodal_encode, []

    def noted(strings: list[str], images: list[list[Any]], **kwargs: Any) -> Any:
        encoded = encode(strings, images, **kwargs)
        seen.append(([[np.asarray(image) for image in clip] for clip in images], encoded["pixel_values"]))
        return encoded

    monkeypatch.setattr(lm, "tok_batch_multimodal_encode", noted)
    metadata = {**FRAMES, "data_dir": "sample"}
    manager = TaskManager(include_path=str(yaml_folder()), include_defaults=False, metadata=metadata)
    loaded = manager.load(["mmla_intent_mintrec"])
    task = loaded["tasks"]["mmla_intent_mintrec"]
    task.set_config("generation_kwargs", {"max_gen_toks": 1}, update=True)
    evaluate(lm, loaded, limit=5, apply_chat_template=True, bootstrap_iters=0)
    clips = [instance.request.clip for instance in task.instances]
    decoded = [decode(clip, FramePolicy(**FRAMES)).frames_THWC.tobytes() for clip in clips]
    shown = [np.stack(images).tobytes() for batch, _ in seen for images in batch]
    assert len(set(decoded)) == 5
    assert sorted(shown) == sorted(decoded)  # lm-eval asks in an order of its own
    for batch, pixel_values in seen:
        pictures = [Image.fromarray(frame) for images in batch for frame in images]
        expected = lm.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        assert np.array_equal(pixel_values.numpy(), expected.numpy())


def test_memory_does_not_grow_with_the_requests(
    tmp_path: Path, tiny_qwen2_vl: Path, benchmark_named: Callable[[str], Any]
) -> None:
    """The benchmark's own measure, on a tenth of its requests; frames that stayed would weigh 83 MiB."""
    benchmark = benchmark_named("clip_memory_stock")
    few, many = 64, 320
    data = benchmark.drawn_data(tmp_path / "data", many)
    peaks = [benchmark.in_own_process("lazy", n, tiny_qwen2_vl, data)["peak"] for n in (few, many)]
    frames = (many - few) * benchmark.FRAMES * benchmark.SIDE**2 * 3 / 2**20
    assert frames > 80
    assert peaks[1] - peaks[0] < frames / 2, peaks
