"""`mmla finetune run` from a config to the selected weights: what is learnt, kept, gone on with, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.config import Config
from finetune.run import run
from harness_ext import evaluate
from mmla_tasks.errors import ClipError, ModelError, OtherRunError, RunFolderError

from .learner import tiny_learner

pytestmark = pytest.mark.slow

TASK = "mmla_emotion_meld"


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_learner(tmp_path_factory.mktemp("learner"))


Settings = Callable[..., Config]


@pytest.fixture
def settings(learner: Path, tmp_path: Path) -> Settings:
    """A run of five steps over texts."""

    def make(**changed: Any) -> Config:
        usual = {
            "model": str(learner),
            "tasks": [TASK],
            "data_dir": "sample",
            "modality": "text",
            "output_dir": tmp_path / "run",
            "learning_rate": 1e-3,
            "batch_size": 8,
            "max_steps": 5,
            "save_every": 2,
            "selection": {"every": 5, "rows": 21},
        }
        return Config(**{**usual, **changed})

    return make


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def test_ten_steps_lower_the_loss_and_leave_an_adapter_that_answers(settings: Settings, tmp_path: Path) -> None:
    config = settings(max_steps=10, learning_rate=1e-2)
    record = run(config)
    course = losses(tmp_path / "run")
    assert sum(course[-3:]) < 0.7 * sum(course[:3])
    assert record["method"] == "SFT" and record["selection"]["step"] in (5, 10)
    assert [look["step"] for look in record["selection"]["looks"]] == [0, 5, 10]
    inside = json.loads((tmp_path / "run/adapter/training.json").read_text())
    assert inside == json.loads((tmp_path / "run/training.json").read_text()) == json.loads(json.dumps(record))
    assert (tmp_path / "run/curve.png").stat().st_size > 1000
    args = {"pretrained": config.model, "dtype": "float32", "peft": str(tmp_path / "run/adapter")}
    results = evaluate("mmla-hf", [f"{TASK}_text"], model_args=args, data_dir="sample", answer="rank", limit=8)
    assert results["mmla"]["training"][0]["method"] == "sft"
    assert run(config) == inside  # done: nothing is trained again


def test_dev_accuracy_is_that_of_an_evaluation(settings: Settings, tmp_path: Path, learner: Path) -> None:
    record = run(settings(max_steps=1, selection={"every": 1, "rows": 10_000}))
    from finetune.examples import requests_of, tasks_of
    from harness_ext.backends.hf import HFLabelLM

    task = tasks_of(settings())[f"{TASK}_text"]
    lm = HFLabelLM(str(learner), dtype="float32", answer="rank")
    requests = requests_of(lm, task, task.split("dev").documents)
    answers = dict(lm.answer(requests))
    right = sum(answers[n] == f"{r.answer_prefix} {r.gold}" for n, r in enumerate(requests))
    assert record["selection"]["looks"][0]["acc"] == pytest.approx(right / len(requests))


@pytest.mark.parametrize("how", [{}, {"adapter": "none"}, {"lora": {"dropout": 0.3}}], ids=["lora", "none", "dropout"])
def test_an_interrupted_run_goes_on_exactly(settings: Settings, tmp_path: Path, how: dict[str, Any]) -> None:
    undisturbed = settings(output_dir=tmp_path / "whole", **how)
    run(undisturbed)
    cut = settings(**how)
    with pytest.raises(KeyboardInterrupt):
        run(cut, _Interrupting(3))
    assert (tmp_path / "run/checkpoints/checkpoint-3").is_dir() and not (tmp_path / "run/training.json").exists()
    run(cut)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    assert len(losses(tmp_path / "run")) == 5


class _Interrupting:
    """Presses Ctrl-C in the middle of a step, counted from 1; shows nothing."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, loss: float, rate: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def start(self, step: int, steps: int) -> None: ...
    def looked(self, look: Any, best: bool) -> None: ...
    def say(self, line: str) -> None: ...
    def stop(self) -> None: ...


def test_another_config_for_the_folder_lists_what_differs(settings: Settings) -> None:
    run(settings(max_steps=1))
    with pytest.raises(OtherRunError) as refused:
        run(settings(max_steps=1, learning_rate=5e-4, lora={"rank": 4}))
    assert "learning_rate: 0.001 there, 0.0005 now" in str(refused.value)
    assert "lora.rank: 16 there, 4 now" in str(refused.value)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(settings: Settings, tmp_path: Path) -> None:
    config = settings(adapter="none", learning_rate=1e30, max_grad_norm=1e30, save_every=1, scheduler="constant")
    with pytest.raises(ModelError) as stopped:
        run(config)
    text = str(stopped.value)
    assert "at step 2" in text or "at step 3" in text
    assert f"{TASK}_text id " in text and "kept   checkpoints/checkpoint-" in text
    assert (tmp_path / "run/checkpoints/checkpoint-1/optimizer.pt").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(settings: Settings, tmp_path: Path) -> None:
    """The kernel refuses files above a bound that the second checkpoint needs; real writes fail in real libraries."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from finetune.config import read_config\n"
        "from finetune.run import run; from finetune.output import Output\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "class Filling:\n"
        "    def step(self, step, loss, rate):\n"
        "        if step == 3: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "    def start(self, *a): pass\n"
        "    def looked(self, *a): pass\n"
        "    def say(self, *a): pass\n"
        "    def stop(self): pass\n"
        "from mmla_tasks.errors import RunFolderError\n"
        "try: run(read_config(Path(sys.argv[1])), Filling())\n"
        "except RunFolderError as error: print(error); sys.exit(7)\n"
    )
    import yaml

    config = settings()
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.plain()))
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert ran.returncode == 7, ran.stderr
    assert "the checkpoint of step 4 cannot be written" in ran.stdout and "checkpoint-2" in ran.stdout
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["checkpoint-2"]
    whole = settings(output_dir=tmp_path / "whole")
    run(whole)
    run(config)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_a_killed_run_goes_on(settings: Settings, tmp_path: Path) -> None:
    import yaml

    config = settings(max_steps=40)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.plain()))
    command = [sys.executable, "-m", "harness_ext.cli", "finetune", "run", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run/checkpoints/checkpoint-2").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "going on from step" in ran.stdout and len(losses(tmp_path / "run")) == 40


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A data root with the sample's clips of MUStARD, one of train cut short."""
    from finetune.examples import documents_of, tasks_of

    tasks = tasks_of(Config(model="any", tasks=[VIDEO_TASK], data_dir="sample"))
    documents = {split: documents_of(tasks, split)[VIDEO_TASK] for split in ("train", "dev")}
    folder = Path(documents["train"][0]["clip"]["path"]).parents[1]
    shutil.copytree(folder, tmp_path / "root" / folder.name)
    torn = tmp_path / "root" / folder.name / "video" / Path(documents["train"][3]["clip"]["path"]).name
    torn.write_bytes(torn.read_bytes()[:3000])
    return tmp_path / "root"


VIDEO_TASK = "mmla_speaking_style_mustard"
SEEING: dict[str, Any] = {
    "tasks": [VIDEO_TASK],
    "modality": "text+video",
    "adapter": "none",
    "train_vision": True,
    "frames": {"num_frames": 2, "max_pixels": 112 * 112},
    "selection": {"every": 100, "rows": 4},
}


def test_a_cut_clip_stops_or_is_counted(settings: Settings, clips: Path, tmp_path: Path) -> None:
    rows = len((clips / "MUStARD/train.tsv").read_text().splitlines()) - 1
    seeing = {**SEEING, "data_dir": str(clips), "epochs": 1, "max_steps": None, "batch_size": 16}
    with pytest.raises(ClipError) as stopped:
        run(settings(**seeing))
    name = str(stopped.value).split(" id ")[1].split()[0]
    for policy in ("skip", "text"):
        record = run(settings(**seeing, on_bad_clip=policy, output_dir=tmp_path / policy))
        assert record["bad_clips"]["train"] == [f"{VIDEO_TASK} id {name}"] and record["bad_clips"]["policy"] == policy
        assert record["examples"] == rows


def test_a_killed_worker_is_named_and_the_run_goes_on(settings: Settings, clips: Path, tmp_path: Path) -> None:
    import psutil

    class Killing(_Interrupting):
        def step(self, step: int, loss: float, rate: float) -> None:
            if step == self.at:
                for child in psutil.Process().children():
                    child.kill()
                time.sleep(1)

    seeing = {
        **SEEING,
        "data_dir": str(clips),
        "on_bad_clip": "skip",
        "max_steps": 12,
        "batch_size": 2,
        "save_every": 1,
    }
    with pytest.raises(ModelError, match="a process that makes tensors was killed") as stopped:
        run(settings(**seeing), Killing(2))
    assert "checkpoints/checkpoint-" in str(stopped.value)
    assert run(settings(**seeing))["steps"] == 12


def test_patience_stops_early(settings: Settings, tmp_path: Path) -> None:
    record = run(settings(max_steps=30, learning_rate=1e-9, selection={"every": 1, "rows": 7, "patience": 2}))
    assert record["steps"] == 3 and record["selection"]["step"] == 1  # the first of equals


def test_several_tasks_are_instruction_tuning(settings: Settings, tmp_path: Path) -> None:
    record = run(settings(tasks=[TASK, "mmla_sentiment_mosi"], max_steps=2, selection={"every": 2, "rows": 20}))
    assert record["method"] == "IT" and set(record["data"]) == {f"{TASK}_text", "mmla_sentiment_mosi_text"}
    assert set(record["selection"]["looks"][0]["tasks"]) == set(record["data"])


def test_nothing_can_be_written(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        run(settings(output_dir=tmp_path / "file" / "run"))


def end_at_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run end as if killed when all steps are done and saved."""

    def killed(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.curve.draw", killed)


def test_a_run_that_ended_after_its_last_checkpoint_is_finished(
    settings: Settings, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing = {**SEEING, "data_dir": str(clips), "on_bad_clip": "skip", "max_steps": None, "epochs": 1, "batch_size": 16}
    end_at_the_picture(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(settings(**seeing))
    record = run(settings(**seeing))
    assert record["steps"] > 10 and len(record["bad_clips"]["train"]) == 1  # seen before the interruption


def test_other_data_is_no_data_to_go_on_with(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root/MELD"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = "".join(f"{n}\tThat is {n}.\t{'joy' if n % 2 else 'anger'}\n" for n in range(20))
        (folder / f"{split}.tsv").write_text(f"id\ttext\tlabel\n{rows}")
    end_at_the_picture(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(settings(data_dir=str(tmp_path / "root")))
    (folder / "train.tsv").write_text((folder / "train.tsv").read_text().replace("0.", "zero."))
    with pytest.raises(OtherRunError, match=r"data\.mmla_emotion_meld_text\.train\.sha256"):
        run(settings(data_dir=str(tmp_path / "root")))


def test_long_rows_are_named_before_the_first_step_and_a_larger_limit_is_the_same_run(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="280 of 280 train rows are longer than 40 tokens") as stopped:
        run(settings(max_length=40))
    assert "mmla_emotion_meld_text id " in str(stopped.value) and "and 270 more" in str(stopped.value)
    assert not (tmp_path / "run/log.jsonl").exists()
    assert run(settings(max_length=400))["steps"] == 5


def test_clips_that_cannot_be_laid_together_are_named() -> None:
    import torch

    from finetune.collator import Collator, Row
    from finetune.examples import Example

    class Request:
        task, id = "t", "1"

    rows = [
        Row(
            Example(Request(), (5,)),  # type: ignore[arg-type]
            {"input_ids": torch.ones(1, 4, dtype=torch.int64), "pixel_values_videos": torch.ones(1, frames, 3)},
        )
        for frames in (2, 3)
    ]
    fault = Collator(0)(rows)["fault"]
    assert "unlike numbers of frames" in str(fault) and "num_frames instead of fps" in str(fault)
    assert "fault" not in Collator(0)(rows[:1] * 2)
