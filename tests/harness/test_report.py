"""`mmla report` without a browser: what its files say. How the page behaves is tested in tests/browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.reports.report import ReportOptions, write_report
from harness_ext.reports.run_files import read_run

from ..clips import clip_bytes

pytest.importorskip("matplotlib", reason="reports need matplotlib: pip install -e '.[report]'")

TASK = "mmla_emotion_meld_text"
ECHO = {"rule": "gold", "error_rate": 0.4, "seed": 5}


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Data roots: ``roots(MELD=[(id, text, label), ...])``."""

    def write(**datasets: list[tuple[str, str, str]]) -> Path:
        root = tmp_path_factory.mktemp("data")
        for name, rows in datasets.items():
            (root / name).mkdir()
            lines = ["id\ttext\tlabel", *("\t".join(row) for row in rows)]
            (root / name / "test.tsv").write_text("\n".join(lines) + "\n")
        return root

    return write


def meld_rows(n: int) -> list[tuple[str, str, str]]:
    labels = ["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"]
    return [(f"{i // 5}_{i % 5}", f"Sentence number {i}.", labels[i % 7]) for i in range(n)]


@pytest.fixture(scope="session")
def ranked(roots: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ranked 84 rows: a partial set, for MELD has 2,610."""
    path = tmp_path_factory.mktemp("run") / "ranked"
    root = str(roots(MELD=meld_rows(84)))
    evaluate("mmla-echo", TASK, model_args=ECHO, data_dir=root, run_dir=path, answer="rank")
    return path


@pytest.fixture(scope="session")
def report(ranked: Path) -> Path:
    """Its report."""
    folder = ranked / "report"
    write_report([read_run(ranked)], folder)
    return folder


def samples_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="packed">([A-Za-z0-9+/=]+)</script>', page)
    assert found
    value: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return value


def answers(tmp_path: Path, responses: Mapping[str, str], task: str = TASK) -> Path:
    file = tmp_path / "answers.jsonl"
    lines = [json.dumps({"task": task, "id": id, "response": text}) for id, text in responses.items()]
    file.write_text("\n".join(lines) + "\n")
    return file


# ── what is written ───────────────────────────────────────────────────────────────────────────────────────────────


def test_all_forms_are_written_and_named(ranked: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    ran = mmla("report", ranked, "--output", tmp_path / "out")
    assert ran.status == 0, ran.err
    for name in ("report.html", "report.md", "report.json", "table.tex", "figures/"):
        assert name in ran.out.splitlines()[-1]
    drawn = sorted(p.name for p in (tmp_path / "out" / "figures").iterdir())
    names = ("scores", "reliability", f"confusion-{TASK}", f"recall-{TASK}")
    assert drawn == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    for name in names:
        assert f'<figure class="picture" id="{name}">' in (tmp_path / "out" / "report.html").read_text()


def test_scores_are_those_of_the_results(ranked: Path, report: Path) -> None:
    results, told = json.loads((ranked / "results.json").read_text()), json.loads((report / "report.json").read_text())
    (task,) = told["tasks"]
    for metric, score in task["scores"].items():
        assert score["value"] == results["results"][TASK][f"{metric},none"]
        assert score["low"] <= score["value"] <= score["high"], metric
    assert [task["scores"]["acc"]["low"], task["scores"]["acc"]["high"]] == results["mmla"]["tasks"][TASK]["intervals"][
        "acc"
    ]
    percent = f"{100 * task['scores']['acc']['value']:.1f}"
    for name in ("report.html", "report.md", "table.tex"):
        assert percent in (report / name).read_text(), name


def test_a_partial_set_is_marked_everywhere_and_stands_alone(report: Path) -> None:
    assert "partial, of 2,610" in (report / "report.html").read_text()
    assert "84 of 2,610 (partial)" in (report / "report.md").read_text()
    assert "a partial set, no benchmark score" in (report / "table.tex").read_text()
    assert "MELD (partial)" in (report / "figures" / "scores.svg").read_text()
    task = json.loads((report / "report.json").read_text())["tasks"][0]
    assert task["neighbours"] is None
    assert "GPT-4o" not in (report / "report.html").read_text()


def test_sample_data_is_marked(tmp_path: Path, mmla: Callable[..., Any]) -> None:
    evaluate("mmla-echo", "mmla_sentiment_text", data_dir="sample", run_dir=tmp_path / "run")
    assert mmla("report", tmp_path / "run", "--with_texts").status == 0, "sample texts are made up and restrict nobody"
    for name in ("report.html", "report.md", "table.tex"):
        assert "sample data, not a benchmark score" in (tmp_path / "run" / "report" / name).read_text()
    for name in ("report.html", "report.md"):
        assert "these 2 tasks: not the benchmark average" in (tmp_path / "run" / "report" / name).read_text()


def test_full_sets_stand_beside_published_rows_of_the_method(
    roots: Callable[..., Path], tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    rows = [(str(i), f"Line {i}.", ("sincere", "sarcastic")[i % 2]) for i in range(138)]
    root = str(roots(MUStARD=rows))
    evaluate("mmla-echo", "mmla_speaking_style_mustard_text", model_args=ECHO, data_dir=root, run_dir=tmp_path / "run")
    for method, best in (("zero_shot", "Qwen2-VL-72B"), ("sft", "Qwen2-VL-72B"), ("it", "LLaVA-Video-72B")):
        assert mmla("report", tmp_path / "run", "--method", method).status == 0
        near = json.loads((tmp_path / "run" / "report" / "report.json").read_text())["tasks"][0]["neighbours"]
        assert max(near["models"], key=near["models"].get) == best and near["prior_best"] == ["SimMMDG", 0.725]
        page = (tmp_path / "run" / "report" / "report.html").read_text()
        assert best in page and "SimMMDG" in page and "Every published" in page


def test_a_run_with_an_adapter_is_compared_when_its_training_is_known(ranked: Path, tmp_path: Path) -> None:
    results = json.loads((ranked / "results.json").read_text())
    results["mmla"]["model"]["peft"] = {"path": "adapters/x", "sha256": "0"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "samples").symlink_to(ranked / "samples")
    write_report([read_run(tmp_path)], tmp_path / "report")
    assert "No published models stand beside" in (tmp_path / "report" / "report.html").read_text()
    write_report([read_run(tmp_path)], tmp_path / "report", ReportOptions(method="sft"))
    assert "No published models stand beside" not in (tmp_path / "report" / "report.html").read_text()
    results["mmla"]["method"] = "it"
    (tmp_path / "results.json").write_text(json.dumps(results))
    write_report([read_run(tmp_path)], tmp_path / "report")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["method"] == "it"


def test_equal_runs_make_equal_reports(ranked: Path, report: Path, tmp_path: Path) -> None:
    write_report([read_run(ranked)], tmp_path)
    for path in sorted(report.rglob("*.*")):
        assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes(), path.name


def test_repeats_are_told_with_their_spread(meld_root: Path, tmp_path: Path) -> None:
    evaluate(
        "mmla-echo", TASK, model_args=ECHO, data_dir=str(meld_root), run_dir=tmp_path, repeats=3,
        label_order="shuffled:0",
    )  # fmt: skip
    write_report([read_run(tmp_path)], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "3 repeats" in page and " ± " in page and len(samples_of(page)["id"]) == 42


# ── one page, offline ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_names_nothing_outside_itself(report: Path) -> None:
    page = (report / "report.html").read_text()
    page = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert not re.findall(r"https?:|//[a-z]", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)


def test_pictures_are_well_formed_and_keep_their_ids_apart(report: Path) -> None:
    page = (report / "report.html").read_text()
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 30
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
    assert {a or b for a, b in used} <= set(ids)


def test_colours_of_pictures_follow_the_page(report: Path) -> None:
    pictures = re.findall(r"<svg xmlns.*?</svg>", (report / "report.html").read_text(), flags=re.DOTALL)
    assert len(pictures) == 4
    assert not [found for svg in pictures for found in re.findall(r"(?:fill|stroke): #\w+", svg)]


# ── the table of samples ──────────────────────────────────────────────────────────────────────────────────────────


def test_samples_hold_what_was_said_and_no_utterance(ranked: Path, report: Path, tmp_path: Path) -> None:
    rows = read_run(ranked).samples[TASK]
    table = samples_of((report / "report.html").read_text())
    for n, row in enumerate(rows):
        said = {name: table["texts"][table[name][n]] for name in ("gold", "answer", "outcome", "raw")}
        assert table["id"][n] == row["doc"]["id"] and said["gold"] == row["doc"]["label"]
        assert said["answer"] == row["answer"]["label"] and said["raw"] == row["resps"][0][0]
        assert table["p"][n] == round(1000 * row["probabilities"][row["answer"]["label"]])
    assert not [p.name for p in report.rglob("*.*") if b"Sentence number" in p.read_bytes()]
    assert "Sentence number" not in json.dumps(table)
    write_report([read_run(ranked)], tmp_path, ReportOptions(with_texts=True))
    table = samples_of((tmp_path / "report.html").read_text())
    assert table["texts"][table["text"][3]] == "Sentence number 3."


def test_long_answers_are_cut_and_odd_ones_survive(meld_root: Path, tmp_path: Path) -> None:
    odd = {
        "0_0": "x" * 1000,
        "0_1": "</script><b>&amp;\u2028\u202e",
        "0_2": "half a pair: \ud83d",
        "0_3": "\x00\x1b[31m",
    }
    file = answers(tmp_path, {id: text for id, text in odd.items() if id != "0_2"})
    limit = {"limit": 4, "data_dir": str(meld_root), "run_dir": tmp_path / "run"}
    text = file.read_text() + json.dumps({"task": TASK, "id": "0_2", "response": "joy"}) + "\n"
    file.write_text(text)
    evaluate("mmla-predictions", TASK, model_args={"answers": str(file)}, **limit)
    samples = tmp_path / "run" / "samples" / f"{TASK}.jsonl"
    lines = [json.loads(line) for line in samples.read_text().split("\n") if line]
    lines[2]["resps"] = [[odd["0_2"]]]  # only an escape can say it
    samples.write_text("\n".join(map(json.dumps, lines)) + "\n")
    write_report([read_run(tmp_path / "run")], tmp_path / "report")
    table = samples_of((tmp_path / "report" / "report.html").read_text())
    raw = [table["texts"][n] for n in table["raw"]]
    assert raw == ["x" * 300, odd["0_1"], odd["0_2"], odd["0_3"]] and table["more"] == [700, 0, 0, 0]


def test_labels_and_names_of_any_kind_are_only_text(tmp_path: Path) -> None:
    """A user's own task with every sign that HTML, SVG, TeX, Markdown or mathematics would read."""
    labels = ["$a_b$", "<b>c&d</b>", "50 % |x|", "很积极"]
    (tmp_path / "mine.tsv").write_text(
        "id\ttext\tlabel\n" + "".join(f"{i}\tT.\t{x}\n" for i, x in enumerate(labels * 3))
    )
    config = {"task": "mine", "dataset": "mine.tsv", "dimension": "kind & <sort>", "labels": labels}
    text = "class: !function harness_ext.task.LabelTask\n" + "".join(
        f"{k}: {json.dumps(v)}\n" for k, v in config.items()
    )
    (tmp_path / "mine.yaml").write_text(text)
    evaluate(
        "mmla-echo", "mine", model_args={"rule": "random"}, include_path=tmp_path, run_dir=tmp_path / "run",
        answer="rank", modality="text",
    )  # fmt: skip
    write_report([read_run(tmp_path / "run")], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<b>c&amp;d" not in page and "&lt;b&gt;c&amp;d&lt;/b&gt;" in page and "$a_b$" in page
    for svg in (tmp_path / "report" / "figures").glob("*.svg"):
        ElementTree.parse(svg)
    assert "kind \\& <sort>" in (tmp_path / "report" / "table.tex").read_text()


def test_thumbnails_are_small_frames_of_the_first_rows(
    meld_root: Path, tmp_path: Path, draw: ModuleType, mmla: Callable[..., Any]
) -> None:
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    drawn = tmp_path / "drawn.mp4"
    draw.draw_clip(drawn, frames=8)
    for n in range(42):
        (clips / f"MELD_{n // 10}_{n % 10}.mp4").write_bytes(drawn.read_bytes())
    evaluate("mmla-echo", "mmla_emotion_meld", data_dir=str(meld_root), run_dir=tmp_path / "run")
    (clips / "MELD_0_0.mp4").write_bytes(b"broken")
    assert mmla("report", tmp_path / "run").status == 0
    assert not samples_of((tmp_path / "run" / "report" / "report.html").read_text())["frames"]
    ran = mmla("report", tmp_path / "run", "--thumbnails", "3")
    assert ran.status == 0 and "1 clips could not be read" in ran.out
    table = samples_of((tmp_path / "run" / "report" / "report.html").read_text())
    assert sorted(table["frames"]) == ["1", "2"]
    jpeg = base64.b64decode(table["frames"]["1"].removeprefix("data:image/jpeg;base64,"))
    assert jpeg[:2] == b"\xff\xd8" and len(jpeg) < 8000


# ── several runs ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def modalities(roots: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 140 rows with video, with text and with both; text and video is right more often."""
    root, folder = roots(MELD=meld_rows(140)), tmp_path_factory.mktemp("modalities")
    (root / "MELD" / "video").mkdir()
    for id, _, _ in meld_rows(140):
        (root / "MELD" / "video" / f"MELD_{id}.mp4").write_bytes(clip_bytes())
    for modality, errors in (("text", 0.5), ("text+video", 0.1), ("video", 0.6)):
        args = {"rule": "gold", "error_rate": errors}
        evaluate(
            "mmla-echo", "mmla_emotion_meld", model_args=args, data_dir=str(root), run_dir=folder / modality,
            modality=modality,
        )  # fmt: skip
    return {modality: folder / modality for modality in ("text", "text+video", "video")}


def test_modalities_are_paired_row_by_row(
    modalities: dict[str, Path], mmla: Callable[..., Any], tmp_path: Path
) -> None:
    ran = mmla("report", *modalities.values(), "--output", tmp_path)
    assert ran.status == 0, ran.err
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["modality"] == "text+video", "the fullest is described"
    (row,) = told["modalities"]["rows"]
    scores = {name: score["value"] for name, score in row["scores"].items()}
    assert list(scores) == ["text+video", "text", "video"] and row["gain"]["rows"] == 140
    assert row["gain"]["clusters"] == 28, "dialogues are drawn, not rows"
    gain = row["gain"]["acc"]["second"] - row["gain"]["acc"]["first"]
    assert gain == pytest.approx(scores["text+video"] - scores["text"])
    low, high = row["gain"]["acc"]["interval"]
    assert 0 < low < gain < high and row["gain"]["corrected"] < 0.001
    assert told["modalities"]["differences"] == [
        "model: error_rate: text 0.5, text+video 0.1",
        "model: error_rate: video 0.6, text+video 0.1",
    ]
    page = (tmp_path / "report.html").read_text()
    assert "What video adds" in page and 'id="modality"' in page
    assert f"{100 * gain:+.1f}" in (tmp_path / "report.md").read_text()


def test_without_one_of_the_two_nothing_is_said_to_be_added(modalities: dict[str, Path], tmp_path: Path) -> None:
    write_report([read_run(modalities["video"]), read_run(modalities["text"])], tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["modalities"]
    assert told["modalities"] == ["text", "video"] and told["of_all_rows"] is None
    assert not (tmp_path / "figures" / "modality.svg").exists()


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_run_is_exit_2(tmp_path: Path, mmla: Callable[..., Any]) -> None:
    assert "no folder" in (ran := mmla("report", tmp_path / "nowhere")).err and ran.status == 2
    assert "no run folder" in (ran := mmla("report", tmp_path)).err and ran.status == 2
    (tmp_path / "journal").mkdir()
    assert "has not finished" in (ran := mmla("report", tmp_path)).err and ran.status == 2
    (tmp_path / "results.json").write_text('{"mmla": {"schema": 99}}')
    assert "newer mmla" in (ran := mmla("report", tmp_path)).err and ran.status == 2


def test_runs_that_do_not_belong_together_are_exit_2(
    ranked: Path, modalities: dict[str, Path], meld_root: Path, tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    other = tmp_path / "other"
    evaluate("mmla-echo", "mmla_sentiment_text", data_dir="sample", run_dir=other)
    assert "different tasks" in (ran := mmla("report", ranked, other)).err and ran.status == 2
    assert "mmla_sentiment_mosi" in ran.err
    assert "two of these runs were shown text" in (ran := mmla("report", ranked, modalities["text"])).err
    assert ran.status == 2 and "mmla compare" in ran.err
    file = answers(tmp_path, {f"{n // 10}_{n % 10}": "joy" for n in range(42)})
    evaluate(
        "mmla-predictions", TASK, model_args={"answers": str(file)}, data_dir=str(meld_root), run_dir=tmp_path / "given"
    )
    assert "about one model" in (ran := mmla("report", ranked, tmp_path / "given")).err and ran.status == 2


def test_restricted_texts_need_the_rights(roots: Callable[..., Path], tmp_path: Path, mmla: Callable[..., Any]) -> None:
    root = roots(MOSI=[(f"v_{n}", "A line.", ("positive", "negative")[n % 2]) for n in range(8)])
    evaluate("mmla-echo", "mmla_sentiment_mosi_text", data_dir=str(root), run_dir=tmp_path)
    assert mmla("report", tmp_path).status == 0
    for flag in ("--with_texts", "--thumbnails"):
        ran = mmla("report", tmp_path, flag)
        assert ran.status == 2 and "MOSI" in ran.err and "--i_have_the_rights" in ran.err
    assert mmla("report", tmp_path, "--with_texts", "--i_have_the_rights").status == 0
    ran = mmla("report", tmp_path, "--thumbnails", "--i_have_the_rights")
    assert ran.status == 2 and "no sample of this run has a clip" in ran.err


def test_without_matplotlib_the_command_to_install_it_is_named(
    ranked: Path, monkeypatch: pytest.MonkeyPatch, mmla: Callable[..., Any], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = mmla("report", ranked, "--output", tmp_path / "out")
    assert ran.status == 2 and "pip install 'mmla-eval[report]'" in ran.err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(ranked: Path, tmp_path: Path, mmla: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("")
    ran = mmla("report", ranked, "--output", tmp_path / "file")
    assert ran.status == 2 and "cannot be written" in ran.err and str(tmp_path / "file") in ran.err


# ── for others ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bundle_is_written_beside_and_can_be_reported(ranked: Path, tmp_path: Path, mmla: Callable[..., Any]) -> None:
    ran = mmla("report", ranked, "--output", tmp_path / "a", "--bundle", tmp_path / "run.zip")
    assert ran.status == 0 and "run.zip" in ran.out
    ran = mmla("report", tmp_path / "run.zip")
    assert ran.status == 0 and (tmp_path / "run-report" / "report.html").is_file()
    ran = mmla("report", tmp_path / "run.zip", "--with_texts")
    assert ran.status == 2 and "a bundle holds no texts" in ran.err


def test_hub_files_are_written_where_there_are_scores_to_publish(ranked: Path, mmla: Callable[..., Any]) -> None:
    ran = mmla("report", ranked, "--hub_files", ranked / "hub")
    assert ran.status == 2 and "holds no benchmark scores" in ran.err and "echo" in ran.err


def test_what_cannot_be_said_is_a_dash() -> None:
    from harness_ext.reports.console import number

    assert [number(value) for value in (None, float("nan"), 12.34)] == ["–", "–", "12.3"]
