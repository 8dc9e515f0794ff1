"""A tiny video model learns the drawn sample from its pictures alone, through `mmla finetune run` and `mmla run`.

In the sample equal texts carry every label equally often, so that who only reads is right by chance.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune.config import Config
from finetune.run import run
from harness_ext import evaluate
from harness_ext.catalogue import packaged_labels
from mmla_tasks.documents import Document
from mmla_tasks.root import DataRoot
from tests.media.opens import Opens

from .learner import tiny_learner

pytestmark = pytest.mark.slow

TEST_ROWS = 98
"""Of a test split: 14 of each of seven labels, 49 of each of two."""
FRAMES = {"num_frames": 2, "max_pixels": 112 * 112}
LEARNT, CHANCE = 0.90, 0.10
"""Accuracy that video must reach; how far from chance who sees nothing of use may be."""


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_learner(tmp_path_factory.mktemp("learner"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def keeping_frames(_own_environment: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(cache))
    monkeypatch.setenv("MMLA_FRAME_CACHE_GB", "1")


def learnt(model: Path, task: str, folder: Path, *, data_dir: Path | str, reporter: Any = None, **config: Any) -> Path:
    """Train all weights of a model on a task, and give the folder of the selected model."""
    settings = {
        "adapter": "none",
        "train_vision": True,
        "frames": FRAMES,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "dtype": "float32",
        "selection": {"every": 1000, "rows": 48},  # the last step is looked at anyway
        **config,
    }
    run(Config(model=str(model), tasks=[task], data_dir=str(data_dir), output_dir=folder, **settings), reporter)
    return folder / "model"


def accuracy(model: Path, task: str, data_dir: Path | str) -> float:
    """Accuracy on test by the ranking of labels, as `mmla run` has it."""
    frames = {} if task.endswith("_text") else FRAMES
    args = {"pretrained": str(model), "dtype": "float32", **frames}
    results = evaluate("mmla-hf", [task], model_args=args, data_dir=str(data_dir), answer="rank", batch_size=16)
    return float(results["results"][task]["acc,none"])


def documents_of_test(dataset: str, dimension: str, sample: str) -> list[Document]:
    found = DataRoot.choose(sample).dataset(dataset, labels_of=packaged_labels, with_clips=True)
    labels = packaged_labels()[dataset]
    return list(found.read("test", labels=labels, dimension=dimension, with_clips=True).documents)


def with_shuffled_clips(documents: list[Document], dataset: str, root: Path) -> Path:
    """Write a data root with the same test rows, where the clips of every label are dealt to all labels evenly.

    Row n of label k shows the clip of row n of label k + n: so what a clip shows says nothing of its row's label.
    """
    rows: dict[str, list[Document]] = {}
    for document in documents:
        rows.setdefault(document["label"], []).append(document)
    labels = list(rows)
    shown = {
        document["id"]: rows[labels[(k + n) % len(labels)]][n]
        for k, label in enumerate(labels)
        for n, document in enumerate(rows[label])
    }
    return with_clips_of(documents, shown, dataset, root)


def with_clips_of(documents: list[Document], shown: Mapping[str, Document], dataset: str, root: Path) -> Path:
    """Write a data root with these test rows, each with the clip of the document that `shown` has under its id."""
    videos = root / dataset / "video"
    videos.mkdir(parents=True)
    for document in documents:
        shutil.copy(shown[document["id"]]["clip"]["path"], videos / Path(document["clip"]["path"]).name)
    lines = ["id\ttext\tlabel", *("\t".join((d["id"], d["text"], d["label"])) for d in documents)]
    (root / dataset / "test.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("task", "dataset", "dimension", "epochs"),
    [("mmla_speaking_style_mustard", "MUStARD", "speaking style", 5), ("mmla_emotion_meld", "MELD", "emotion", 10)],
    ids=["two labels", "seven labels"],
)
def test_video_is_really_used(
    learner: Path, tmp_path: Path, task: str, dataset: str, dimension: str, epochs: int
) -> None:
    sample, chance = f"sample:{TEST_ROWS}", 1 / len(packaged_labels()[dataset])
    seeing = learnt(learner, task, tmp_path / "seeing", data_dir=sample, epochs=epochs)
    assert accuracy(seeing, task, sample) >= LEARNT
    shuffled = with_shuffled_clips(documents_of_test(dataset, dimension, sample), dataset, tmp_path / "shuffled")
    assert accuracy(seeing, task, shuffled) == pytest.approx(chance, abs=CHANCE)
    reading = learnt(learner, task, tmp_path / "reading", data_dir=sample, epochs=epochs, modality="text")
    assert accuracy(reading, f"{task}_text", sample) == pytest.approx(chance, abs=CHANCE)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts who opens a file only on Linux")
def test_from_the_second_epoch_on_no_video_file_is_opened(learner: Path, tmp_path: Path) -> None:
    """Nor by looks at dev, nor by an evaluation of the same clips afterwards."""
    task, rows, batch = "mmla_speaking_style_mustard", 32, 8
    documents = documents_of_test("MUStARD", "speaking style", "sample:32")
    root = with_clips_of(documents, {d["id"]: d for d in documents}, "MUStARD", tmp_path / "root")
    for split in ("train", "dev"):
        shutil.copy(root / "MUStARD" / "test.tsv", root / "MUStARD" / f"{split}.tsv")
    with Opens(root / "MUStARD" / "video") as opens:
        by_step: list[Counter[str]] = []
        model = learnt(
            learner,
            task,
            tmp_path / "run",
            reporter=reporter_that(lambda: by_step.append(opens.since_last())),
            data_dir=root,
            epochs=3,
            batch_size=batch,
            selection={"every": 4, "rows": 4},
        )
        accuracy(model, task, root)
        assert not opens.since_last(), "after the last step files were opened"
    epoch = rows // batch
    assert len(by_step) == 3 * epoch
    assert len(sum(by_step[:epoch], Counter())) == rows
    assert not sum(by_step[epoch:], Counter())


def reporter_that(notes: Callable[[], None]) -> Any:
    """Calls `notes` at the end of every step."""
    from finetune.trainer import Reporter

    class Noting(Reporter):
        def step(self, step: int, loss: float, rate: float) -> None:
            notes()

    return Noting()
