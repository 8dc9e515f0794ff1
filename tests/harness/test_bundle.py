"""Bundles: what is in them, what is not, and that they are read like run folders."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from harness_ext import evaluate
from harness_ext.reports.bundle import MANIFEST, opened_run, write_bundle
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import RunFilesError

from ..clips import clip_bytes

TASK = "mmla_emotion_meld"


@pytest.fixture
def folder(meld_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    for n in range(42):
        (clips / f"MELD_{n // 10}_{n % 10}.mp4").write_bytes(clip_bytes())
    evaluate("mmla-echo", TASK, model_args={"rule": "gold"}, data_dir=str(meld_root), run_dir=path)
    return path


def test_a_bundle_holds_no_texts_and_no_folders(folder: Path, tmp_path: Path) -> None:
    bundle = write_bundle(read_run(folder), tmp_path / "run.zip")
    assert "Sentence number" in (folder / "samples" / f"{TASK}.jsonl").read_text()
    with zipfile.ZipFile(bundle) as archive:
        assert archive.namelist() == sorted([MANIFEST, "results.json", f"samples/{TASK}.jsonl", "scorecard.md"])
        samples = archive.read(f"samples/{TASK}.jsonl").decode()
        row = json.loads(samples.splitlines()[0])
        assert json.loads(archive.read(MANIFEST))["left_out"]
    assert "Sentence number" not in samples and str(tmp_path) not in samples
    assert row["doc"]["clip"]["path"] == "MELD_0_0.mp4"
    assert row["resps"] == [["emotion: neutral"]] and row["prompt_hash"]
    assert not any(tmp_path.glob("*.part"))


def test_a_bundle_is_read_like_its_run_and_has_equal_bytes(folder: Path, tmp_path: Path) -> None:
    run = read_run(folder)
    first, second = (write_bundle(run, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    with opened_run(first) as bundled:
        assert bundled.where == first and bundled.results == run.results
        answers = [row["answer"] for row in bundled.samples[TASK]]
    assert answers == [row["answer"] for row in run.samples[TASK]]
    with opened_run(folder) as whole:
        assert whole.where == folder and whole.results == run.results


def test_what_is_no_bundle_is_said(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    file.write_text("no archive")
    with pytest.raises(RunFilesError, match="no bundle"), opened_run(file):
        pass
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("results.json", "{}")
    with pytest.raises(RunFilesError, match=r"bundle\.json is not in it"), opened_run(file):
        pass
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MANIFEST, '{"schema": 99}')
    with pytest.raises(RunFilesError, match="newer mmla"), opened_run(file):
        pass
    with pytest.raises(RunFilesError, match="cannot be written"):
        write_bundle(read_run(folder), tmp_path / "nowhere" / "run.zip")
