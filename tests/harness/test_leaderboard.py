"""The leaderboard ranks whole runs among the published models, and says of every other run why it does not."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_ext.reports.leaderboard import Entry, build_leaderboard, leaderboard_csv, ranked
from mmla_tasks.errors import RunFilesError
from mmla_tasks.published import leaderboard_average, published

from .whole_runs import grown, without, write_run

Command = Callable[..., Any]
Results = dict[str, Any]
QWEN = {dataset: acc / 100 for dataset, acc in published("zero_shot")["Qwen2-7B"].items()}


@pytest.fixture
def runs(small: Results, tmp_path: Path) -> Path:
    """Two zero-shot runs, one SFT run, and five folders that cannot be ranked."""
    folder = tmp_path / "runs"
    write_run(folder / "good", grown(small, "org/Good-7B", 0.515))
    write_run(folder / "deep" / "again", grown(small, "Qwen2-7B", QWEN))
    tuned = grown(small, "Tuned-7B", 0.7)
    tuned["mmla"]["method"] = "sft"
    write_run(folder / "tuned", tuned)
    write_run(folder / "half", without(grown(small, "Half-7B", 0.5), "mmla_sentiment_mosi_text"))
    echo = grown(small, "echo", 0.9)
    echo["config"]["model"] = "mmla-echo"
    write_run(folder / "echo", echo)
    write_run(folder / "newer", {**tuned, "mmla": {**tuned["mmla"], "schema": 99}})
    (folder / "damaged").mkdir()
    (folder / "damaged" / "results.json").write_text("{")
    (folder / "stopped" / "journal").mkdir(parents=True)
    return folder


def test_runs_stand_among_the_published_of_their_method(runs: Path) -> None:
    board = build_leaderboard(runs)
    assert list(board.groups) == ["zero_shot", "sft"]
    zero_shot = {(line.entry.model, line.entry.is_published): line for line in board.groups["zero_shot"]}
    assert len(zero_shot) == 2 + len(leaderboard_average("zero_shot"))
    ours, theirs = zero_shot["Qwen2-7B", False].entry, zero_shot["Qwen2-7B", True].entry
    assert ours.acc == pytest.approx(theirs.acc, abs=0.03) and ours.mean == pytest.approx(theirs.mean, abs=0.05)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    good = zero_shot["org/Good-7B", False]
    assert good.rank == 5 and good.entry.acc == pytest.approx(51.5, abs=0.02)
    assert good.best < good.rank < good.worst
    assert board.groups["sft"][0].entry.model == "Tuned-7B"


def test_every_other_run_is_listed_with_its_reason(runs: Path) -> None:
    reasons = {item.folder: item.why for item in build_leaderboard(runs).unranked}
    assert set(reasons) == {"damaged", "echo", "half", "newer", "stopped"}
    assert "cannot be read" in reasons["damaged"] and "echo rule" in reasons["echo"]
    assert reasons["half"] == "11 of 12 tasks are whole; MOSI: not asked"
    assert "newer mmla" in reasons["newer"] and "has not finished" in reasons["stopped"]
    assert not any(str(runs) in why for why in reasons.values())  # a page that is passed on names no place here


def test_merged_shards_are_not_listed_beside_their_run(small: Results, tmp_path: Path) -> None:
    shard = grown(small, "A", 0.5)
    shard["config"]["shard"] = "1/2"
    write_run(tmp_path / "run" / "shards" / "1-of-2", shard)
    assert [item.folder for item in build_leaderboard(tmp_path).unranked] == ["run/shards/1-of-2"]
    write_run(tmp_path / "run", grown(small, "A", 0.5))
    assert not build_leaderboard(tmp_path).unranked


def test_few_shot_runs_are_not_mixed_with_zero_shot(small: Results, tmp_path: Path) -> None:
    few = grown(small, "A", 0.5)
    few["n-shot"] = dict.fromkeys(few["n-shot"], 2)
    board = build_leaderboard(write_run(tmp_path / "run", few).parent)
    (line,) = board.groups["few_shot"]
    assert list(board.groups) == ["few_shot"] and "few-shot examples: 2" in line.entry.settings


def entry(low: float, acc: float, high: float) -> Entry:
    return Entry("m", "zero_shot", False, "", "", acc, low, high, None, {})


def test_rank_ranges_by_hand() -> None:
    apart, upper, lower, far = entry(70, 71, 72), entry(60, 62, 64), entry(58, 60, 61), entry(10, 11, 12)
    lines = ranked([far, lower, apart, upper])
    assert [(line.rank, line.best, line.worst) for line in lines] == [(1, 1, 1), (2, 2, 3), (3, 2, 3), (4, 4, 4)]


@given(st.lists(st.tuples(*[st.integers(0, 100)] * 3).map(sorted), min_size=1, max_size=12))
def test_laws_of_rank_ranges(scores: list[list[int]]) -> None:
    lines = ranked([entry(*map(float, triple)) for triple in scores])
    for line in lines:
        assert 1 <= line.best <= line.rank <= line.worst <= len(lines)
    for above in lines:
        for below in lines:
            if above.entry.low > below.entry.high:
                assert above.rank < below.rank and above.best < below.worst


def test_the_command(mmla: Command, runs: Path, tmp_path: Path) -> None:
    ran = mmla("leaderboard", runs, "--output", tmp_path / "l.csv", "--output", tmp_path / "l.html")
    assert ran.status == 0, ran.err
    assert re.search(r"5 +\S+ +org/Good-7B +51\.5 +50\.7–52\.3 +51\.5 +good +answer mode: generate", ran.out)
    assert re.search(r"GPT-4o +52\.6 .* published", ran.out)
    assert "half (Half-7B): 11 of 12" in ran.out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "l.csv").read_text(encoding="utf-8"))))
    assert sum(row["source"] == "published" for row in rows) == len(leaderboard_average("zero_shot")) + len(
        leaderboard_average("sft")
    )
    good = next(row for row in rows if row["model"] == "org/Good-7B")
    assert (good["rank"], good["acc"], good["source"], good["folder"]) == ("5", "51.49", "run", "good")
    assert next(row for row in rows if row["folder"] == "stopped")["not_ranked_because"]


def test_csv_holds_all_that_the_table_does(runs: Path) -> None:
    board = build_leaderboard(runs)
    rows = list(csv.reader(io.StringIO(leaderboard_csv(board))))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + sum(map(len, board.groups.values())) + len(board.unranked)


def test_nothing_to_rank_is_said(mmla: Command, small: Results, tmp_path: Path) -> None:
    write_run(tmp_path / "half", without(grown(small, "Half-7B", 0.5), "mmla_sentiment_mosi_text"))
    ran = mmla("leaderboard", tmp_path)
    assert ran.status == 0 and "Nothing to rank" in ran.out and "MOSI: not asked" in ran.out


def test_what_is_no_folder_of_runs_is_refused(mmla: Command, runs: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", runs / "stopped" / "journal"):
        ran = mmla("leaderboard", folder)
        assert ran.status == 2 and "there is no run below" in ran.err
    for folder, why in (("stopped", "has not finished"), ("newer", "newer mmla"), ("damaged", "cannot be read")):
        ran = mmla("leaderboard", runs / folder)
        assert ran.status == 2 and why in ran.err and "can be read" in ran.err
    assert mmla("leaderboard", runs, "--output", tmp_path / "l.xlsx").status == 2
    assert mmla("leaderboard", runs, "--output", tmp_path / "no" / "l.csv").status == 2
    with pytest.raises(RunFilesError):
        build_leaderboard(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------------------------------- page

NASTY = '<script>alert(1)</script> "quoted" \u202eright-to-left 😀 ' + "x" * 200


class Page(HTMLParser):
    """Counts what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "line", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_and_shows_names_as_text(
    mmla: Command, runs: Path, small: Results, tmp_path: Path
) -> None:
    write_run(runs / "nasty", grown(small, NASTY, 0.4))
    assert mmla("leaderboard", runs, "--output", tmp_path / "l.html").status == 0
    text = (tmp_path / "l.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and "script" not in page.tags and "&lt;script&gt;alert(1)" in text
    assert not [value for name, value in page.attributes if name in ("src", "href") and value != "data:,"]
    assert "url(" not in text and "@import" not in text
    assert page.tags.count("table") == 2 and page.tags.count("svg") == page.tags.count("tr") - 2
    assert ("lang", "en") in page.attributes and "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_page_in_a_browser(mmla: Command, runs: Path, small: Results, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e '.[dev]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    write_run(runs / "nasty", grown(small, NASTY, 0.4))
    assert mmla("leaderboard", runs, "--output", tmp_path / "l.html").status == 0
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--headless"])
        said: list[str] = []
        for scheme, width in (("light", 1400), ("dark", 390)):
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.on("request", lambda request: said.append(request.url))
            page.goto((tmp_path / "l.html").as_uri())
            found = axe.Axe().run(page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            page.screenshot(path=tmp_path / f"leaderboard-{scheme}.png", full_page=True)
        assert said == [(tmp_path / "l.html").as_uri()] * 2
        browser.close()
