from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmla_tasks.documents import Dataset, clip_counts
from mmla_tasks.errors import DataError
from mmla_tasks.sources import SOURCES, SPLITS

EMOTIONS = ["neutral", "joy", "anger"]


def read(folder: Path, split: str = "test", with_clips: bool = False, asked_by: str = "", name: str = "MELD"):
    dataset = Dataset.in_folder(folder, name)
    return dataset.read(split, labels=EMOTIONS, dimension="emotion", with_clips=with_clips, asked_by=asked_by)


def test_all_real_texts_have_the_known_number_of_rows(
    real_texts: Path, labels_of: dict[str, tuple[str, list[str]]]
) -> None:
    total = 0
    for name in SOURCES:
        dataset = Dataset.in_root(real_texts, name)
        dimension, labels = labels_of[name]
        for split in SPLITS:
            if dataset.has(split):
                got = dataset.read(split, labels=labels, dimension=dimension, with_clips=False)
                assert got.difference is None, (name, split)
                total += len(got.documents) if split == "test" else 0
    assert total == 15_710


@pytest.fixture(scope="module")
def labels_of() -> dict[str, tuple[str, list[str]]]:
    from harness_ext.catalogue import Catalogue

    files = Catalogue.load().files.values()
    return {
        str(f.config["dataset"]): (str(f.config["dimension"]), list(f.config["labels"]))
        for f in files
        if not f.is_group
    }


@pytest.mark.parametrize(
    "columns",
    [
        ("id", "text", "label"),
        ("id", "utterance", "emotion"),
        ("ID", "Text", "Label"),
        ("label", "extra", "id", "text"),
    ],
)
def test_column_variants(tmp_path: Path, tsv: Callable[..., Path], columns: tuple[str, ...]) -> None:
    cells = {"id": "1_1", "text": "Hi.", "utterance": "Hi.", "label": "Joy", "emotion": "JOY", "extra": "x"}
    tsv(tmp_path / "test.tsv", [[cells[c.lower()] for c in columns]], columns)
    (document,) = read(tmp_path).documents
    assert document == {"id": "1_1", "text": "Hi.", "label": "joy", "clip": None}


def test_missing_column_lists_those_that_are_there(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(tmp_path / "test.tsv", [("1", "Hi.", "joy")], ("id", "sentence", "label"))
    with pytest.raises(DataError, match="lacks the column text") as caught:
        read(tmp_path)
    assert "id, sentence, label" in str(caught.value)


def test_all_faulty_labels_and_ids_are_told_at_once(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(
        tmp_path / "test.tsv",
        [("1", "a", "joy"), ("2", "b", "glee"), ("1", "c", "joy"), ("", "d", "joy"), ("3", "e", "glee")],
    )
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    said = str(caught.value)
    assert 'label "glee" in 2 rows (first: row 2, line 3, id 2) is not one of: neutral, joy, anger' in said
    assert "id '1' is given 2 times: row 1 (line 2), row 3 (line 4)" in said
    assert "empty id in row 4 (line 5)" in said


def test_absent_split_names_dataset_split_and_who_asked(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(tmp_path / "test.tsv", [("1", "a", "joy")])
    with pytest.raises(DataError, match=r"dataset MELD has no train split, which --num_fewshot 3 needs"):
        read(tmp_path, "train", asked_by="--num_fewshot 3")


def test_a_difference_in_rows_is_said(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(tmp_path / "test.tsv", [("1", "a", "joy")])
    assert read(tmp_path).difference == "1 rows where the released file has 2,610"


def test_clips_are_found_by_prefix_folder_or_id_and_never_opened(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(tmp_path / "test.tsv", [(str(n), "a", "joy") for n in range(5)])
    (tmp_path / "video").mkdir()
    for name in ("MELD_0.mp4", "meld_1.MKV", "2.webm", "MELD_3.txt"):
        (tmp_path / "video" / name).write_bytes(b"not a video")
    documents = read(tmp_path, with_clips=True).documents
    assert clip_counts(documents) == (3, 2)
    clip = documents[0]["clip"]
    assert (
        clip is not None and clip["size"] == 11 and clip["end_seconds"] is None and clip["path"].endswith("MELD_0.mp4")
    )
    missing = documents[3]["clip"]
    assert missing is not None and missing["size"] is None and missing["path"].endswith("video/MELD_3.mp4")


def test_uneven_prefixes_find_their_rows_and_no_others(tmp_path: Path) -> None:
    from mmla_tasks.documents import _clip_files, _clips_by_id

    for name in ("UR-FUNNYv2_408.mp4", "ur_funny_v2_409.mp4", "URFUNNY_410.mp4", "MELD_411.mp4", "UR-FUNNY-v3_412.mp4"):
        (tmp_path / name).write_bytes(b"x")
    by_id = _clips_by_id(_clip_files(str(tmp_path)), ["UR-FUNNY", "UR-FUNNY-v2"])
    assert {id for id in by_id if id.isdigit()} == {"408", "409", "410"}


def test_unknown_dataset_folder_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "MELD").mkdir()
    with pytest.raises(DataError, match="no folder MIntRec") as caught:
        Dataset.in_root(tmp_path, "MIntRec")
    assert "MELD" in str(caught.value)


def test_a_single_tsv_finds_its_train_split_beside_it(tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(tmp_path / "office.tsv", [("1", "a", "joy")])
    tsv(tmp_path / "office.train.tsv", [("2", "b", "anger")])
    dataset = Dataset.of_file(tmp_path / "office.tsv")
    assert dataset.has("train") and not dataset.has("dev")
