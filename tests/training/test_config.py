"""A config tells all its faults at once; `mmla finetune check` also those that need data and the model's layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.checking import batch_faults
from finetune.config import Config, read_config
from finetune.flags import read_arguments
from finetune.launch.deepspeed import deepspeed_settings
from finetune.mixture import Mixture
from finetune.order import order_of
from finetune.preflight import refuse_uneven_processes
from finetune.selection import chosen_rows
from mmla_tasks.errors import UsageError

GOOD = "model: some/model\ntasks: [mmla_intent_mintrec]\n"


def faults_of(tmp_path: Path, text: str, **flags: object) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_config(file, flags)
    return str(refused.value)


def test_all_faults_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = faults_of(
        tmp_path,
        "tasks: []\nlerning_rate: 1e-4\nlora: {rank: 0}\nepochs: true\ndeepspeed: zero4\nselection:\n  metric: f1\n",
    )
    assert "the config has 7 faults" in text
    assert "line 1   the key `model` is missing" in text
    assert "line 2   unknown key `lerning_rate`   did you mean `learning_rate`?" in text
    for where in ("line 1   `tasks`", "line 3   `lora.rank`", "line 4   `epochs`", "line 5   `deepspeed`"):
        assert where in text
    assert "line 7   `selection.metric`" in text and "'acc' or 'macro_f1'" in text


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD + "learning_rate: 1e-4\nlora: {rank: 8}\n")
    words = "--learning_rate 5e-5 --lora.alpha=64 --tasks mmla_intent mmla_emotion --max_steps 3".split()
    path, flags = read_arguments([str(file), *words])
    config = read_config(path, flags)
    assert config.learning_rate == 5e-5 and config.lora.rank == 8 and config.lora.alpha == 64
    assert config.tasks == ["mmla_intent", "mmla_emotion"] and config.max_steps == 3
    for words in (["[a, b]"], ["a,b"], ["a", "b"], ["[a,", "b]"]):
        assert read_arguments(["--tasks", *words])[1]["tasks"] == ["a", "b"]
    with pytest.raises(UsageError, match="is no key"):
        read_arguments(["--lora.rnk", "8"])


def test_a_config_survives_its_plain_form() -> None:
    config = Config(model="m", tasks=["t"], frames={"num_frames": 3}, report_to=["tensorboard"])  # type: ignore[arg-type]
    assert Config(**config.plain()) == config


def test_contradictions_are_faults(tmp_path: Path) -> None:
    assert "goes with `adapter: lora`" in faults_of(tmp_path, GOOD + "adapter: none\nlora: {rank: 4}\n")
    assert "frames" in faults_of(tmp_path, GOOD + "frames: {num_frames: 4, fps: 1}\n")
    assert "given twice" in faults_of(tmp_path, GOOD + "seed: 1\nseed: 2\n")
    assert "not YAML" in faults_of(tmp_path, "model: [\n")
    assert "goes with `weights" in faults_of(tmp_path, GOOD + "mixture: {temperature: 4}\n")


def test_a_deepspeed_file_that_cannot_split_the_batch(tmp_path: Path) -> None:
    config = Config(model="m", tasks=["t"], batch_size=4, gradient_accumulation=2)
    assert list(batch_faults({"train_batch_size": 16}, config, 2)) == []
    faults = [what for what, _ in batch_faults({"train_batch_size": 12, "gradient_accumulation_steps": 3}, config, 2)]
    assert faults == [
        "the file says 3 where `gradient_accumulation` is 2",
        "train_batch_size 12 cannot be split: a step has 4 x 2 x 2 processes = 16 rows",
    ]


def test_deepspeed_by_name_and_file(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra `finetune` is not installed")
    assert deepspeed_settings("zero3-offload")["zero_optimization"]["offload_param"] == {
        "device": "cpu",
        "pin_memory": False,
    }
    assert "offload_param" not in deepspeed_settings("zero2-offload")["zero_optimization"]
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match="cannot be read"):
        deepspeed_settings(str(tmp_path / "list.json"))


def test_the_order_is_the_same_however_many_processes_share_it() -> None:
    lengths = [(7 * n) % 50 for n in range(100)]
    alone = order_of(Mixture.of([100], seed=3), lengths, steps=25, batch_size=8)
    shared = order_of(Mixture.of([100], seed=3), lengths, steps=25, batch_size=2, accumulation=2, processes=2)
    assert alone.steps == shared.steps
    dealt = [shared.of_process(0), shared.of_process(1)]
    for n, step in enumerate(shared.steps):
        assert sorted(row for batches in dealt for batch in batches[2 * n : 2 * n + 2] for row in batch) == sorted(step)


def test_an_epoch_has_every_row() -> None:
    mixture = Mixture.of([100], seed=3)
    order = order_of(mixture, [1] * 100, steps=mixture.steps_per_epoch(8), batch_size=8)
    assert {row for step in order.steps for row in step} == set(range(100)) and len(order.steps) == 13


def test_batches_of_one_dataset_are_of_like_length() -> None:
    lengths = [(13 * n) % 97 for n in range(200)]
    order = order_of(Mixture.of([200], seed=1), lengths, steps=24, batch_size=8)
    spread = [max(lengths[r] for r in step) - min(lengths[r] for r in step) for step in order.steps]
    assert sum(spread) / len(spread) < 30  # of 97; drawn at random it is near 75


def test_dev_rows_are_stratified_and_seeded() -> None:
    documents = {"a": [{"label": "xyz"[n % 3 if n < 60 else 0]} for n in range(90)], "b": [{"label": "p"}] * 30}
    chosen = chosen_rows(documents, 40, seed=5)
    counts = {label: sum(documents["a"][n]["label"] == label for n in chosen["a"]) for label in "xyz"}
    assert sum(map(len, chosen.values())) == 40 and len(chosen["b"]) == 10
    assert counts["y"] in (6, 7) and counts["z"] in (6, 7) and counts["x"] in (16, 17)
    assert chosen == chosen_rows(documents, 40, seed=5) != chosen_rows(documents, 40, seed=6)
    assert len(chosen_rows(documents, 10_000, seed=5)["a"]) == 90


def test_processes_whose_batches_may_be_unlike_are_refused() -> None:
    seeing, reading = (type("Task", (), {"has_video": has_video})() for has_video in (True, False))
    plain = Config(model="m", tasks=["t"])
    vision = plain.model_copy(update={"adapter": "none", "train_vision": True})
    as_text = vision.model_copy(update={"on_bad_clip": "text"})
    refuse_uneven_processes(vision, {"a": seeing}, 0, 2)
    refuse_uneven_processes(plain, {"a": seeing, "b": reading}, 2, 2)
    refuse_uneven_processes(as_text, {"a": seeing, "b": reading}, 3, 1)
    for config, tasks, stage in (
        (vision, {"a": seeing, "b": reading}, 0),
        (as_text, {"a": seeing}, 0),
        (plain, {"a": seeing, "b": reading}, 3),
    ):
        with pytest.raises(UsageError, match="2 processes would wait for each other"):
            refuse_uneven_processes(config, tasks, stage, 2)
