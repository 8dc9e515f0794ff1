"""Overlap of train and test: against the known figures of the real texts, and on rows made for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.overlap import TaskRows, overlap
from harness_ext.catalogue import Catalogue
from mmla_tasks.documents import Dataset
from mmla_tasks.records import Clip, Document

FOLDER_OF = {"CH-SIMS-v2.0": "CH-SIMSv2.0"}
"""Folder of a dataset that the facts name otherwise."""


def real_rows(real_texts: Path, dataset: str, split: str) -> TaskRows | None:
    """One split of the real texts; None where it is not to be had."""
    catalogue = Catalogue.load()
    config = next(
        catalogue.files[leaf].config
        for leaf in catalogue.leaves("mmla")
        if catalogue.files[leaf].config["dataset"] == dataset
    )
    files = Dataset.in_root(real_texts, dataset)
    if not files.has(split):
        return None
    dimension = config["dimension"]
    read = files.read(split, labels=config["labels"], dimension=dimension, with_clips=False)
    return TaskRows(config["task"], dataset, dimension, read.documents)


def test_counts_of_every_dataset_are_the_known_ones(shared: Path, real_texts: Path) -> None:
    facts = yaml.safe_load((shared / "reference" / "dataset_facts.yaml").read_text(encoding="utf-8"))
    compared = 0
    for name, fact in facts["datasets"].items():
        dataset = FOLDER_OF.get(name, name)
        test = real_rows(real_texts, dataset, "test")
        assert test is not None
        for split, known in fact["test_rows_also_in"].items():
            rows = real_rows(real_texts, dataset, split)
            if rows is not None:
                (pair,) = overlap([rows], [test]).pairs
                assert (pair.text_and_label, pair.clip) == (known, 0), (dataset, split)
                compared += 1
    assert compared == 12 + 7


def test_clips_of_iemocap_da_stand_in_iemocap(real_texts: Path) -> None:
    """Known: 966 of the 1,884 test rows in train of IEMOCAP, 101 in dev, 331 in test."""
    test = real_rows(real_texts, "IEMOCAP-DA", "test")
    assert test is not None
    for split, known in {"train": 966, "dev": 101, "test": 331}.items():
        emotion = real_rows(real_texts, "IEMOCAP", split)
        assert emotion is not None
        found = overlap([emotion], [test])
        (pair,) = found.pairs
        assert (pair.clip, pair.text_and_label, pair.test_rows) == (known, 0, 1884)
        assert len(found.without(emotion.task)) == len(emotion.documents) - known


def test_excluding_leaves_nothing_in_common(real_texts: Path) -> None:
    names = ["MIntRec", "IEMOCAP", "AnnoMi-client", "AnnoMi-therapist"]
    train = [rows for name in names if (rows := real_rows(real_texts, name, "train"))]
    test = [rows for name in [*names, "IEMOCAP-DA"] if (rows := real_rows(real_texts, name, "test"))]
    found = overlap(train, test)
    kept = [
        TaskRows(rows.task, rows.dataset, rows.dimension, [rows.documents[i] for i in found.without(rows.task)])
        for rows in train
    ]
    assert all(len(after.documents) < len(before.documents) for after, before in zip(kept, train, strict=True))
    assert overlap(kept, test).found == []


def row(id: str, text: str, label: str, clip: Clip | None = None) -> Document:
    return Document(id=id, text=text, label=label, clip=clip)


def rows_of(task: str, dataset: str, dimension: str, *documents: Document) -> TaskRows:
    return TaskRows(task, dataset, dimension, documents)


@pytest.mark.parametrize(
    ("text", "label", "dimension", "same"),
    [
        ("Yeah.", "joy", "emotion", True),
        (" Yeah. ", "Joy", "emotion", True),
        ("yeah.", "joy", "emotion", False),
        ("Yeah", "joy", "emotion", False),
        ("Yeah.", "anger", "emotion", False),
        ("Yeah.", "joy", "intent", False),
    ],
)
def test_text_and_label_of_one_dimension(text: str, label: str, dimension: str, same: bool) -> None:
    train = rows_of("a", "Mine", "emotion", row("1", "Other.", "joy"), row("2", "Yeah.", "joy"))
    test = rows_of("b", "Yours", dimension, row("9", text, label))
    found = overlap([train], [test])
    assert found.pairs[0].text_and_label == same
    assert found.without("a") == ([0] if same else [0, 1])


@pytest.mark.parametrize(("dataset", "same"), [("MELD", True), ("MELD-DA", True), ("IEMOCAP", False), ("Mine", False)])
def test_equal_ids_are_one_clip_in_the_same_recordings(dataset: str, same: bool) -> None:
    train = rows_of("a", "MELD", "emotion", row("3_4", "Hi.", "joy"))
    test = rows_of("b", dataset, "dialogue act", row("3_4", "Hi.", "greeting"))
    assert overlap([train], [test]).pairs[0].clip == same


def clip(folder: Path, name: str, content: bytes) -> Clip:
    path = folder / name
    path.write_bytes(content)
    return Clip(
        path=str(path), start_seconds=0.0, end_seconds=None, size=len(content), mtime_ns=path.stat().st_mtime_ns
    )


def test_files_with_the_same_bytes_are_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "cache"))
    train = rows_of(
        "a",
        "Mine",
        "emotion",
        row("1", "Hi.", "joy", clip(tmp_path, "a.mp4", b"same bytes")),
        row("2", "Ho.", "joy", clip(tmp_path, "b.mp4", b"same size!")),
        row("3", "Hm.", "joy", clip(tmp_path, "c.mp4", b"another size")),
    )
    test = rows_of(
        "b",
        "Yours",
        "intent",
        row("8", "Hi.", "greet", clip(tmp_path, "x.mp4", b"same bytes")),
        row("9", "Ha.", "greet", clip(tmp_path, "y.mp4", b"other size")),
    )
    found = overlap([train], [test])
    assert found.pairs[0].clip == 1
    assert found.without("a") == [1, 2]
    part = row("7", "Hi.", "greet", {**test.documents[0]["clip"], "end_seconds": 1.5})
    assert overlap([train], [rows_of("c", "Theirs", "intent", part)]).found == []


def some() -> tuple[Sequence[TaskRows], Sequence[TaskRows]]:
    emotion = rows_of("emotion_x", "X", "emotion", row("1", "No.", "joy"), row("2", "Yeah.", "joy"))
    tests = rows_of("emotion_x", "X", "emotion", row("1", "Ah.", "joy"), row("8", "Yeah.", "joy"), row("9", "B", "joy"))
    return [emotion], [tests]


@pytest.mark.parametrize("excluded", [True, False])
def test_facts_are_plain(excluded: bool) -> None:
    facts: dict[str, Any] = overlap(*some()).facts(excluded=excluded)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["tasks"] == {"emotion_x": {"train_rows": 2, "overlapping": 2}}
    assert facts["pairs"] == [
        {"train": "emotion_x", "test": "emotion_x", "test_rows": 3, "text_and_label": 1, "clip": 1, "train_rows": 2}
    ]
    assert facts["excluded"] == excluded


def test_the_report_names_the_pairs_with_something_in_common() -> None:
    train, test = some()
    apart = rows_of("emotion_y", "Y", "emotion", row("1", "Zzz.", "joy"))
    title, pair, end = overlap([*train, apart], test).report(excluded=False)
    assert pair == "  of 3 of emotion_x, in its own train: 1 same text and label, 1 same clip"
    assert end == "2 of 3 train rows are trained on; exclude_test_overlap leaves them out", (title, end)
