from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness_ext import evaluate
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import RunFilesError

TASK = "mmla_emotion_meld_text"


@pytest.fixture
def folder(meld_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    evaluate("mmla-echo", TASK, model_args={"rule": "gold"}, data_dir=str(meld_root), run_dir=path)
    return path


def test_a_run_is_read_back(folder: Path) -> None:
    run = read_run(folder)
    assert list(run.tasks) == [TASK] and run.model == "mmla-echo"
    assert len(run.samples[TASK]) == 42
    assert run.samples[TASK][0]["answer"]["label"] == run.samples[TASK][0]["doc"]["label"]


def fault(path: Path) -> str:
    with pytest.raises(RunFilesError) as caught:
        _ = read_run(path).samples
    return str(caught.value)


def test_what_is_no_run_is_said(folder: Path, tmp_path: Path) -> None:
    assert "there is no folder" in fault(tmp_path / "nowhere")
    assert "inside   run" in fault(tmp_path)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "mmla": {**results["mmla"], "schema": 99}}))
    assert "newer mmla" in fault(folder) and "99" in fault(folder)
    (folder / "results.json").write_text("{")
    assert "cannot be read" in fault(folder)
    (folder / "results.json").write_text("{}")
    assert "no results of mmla" in fault(folder)
    (folder / "results.json").unlink()
    assert "has not finished" in fault(folder)


def test_damaged_samples_are_named_by_line(folder: Path) -> None:
    file = folder / "samples" / f"{TASK}.jsonl"
    text = file.read_text()
    file.write_text(text + '{"doc')
    assert "line 43" in fault(folder)
    file.unlink()
    assert f"{TASK}.jsonl" in fault(folder)
