"""`mmla-predictions` scores the CSV files that the released code writes, and says all that does not fit at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.catalogue import Catalogue
from harness_ext.released_csv import ReleasedAnswer, is_released_csv, read_released_csv
from harness_ext.reports.benchmark import task_ids
from mmla_tasks.errors import DataError
from mmla_tasks.sources import SOURCES
from mmla_tasks.tsv import read_table

HEADER = ("Video", "Task", "Pred", "Label")
Row = Sequence[str]
MELD = [
    ("MELD_0_0.mp4", "emotion", "emotion: neutral", "emotion: neutral"),
    ("MELD_0_1.mp4", "emotion", 'I would say "joy",\nsurely', "surprise"),
    ("MELD_0_2.mp4", "emotion", "", "emotion: Fear"),
]
DATA = [("0_0", "Hi.", "neutral"), ("0_1", "Oh!", "surprise"), ("0_2", "No.", "fear")]


def write(path: Path, rows: Sequence[Row], header: Row = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def scored(answers: Path, root: Path, tasks: str = "mmla_emotion_meld_text") -> dict[str, Any]:
    return evaluate("mmla-predictions", tasks, model_args={"answers": str(answers)}, data_dir=str(root))


def fault(answers: Path, root: Path, tasks: str = "mmla_emotion_meld_text") -> str:
    with pytest.raises(DataError) as caught:
        scored(answers, root, tasks)
    return str(caught.value)


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    return data_root(MELD=DATA)


def test_a_file_is_scored(root: Path, tmp_path: Path) -> None:
    results = scored(write(tmp_path / "MELD_emotion_results.csv", MELD), root)
    rows = results["samples"]["mmla_emotion_meld_text"]
    assert [row["resps"][0][0] for row in rows] == [row[2] for row in MELD]
    assert [row["answer"]["outcome"] for row in rows] == ["matched", "matched", "empty"]
    assert results["results"]["mmla_emotion_meld_text"]["acc,none"] == pytest.approx(1 / 3)
    assert results["mmla"]["model"]["name"] == "MELD_emotion_results"


def test_a_folder_is_scored(data_root: Callable[..., Path], tmp_path: Path) -> None:
    root = data_root(MELD=DATA, MUStARD=[("1_2", "Great.", "sarcastic")])
    write(tmp_path / "released" / "MELD_emotion_results.csv", MELD)
    row = ("MUStARD_1_2.mp4", "speaking_style", "speaking style: sarcastic", "speaking style: sarcastic")
    write(tmp_path / "released" / "MUStARD_speaking_style_results.csv", [row])
    results = scored(tmp_path / "released", root, "mmla_emotion_meld_text,mmla_speaking_style_mustard_text")
    assert results["results"]["mmla_speaking_style_mustard_text"]["acc,none"] == 1
    (tmp_path / "empty").mkdir()
    assert "holds no CSV" in fault(tmp_path / "empty", root)


def test_the_same_answers_as_jsonl_score_the_same(root: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"task": "mmla_emotion_meld_text", "id": row[0][5:-4], "response": row[2]}) for row in reversed(MELD)
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    from_csv, from_jsonl = (scored(write(tmp_path / "a.csv", MELD), root), scored(tmp_path / "answers.jsonl", root))
    assert from_csv["results"] == from_jsonl["results"]


def _word(task_id: str) -> str:
    """The released code's word for a task's dimension, such as ``dialogue_act``."""
    return str(Catalogue.load().files[task_id].config["dimension"]).replace(" ", "_")


@pytest.mark.parametrize("dataset", SOURCES)
def test_clip_names_of_every_dataset(dataset: str) -> None:
    leaf = next(task for task, folder in task_ids().items() if folder == dataset)
    word = _word(leaf)
    for prefix in {SOURCES[dataset].clip_prefix, dataset}:
        for shown in (f"{prefix}_12_a.3.mp4", f"/data/video/{prefix}_12_a.3.MP4", rf"D:\video\{prefix}_12_a.3.mp4"):
            ((_, answer),) = read_released_csv(f"Video,Task,Pred,Label\n{shown},{word},x,{word}: a_b\n")
            assert answer == ReleasedAnswer((leaf, f"{leaf}_text"), "12_a.3", "x", "a b")


def test_ids_of_the_real_test_sets_are_found(real_texts: Path) -> None:
    """Every clip name that the released preparation would write leads back to its document."""
    for task_id, dataset in task_ids().items():
        ids = [row[0] for row in read_table(real_texts / dataset / "test.tsv").rows]
        text = "".join(f"{SOURCES[dataset].clip_prefix}_{doc_id}.mp4,{_word(task_id)},x,\n" for doc_id in ids)
        found = [answer for _, answer in read_released_csv("Video,Task,Pred,Label\n" + text)]
        assert [a.id for a in found if isinstance(a, ReleasedAnswer)] == ids, dataset


def test_the_header_decides() -> None:
    assert is_released_csv("Video,Task,Pred,Label\n") and is_released_csv('id,"Video", Task,Pred,Label\r\n1,2')
    assert not is_released_csv('{"task": "Video,Task,Pred,Label"}') and not is_released_csv("")


def test_a_byte_order_mark_and_other_columns_do_no_harm(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("7", *row) for row in MELD], ("index", *HEADER))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert scored(path, root)["results"]["mmla_emotion_meld_text"]["acc,none"] == pytest.approx(1 / 3)


def test_all_faults_of_rows_at_once(root: Path, tmp_path: Path) -> None:
    rows: list[Row] = [
        *MELD,
        ("clip.mp4", "emotion", "joy", "emotion: joy"),
        ("MELD_0_3.mp4", "sentiment", "neutral", "neutral"),
        ("MELD_0_4.mp4", "emotion"),
        MELD[0],
    ]
    said = fault(write(tmp_path / "a.csv", rows), root)
    assert "line 6: Video 'clip.mp4' starts with no dataset's name" in said
    assert "line 7: Task 'sentiment', and MMLA asks for the emotion of MELD" in said
    assert "line 8: lacks Pred, Label" in said
    assert "answered twice" in said and "mmla_emotion_meld id 0_0 (line 9)" in said


def test_rows_that_do_not_fit_the_documents_are_listed(root: Path, tmp_path: Path) -> None:
    rows = [
        ("MELD_0_0.mp4", "emotion", "joy", "emotion: anger"),
        ("MELD_0_2.mp4", "emotion", "joy", "emotion: fear"),
        ("MELD_9_9.mp4", "emotion", "joy", "emotion: joy"),
    ]
    said = fault(write(tmp_path / "a.csv", rows), root)
    assert "1 missing" in said and "0_1" in said and "1 unknown" in said and "9_9" in said
    assert "1 with another gold label" in said and "0_0 (anger in the file, neutral in the data)" in said


def test_what_csv_cannot_hold_is_said(root: Path, tmp_path: Path) -> None:
    path, before = (
        write(tmp_path / "a.csv", [*MELD[:1], (*MELD[1][:2], "x" * 2000, "surprise")]),
        csv.field_size_limit(1000),
    )
    try:
        assert "no CSV from here on: field larger than field limit" in fault(path, root)
    finally:
        csv.field_size_limit(before)
    path.write_bytes(path.read_bytes()[:-20] + b"\xff")
    assert "not UTF-8" in fault(path, root)
    assert "is not there" in fault(tmp_path / "none.csv", root)


def test_golden_answers_score_as_the_released_code_scores_them(shared: Path, tsv: Any, tmp_path: Path) -> None:
    """Real answers through the released code's own file format: its parse and its accuracy come out."""
    lines = (shared / "golden" / "MIntRec.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    tsv(tmp_path / "data" / "MIntRec" / "test.tsv", [(str(n), "Words.", a["label"]) for n, a in enumerate(answers)])
    rows = [(f"MIntRec_{n}.mp4", "intent", a["response"], f"intent: {a['label']}") for n, a in enumerate(answers)]
    path, task = write(tmp_path / "MIntRec_intent_results.csv", rows), "mmla_intent_mintrec_text"
    results = scored(path, tmp_path / "data", task)
    said = [row["answer"]["released"] for row in results["samples"][task]]
    assert said == [a["released_code_parses"] for a in answers]
    percent = json.loads((shared / "golden" / "MIntRec.metrics.json").read_text("utf-8"))["percent"]["all"]
    assert 100 * results["results"][task]["released_acc,none"] == pytest.approx(percent["ACC"], abs=0.005)
