"""`--on_bad_clip`: 300 clips of which every tenth is broken, in five ways, through a whole run with `mmla-echo`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness_ext import evaluate
from harness_ext.run import RunOptions, run
from mmla_tasks.errors import ClipError

from ..broken_clips import TASK, WAYS, partly_broken, without

ERRORS = {"rule": "gold", "error_rate": 0.4}


class Data(NamedTuple):
    root: Path
    broken: dict[str, str]
    """Id -> fault."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("data") / "bad"
    return Data(root, partly_broken(root, 300))


@pytest.fixture(scope="module")
def good_answers(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a run without the bad clips."""
    root = without(data.root, set(data.broken), tmp_path_factory.mktemp("good") / "good")
    return answers_of(evaluate("mmla-echo", TASK, model_args=ERRORS, data_dir=str(root)))


@pytest.fixture(scope="module", params=["skip", "text"])
def ran(request: pytest.FixtureRequest, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    options: dict[str, Any] = {"model_args": ERRORS, "data_dir": str(data.root), "on_bad_clip": request.param}
    return request.param, folder, evaluate("mmla-echo", TASK, run_dir=folder, **options)


def answers_of(results: dict[str, Any]) -> dict[str, str]:
    return {row["doc"]["id"]: row["resps"][0][0] for row in results["samples"][TASK]}


def test_it_completes_and_the_good_ones_are_answered_as_without_the_bad(
    ran: Any, data: Data, good_answers: dict[str, str]
) -> None:
    _, _, results = ran
    assert len(data.broken) == 30 and set(data.broken.values()) == set(WAYS)
    assert {i: a for i, a in answers_of(results).items() if i not in data.broken} == good_answers


def test_counts_ids_and_accuracies_stand_in_the_results(ran: Any, data: Data) -> None:
    policy, _, results = ran
    block, scores = results["mmla"]["tasks"][TASK], results["results"][TASK]
    rows = {row["doc"]["id"]: row for row in results["samples"][TASK]}
    right = {i for i, row in rows.items() if row.get("acc")}
    asked = 270 if policy == "skip" else 300
    assert block["bad_clips"] == data.broken
    assert (block["counts"]["rows"], block["counts"]["asked"]) == (300, asked)
    assert block["counts"]["skipped" if policy == "skip" else "as_text"] == 30
    assert scores["acc,none"] == pytest.approx(len(right) / asked)
    assert block["acc_all_rows"] == pytest.approx(len(right) / 300)
    assert block["acc_with_video"] == pytest.approx(len(right - data.broken.keys()) / 270)
    assert (block["acc_all_rows"] < scores["acc,none"]) == (policy == "skip")
    assert all(rows[i]["response"]["clip_fault"] == fault for i, fault in data.broken.items())


def test_screen_score_card_and_report_name_the_accuracies_apart(
    ran: Any, mmla: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    policy, folder, results = ran
    acc, over_all = results["results"][TASK]["acc,none"], results["mmla"]["tasks"][TASK]["acc_all_rows"]
    told = {
        "skip": f"accuracy {100 * acc:.1f} over the 270 answered rows; {100 * over_all:.1f} over all 300",
        "text": f"accuracy {100 * acc:.1f} over the 300 answered rows; ",
    }[policy]
    assert mmla("report", folder).status == 0
    for text in ((folder / "scorecard.md").read_text(), (folder / "report" / "report.html").read_text()):
        assert told in text and "cut_short" in text
    assert mmla("verify", folder).status == 0


def test_verify_finds_a_bad_clip_that_was_made_up(ran: Any, mmla: Callable[..., Any], tmp_path: Path) -> None:
    _, folder, results = ran
    tampered = Path(shutil.copytree(folder, tmp_path / "run"))
    good = next(i for i in answers_of(results) if i not in results["mmla"]["tasks"][TASK]["bad_clips"])
    recorded = json.loads((tampered / "results.json").read_text())
    recorded["mmla"]["tasks"][TASK]["bad_clips"][good] = "missing"
    recorded["mmla"]["tasks"][TASK]["acc_all_rows"] += 0.01
    (tampered / "results.json").write_text(json.dumps(recorded))
    said = mmla("verify", tampered)
    assert said.status != 0
    assert f"{TASK} id {good}: a bad clip is recorded" in said.out and "acc_all_rows" in said.out


def test_under_error_it_stops_before_the_model_and_names_every_fault(mmla: Callable[..., Any], data: Data) -> None:
    ran = mmla(
        "run", "--model", "mmla-hf", "--model_args", "pretrained=/nowhere", "--tasks", TASK, "--data_dir", data.root
    )
    assert ran.status == 2 and "/nowhere" not in ran.err
    first = next(iter(data.broken))
    assert f"clip for {TASK} id {first} is missing" in ran.err
    assert "29 more clips of 300 are bad" in ran.err
    assert all(name in ran.err for name in data.broken)
    assert "mmla data download MELD --repair" in ran.err and "--on_bad_clip skip" in ran.err


def test_a_run_says_how_many_are_bad_before_it_asks(data: Data) -> None:
    said: list[str] = []
    options = RunOptions("mmla-echo", [TASK], data_dir=str(data.root), on_bad_clip="skip")
    run(options, announce=said.append)
    counts = Counter(data.broken.values())
    told = ", ".join(f"{count} {fault}" for fault, count in counts.items())
    assert said[0] == f"30 of 300 clips are bad ({told}): their rows are left out"


def test_when_clips_are_mended_the_same_command_asks_those_alone(tmp_path: Path, mmla: Callable[..., Any]) -> None:
    root = tmp_path / "data"
    broken = partly_broken(root, 50)
    whole = tmp_path / "whole"
    partly_broken(whole, 50, every=51)
    history = tmp_path / "asked"
    for policy in ("skip", "text"):
        history.unlink(missing_ok=True)
        command = (
            "run", "--model", "mmla-echo", "--model_args", f"history_file={history}", "--tasks", TASK,
            "--on_bad_clip", policy, "--run_dir", tmp_path / policy,
        )  # fmt: skip
        assert mmla(*command, "--data_dir", root).status == 0
        asked = len(history.read_text().splitlines())
        assert asked == (45 if policy == "skip" else 50)
        assert mmla(*command, "--data_dir", root).status == 0
        assert len(history.read_text().splitlines()) == asked
        mended = Path(shutil.copytree(root, tmp_path / f"mended-{policy}"))
        for name in broken:
            file = f"MELD_{name}.mp4"
            shutil.copy(whole / "MELD" / "video" / file, mended / "MELD" / "video" / file)
        assert mmla(*command, "--data_dir", mended).status == 0
        assert sorted(history.read_text().splitlines()[asked:]) == sorted(f"{TASK} {name}" for name in broken)
        block = json.loads((tmp_path / policy / "results.json").read_text())["mmla"]["tasks"][TASK]
        assert "bad_clips" not in block and block["counts"]["asked"] == 50


def test_groups_count_all_rows_too(data: Data, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data.root, tmp_path / "data"))
    (root / "IEMOCAP").mkdir()
    (root / "IEMOCAP" / "test.tsv").write_text("id\ttext\tlabel\n1\tHi.\tsad\n2\tHo.\tsad\n", encoding="utf-8")
    clips = root / "IEMOCAP" / "video"
    clips.mkdir()
    shutil.copy(next((root / "MELD" / "video").glob("*_0.mp4")), clips / "IEMOCAP_1.mp4")
    results = evaluate("mmla-echo", "mmla_emotion", model_args={"rule": "gold"}, data_dir=str(root), on_bad_clip="skip")
    group = results["mmla"]["groups"]["mmla_emotion"]
    assert group["rows"] == 271 and results["results"]["mmla_emotion"]["acc,none"] == 1
    assert group["acc_all_rows"] == pytest.approx(271 / 302)
    assert group["intervals"]["acc_all_rows"][1] < 1


def test_shards_merge_to_the_whole_run(ran: Any, data: Data, mmla: Callable[..., Any], tmp_path: Path) -> None:
    policy, _, results = ran
    args = ",".join(f"{name}={value}" for name, value in ERRORS.items())
    for shard in ("1/2", "2/2"):
        command = ("run", "--model", "mmla-echo", "--model_args", args, "--tasks", TASK, "--data_dir", data.root)
        assert mmla(*command, "--on_bad_clip", policy, "--run_dir", tmp_path, "--shard", shard).status == 0
    assert mmla("merge", tmp_path).status == 0
    merged = json.loads((tmp_path / "results.json").read_text())["mmla"]["tasks"][TASK]
    assert merged == json.loads(json.dumps(results["mmla"]["tasks"][TASK]))


def test_a_bad_clip_stops_a_python_caller_by_name(data: Data) -> None:
    with pytest.raises(ClipError) as caught:
        evaluate("mmla-echo", TASK, data_dir=str(data.root))
    assert caught.value.fault == "missing"
