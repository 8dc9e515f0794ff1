"""`mmla compare`: what it refuses, what it says, and that its pages hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.reports.bundle import write_bundle
from harness_ext.reports.comparison import compare_runs
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import UsageError

from ..clips import clip_bytes

MELD = "mmla_emotion_meld_text"
IEMOCAP = "mmla_emotion_iemocap_text"


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    emotions = ["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"]
    others = ["angry", "happy", "sad", "neutral", "frustrated", "excited"]
    rows = [(f"{n // 5}_{n % 5}", f"Sentence {n}.", emotions[n % 7]) for n in range(210)]
    return data_root(MELD=rows, IEMOCAP=[(f"Ses{n:03}_F000", f"Line {n}.", others[n % 6]) for n in range(120)])


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder by name: ``run("a", error_rate=0.3)``."""

    def make(
        name: str, tasks: str = "mmla_emotion_text", seed: int = 0, error_rate: float = 0.3, **options: Any
    ) -> Path:
        args = {"rule": "gold", "error_rate": error_rate, "seed": seed}
        evaluate("mmla-echo", tasks, run_dir=tmp_path / name, **{"model_args": args, "data_dir": str(root), **options})
        return tmp_path / name

    return make


def test_two_runs_side_by_side(run: Callable[..., Path], mmla: Callable[..., Any]) -> None:
    a, b = run("a", error_rate=0.6), run("b", error_rate=0.1, seed=1)
    ran = mmla("compare", a, b)
    assert ran.status == 0, ran.err
    assert re.search(r"emotion +MELD +210 .* \+\d\d\.\d .*< 0\.001 ✱", ran.out)
    assert f"a difference beyond chance on 2 of 2 (5 % level, Holm's correction): {MELD} (B is better)" in ran.out
    assert "all rows" in ran.out and "mean of datasets" in ran.out
    assert "model: error_rate" in ran.out and "A: answers by the echo rule" in ran.out
    assert "dialogues of MELD (42)" in ran.out and "rows of IEMOCAP" in ran.out


def test_numbers_are_those_of_the_runs(run: Callable[..., Path]) -> None:
    first, second = read_run(run("a")), read_run(run("b", seed=1))
    compared = compare_runs(first, second)
    for task, scores in compared.scores.tasks.items():
        for mine, theirs in ((scores.acc.first, first), (scores.acc.second, second)):
            assert mine == pytest.approx(theirs.results["results"][task]["acc,none"])
        assert scores.macro_f1.first == pytest.approx(first.results["results"][task]["macro_f1,none"])
    group = first.results["results"]["mmla_emotion_text"]
    assert compared.scores.all_rows.first == pytest.approx(group["acc,none"])
    assert compared.scores.mean_of_tasks.first == pytest.approx(group["acc_mean,none"])


def test_a_run_and_itself(run: Callable[..., Path], mmla: Callable[..., Any]) -> None:
    a = run("a")
    ran = mmla("compare", a, a)
    assert "no difference beyond chance on any of 2 tasks" in ran.out
    assert "the runs differ in nothing that is recorded" in ran.out


def test_a_bundle_is_compared_like_its_run(run: Callable[..., Path], mmla: Callable[..., Any], tmp_path: Path) -> None:
    a, b = run("a"), run("b", seed=1)
    bundle = write_bundle(read_run(b), tmp_path / "b.zip")
    whole, bundled = mmla("compare", a, b), mmla("compare", a, bundle)
    assert bundled.status == 0 and bundled.out == whole.out.replace(str(b), str(bundle))


# -------------------------------------------------------------------------------------------- what the runs differ in


def differs(first: Path, second: Path) -> dict[str, tuple[str, str]]:
    compared = compare_runs(read_run(first), read_run(second))
    return {item.name: (item.first, item.second) for item in compared.differs}


def test_what_the_runs_differ_in_is_stated(run: Callable[..., Path]) -> None:
    a = run("a")
    assert differs(a, run("b")) == {}
    assert differs(a, run("rank", answer="rank")) == {
        "model: answer": ("generate", "rank"),
        "answers": ("generate", "rank"),
    }
    chat = differs(a, run("chat", apply_chat_template=True, system_instruction="Be brief."))
    assert chat["chat template: applied"] == ("false", "true") and chat["system prompt"] == ("–", "Be brief.")
    assert chat["prompts as sent"] == ("other in 330 of 330 rows", "")
    assert differs(a, run("longer", gen_kwargs={"max_gen_toks": 9})) == {"decoding: max_gen_toks": ("64", "9")}
    shuffled = differs(a, run("shuffled", label_order="shuffled:1"))
    assert shuffled["label order"] == ("–", "shuffled:1") and "labels in the prompt: mmla_emotion_meld" in shuffled
    paper = differs(a, run("paper", protocol="paper"))
    assert paper["protocol"] == ("clean", "paper") and "audio content" in paper["question"][1]


def test_versions_and_frames_are_stated(run: Callable[..., Path]) -> None:
    a, b = run("a"), run("b")
    results = json.loads((b / "results.json").read_text())
    results["mmla"]["versions"]["lm_eval"] = "9.9"
    results["mmla"]["frame_policy"] = {"num_frames": 8}
    (b / "results.json").write_text(json.dumps(results))
    said = differs(a, b)
    assert said["versions: lm_eval"] == (version("lm_eval"), "9.9")
    assert said["frames: num_frames"] == ("–", "8")


def test_text_and_video_runs_of_one_dataset_are_paired(run: Callable[..., Path], root: Path) -> None:
    clips = root / "MELD" / "video"
    clips.mkdir()
    for n in range(210):
        (clips / f"MELD_{n // 5}_{n % 5}.mp4").write_bytes(clip_bytes())
    text, video = run("text", MELD), run("video", "mmla_emotion_meld", seed=1)
    compared = compare_runs(read_run(text), read_run(video))
    assert list(compared.scores.tasks) == [MELD] and not compared.objections
    assert {d.name: (d.first, d.second) for d in compared.differs}["modality"] == ('["text"]', '["text+video"]')


def test_repeat_0_is_compared_and_said(run: Callable[..., Path], mmla: Callable[..., Any]) -> None:
    a, b = run("a"), run("b", repeats=2, label_order="shuffled:0")
    ran = mmla("compare", a, b)
    assert "B: repeat 0 of 2 is compared" in ran.out and " 210 " in ran.out


# ---------------------------------------------------------------------------------------------- what is not comparable


def refusal(first: Path, second: Path) -> str:
    with pytest.raises(UsageError) as caught:
        compare_runs(read_run(first), read_run(second))
    return str(caught.value)


def test_runs_over_different_tasks(run: Callable[..., Path], mmla: Callable[..., Any]) -> None:
    a, b, both = run("a", MELD), run("b", IEMOCAP), run("both")
    ran = mmla("compare", a, b, "--anyway")
    assert ran.status == 2 and "the two runs have no row in common" in ran.err and IEMOCAP in ran.err
    ran = mmla("compare", a, both)
    assert (
        ran.status == 2
        and f"only B was asked {IEMOCAP}" in ran.err
        and "--anyway compares the 210 common rows" in ran.err
    )
    ran = mmla("compare", a, both, "--anyway")
    assert ran.status == 0
    assert f"not comparable as they stand, compared all the same: only B was asked {IEMOCAP}" in ran.out


def test_other_rows_are_refused(run: Callable[..., Path]) -> None:
    a, b = run("a", MELD), run("b", MELD, limit=50)
    assert f"{MELD}: 160 rows only in A" in refusal(a, b)
    compared = compare_runs(read_run(a), read_run(b), anyway=True)
    assert compared.scores.tasks[MELD].rows == 50 and len(compared.objections) == 1


def test_another_data_file_and_other_golds_are_refused(run: Callable[..., Path], root: Path) -> None:
    a = run("a", MELD)
    file = root / "MELD" / "test.tsv"
    file.write_text(file.read_text().replace("Sentence 1.\tsurprise", "Sentence 1.\tjoy"))
    b = run("b", MELD)
    said = refusal(a, b)
    assert "the data files differ (SHA-256 " in said and "1 rows have another gold label in B" in said
    assert compare_runs(read_run(a), read_run(b), anyway=True).scores.tasks[MELD].rows == 209


def test_other_labels_are_refused(run: Callable[..., Path]) -> None:
    a, b = run("a", MELD), run("b", MELD)
    results = json.loads((b / "results.json").read_text())
    results["mmla"]["tasks"][MELD]["labels"].append("envy")
    (b / "results.json").write_text(json.dumps(results))
    assert "the label lists differ (envy)" in refusal(a, b)
    assert compare_runs(read_run(a), read_run(b), anyway=True).scores.tasks[MELD].rows == 210


def test_bad_input(run: Callable[..., Path], mmla: Callable[..., Any], tmp_path: Path) -> None:
    a = run("a", MELD)
    assert mmla("compare", a, tmp_path / "nowhere").status == 2
    ran = mmla("compare", a, a, "--output", tmp_path / "x.pdf")
    assert ran.status == 2 and "neither Markdown nor HTML" in ran.err
    ran = mmla("compare", a, a, "--output", tmp_path / "nowhere" / "x.md")
    assert ran.status == 2 and "cannot be written" in ran.err


# --------------------------------------------------------------------------------------------------------- its pages


class Page(HTMLParser):
    """Collects tags and whether they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_markdown_and_html(run: Callable[..., Path], mmla: Callable[..., Any], tmp_path: Path) -> None:
    a = run("a")
    b = run(
        "b", seed=1, model_args={"script": ["<script>alert(1)</script> joy | angry"]}, system_instruction="a | <b>\nc"
    )
    ran = mmla("compare", a, b, "-o", tmp_path / "c.html", "-o", tmp_path / "c.md")
    assert ran.status == 0 and f"wrote {tmp_path / 'c.html'}" in ran.out
    html = (tmp_path / "c.html").read_text()
    page = Page(html)
    assert not page.open
    tags = [tag for tag, _ in page.seen]
    assert tags.count("circle") == 4 and "script" not in tags and "b" not in tags
    assert not any({"src", "href"} & set(attrs) for _, attrs in page.seen)  # opens offline
    assert "<script>alert(1)</script> joy | angry" in " ".join(page.words)
    assert [attrs.get("lang") for tag, attrs in page.seen if tag == "html"] == ["en"]
    markdown = (tmp_path / "c.md").read_text()
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in table]
    assert set(widths) == {15, 4}  # every row has as many cells as its heading
    assert r"a \| <b> c" in markdown
