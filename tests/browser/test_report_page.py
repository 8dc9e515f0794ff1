"""The page of `mmla report` in a real headless Chromium. Screenshots stay in tests/browser/screenshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.catalogue import Catalogue
from harness_ext.reports.report import ReportOptions, write_report
from harness_ext.reports.run_files import read_run

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parent / "screenshots"
MIB = 1 << 20
ROWS = 15_710


@pytest.fixture(scope="session")
def full(real_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all 15,710 rows with ranked labels."""
    return reported(tmp_path_factory.mktemp("full"), "mmla_text", data_dir=str(real_texts), answer="rank")


@pytest.fixture(scope="session")
def free(real_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all 15,710 rows with free text as long as it is shown, no two alike: the largest there can be."""
    folder = tmp_path_factory.mktemp("free")
    run = folder / "run"
    evaluate(
        "mmla-echo", "mmla_text", model_args={"rule": "gold", "error_rate": 0.3, "unparsed_rate": 0.2},
        data_dir=str(real_texts), run_dir=run,
    )  # fmt: skip
    texts = [row["doc"]["text"] for rows in read_run(run).samples.values() for row in rows]
    number = 0
    for file in sorted((run / "samples").iterdir()):
        rows = [json.loads(line) for line in file.read_text().split("\n") if line]
        for row in rows:
            long = " ".join(texts[(number * 7 + k * 131) % ROWS] for k in range(12))
            row["resps"] = [[f"{row['resps'][0][0]}. {long}"]]
            number += 1
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report([read_run(run)], folder / "report")
    return folder / "report" / "report.html"


def reported(folder: Path, task: str, **options: Any) -> Path:
    args = {"rule": "gold", "error_rate": 0.35, "seed": 3}
    evaluate("mmla-echo", task, model_args=args, run_dir=folder / "run", **options)
    write_report([read_run(folder / "run")], folder / "report")
    return folder / "report" / "report.html"


# ── the whole test set ────────────────────────────────────────────────────────────────────────────────────────────


def test_all_rows_open_quickly_and_quietly(full: Path, visit: Any) -> None:
    with visit(full) as seen:
        assert seen.errors == [] and seen.requests == [full.as_uri()]
        paint = seen.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert paint < 2000, f"first paint after {paint:.0f} ms"
        leaves = Catalogue.load().leaves("mmla_text")
        names = ["scores", "radar", "reliability", *(f"{k}-{t}" for t in leaves for k in ("confusion", "recall"))]
        seen.page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        for name in names:
            box = seen.page.locator(f"figure[id='{name}'] svg").bounding_box()
            assert box and box["width"] > 150 and box["height"] > 60, name
        assert seen.page.inner_text("#samples-count") == "1–50 of 15,710 samples"


@pytest.mark.parametrize("name", ["full", "free"])
def test_all_rows_fit_into_five_megabytes(name: str, request: pytest.FixtureRequest) -> None:
    size = request.getfixturevalue(name).stat().st_size
    assert size < 5 * MIB, f"{size / MIB:.2f} MiB"


def test_free_text_of_every_row_can_be_looked_into(free: Path, visit: Any) -> None:
    with visit(free) as seen:
        assert seen.errors == []
        seen.page.select_option("#by-verdict", "unparsed")
        count = int(seen.page.inner_text("#samples-count").split(" of ")[1].split()[0].replace(",", ""))
        told = json.loads(free.with_name("report.json").read_text())
        assert count == sum(task["counts"]["unparsed"] for task in told["tasks"]) > 2000
        assert "more)" in seen.page.inner_text("#samples tbody tr:first-child .said")


def test_filter_search_and_sort(full: Path, visit: Any) -> None:
    with visit(full) as seen:
        page, run = seen.page, read_run(full.parents[1] / "run")
        rows = run.samples["mmla_emotion_meld_text"]
        page.select_option("#by-task", label="MELD")
        assert told(page) == len(rows) == 2610
        page.select_option("#by-verdict", "wrong")
        assert told(page) == sum(row["answer"]["label"] != row["doc"]["label"] for row in rows)
        page.select_option("#by-gold", "joy")
        wrong = [r for r in rows if r["doc"]["label"] == "joy" != r["answer"]["label"]]
        assert told(page) == len(wrong)
        page.click("#samples thead [data-column=p] button")
        assert page.get_attribute("[data-column=p]", "aria-sort") == "ascending"
        shown = [float(text) for text in column(page, "p")]
        assert shown == sorted(shown) and shown[0] == pytest.approx(min(top(row) for row in wrong), abs=6e-4)
        page.click("#samples thead [data-column=p] button")
        shown = [float(text) for text in column(page, "p")]
        assert shown == sorted(shown, reverse=True) and shown[0] == pytest.approx(max(map(top, wrong)), abs=6e-4)
        page.click("text=Show all")
        page.wait_for_selector("#samples-count:has-text('1–50 of 15,710 samples')")
        page.fill("#by-words", rows[7]["doc"]["id"])
        page.wait_for_selector("#samples-count:has-text('(of 15,710)')")
        assert rows[7]["doc"]["id"] in column(page, "id")
        page.fill("#by-words", "nothing that anybody said")
        page.wait_for_selector("#samples-count:has-text('0 samples (of 15,710)')")
        assert seen.errors == []


def told(page: Any) -> int:
    words = page.inner_text("#samples-count").replace(",", "").split()
    return int(words[2] if words[1] == "of" else words[0])


def column(page: Any, name: str) -> list[str]:
    names = page.eval_on_selector_all("#samples thead th", "cells => cells.map((cell) => cell.dataset.column)")
    cells: list[str] = page.locator(f"#samples tbody td:nth-child({names.index(name) + 1})").all_inner_texts()
    return cells


def top(row: Mapping[str, Any]) -> float:
    return float(row["probabilities"][row["answer"]["label"]])


def test_it_stays_smooth(full: Path, visit: Any) -> None:
    """Sorting and turning pages over all rows: some 50 ms of script each on an idle machine, more where others work."""
    script = """
    () => {
      const time = (work) => { const begin = performance.now(); work(); return performance.now() - begin; };
      const sort = (name) => document.querySelector(`#samples [data-column=${name}] button`).click();
      sort("id"); sort("raw");  // the first sort of a column also orders its texts
      return Math.max(...["id", "raw", "gold", "p"].flatMap((n) => [time(() => sort(n)), time(() => sort(n))]),
        time(() => document.querySelector("#pages [data-step=next]").click()));
    }"""
    with visit(full) as seen:
        slowest = min(seen.page.evaluate(script) for _ in range(3))
        assert slowest < 400, f"{slowest:.0f} ms"
        assert seen.page.locator("#samples tbody tr").count() == 50, "only a page of rows is ever in the document"


def test_it_is_used_by_keyboard(full: Path, visit: Any) -> None:
    with visit(full) as seen:
        page = seen.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the scores"
        page.focus("[id='task-mmla_emotion_meld_text'] summary")
        page.keyboard.press("Enter")
        page.focus("[id='task-mmla_emotion_meld_text'] [data-answer='fear']")
        page.keyboard.press("Enter")
        page.wait_for_selector("#samples-count:has-text('(of 15,710)')")
        assert page.input_value("#by-gold") == "" and set(column(page, "answer")) == {"fear"}
        page.focus("#pages [data-step=next]")
        page.keyboard.press("Space")
        assert page.inner_text("#page").startswith("page 2 of")
        page.focus("#samples [data-column=id] button")
        page.keyboard.press("Enter")
        assert page.get_attribute("[data-column=id]", "aria-sort") == "ascending"
        assert seen.errors == []


# ── how it looks ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "colour", "width"), [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)]
)
def test_it_is_accessible_and_fits(full: Path, visit: Any, name: str, colour: str, width: int) -> None:
    """A screenshot is kept; axe finds nothing serious; nothing but tables and pictures is wider than the window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e '.[dev]'")
    SCREENSHOTS.mkdir(exist_ok=True)
    with visit(full, colour=colour, width=width) as seen:
        for task in ("mmla_emotion_meld_text", "mmla_intent_mintrec2_text"):
            seen.page.evaluate("(id) => (document.getElementById(id).open = true)", f"task-{task}")
        seen.page.screenshot(path=SCREENSHOTS / f"report-{name}.png", full_page=True)
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        found = axe.Axe().run(seen.page).response["violations"]
        serious = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], f"of {len(found)} findings"


def test_print_shows_every_picture(full: Path, visit: Any, tmp_path: Path) -> None:
    with visit(full) as seen:
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        seen.page.emulate_media(media="print")
        assert seen.page.locator("details:not([open])").count() == 0
        assert not seen.page.is_visible("#filter") and not seen.page.is_visible("#pages")
        seen.page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert (tmp_path / "report.pdf").stat().st_size > 100_000


def test_without_script_the_scores_are_there(full: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(full.as_uri())
    assert page.locator("#scores-table tbody tr:not(.group)").count() == 12
    assert "needs JavaScript" in page.inner_text("#samples-section")
    context.close()


# ── what a model may say ──────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = {
    "HTML": "<img src=x onerror=\"alert('html')\"><b>bold</b> &amp; <a href='https://example.org'>x</a> joy",
    "script": "</script></td></table><script>alert('script')</script><style>*{display:none}</style> joy",
    "template": "{{ 7 * 7 }} {% raw %} ${alert(1)} `joy`",
    "long": "a" * 5000,
    "right to left": "مرحبا بالعالم joy \u202eevil\u202c \u2067x\u2069",
    "emoji": "👩‍👩‍👧‍👦 😂 joy 🏳️‍🌈 é",
    "controls": "\x00\x07\x1b[31mred\x1b[0m\tjoy\r\n\u2028\u2029\x9b\ufeff",
    "lines": "one\ntwo\n\n\njoy",
    "spaces": "  joy  \u00a0 ",
    "nothing": "",
}


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of answers that try to be more than text; labels, ids and utterances try it, too."""
    folder = tmp_path_factory.mktemp("hostile")
    labels = ["joy", "<b>sad</b>", "\"'$x$&amp;"]
    ids = [f"<i>{name}</i>" for name in HOSTILE]
    lines = [f"{id}\tHe said <script>alert('text')</script>.\t{labels[n % 3]}" for n, id in enumerate(ids)]
    (folder / "mine.tsv").write_text("\n".join(["id\ttext\tlabel", *lines]) + "\n")
    config = {"task": "mine", "dataset": "mine.tsv", "dimension": "mood", "labels": labels}
    text = "class: !function harness_ext.task.LabelTask\n" + "".join(
        f"{k}: {json.dumps(v)}\n" for k, v in config.items()
    )
    (folder / "mine.yaml").write_text(text)
    said = [{"task": "mine", "id": id, "response": raw} for id, raw in zip(ids, HOSTILE.values(), strict=True)]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, said)) + "\n")
    evaluate(
        "mmla-predictions", "mine", model_args={"answers": str(folder / "answers.jsonl")}, include_path=folder,
        run_dir=folder / "run", modality="text",
    )  # fmt: skip
    write_report([read_run(folder / "run")], folder / "report", ReportOptions(with_texts=True))
    return folder / "report" / "report.html"


def test_whatever_a_model_says_is_text(hostile: Path, visit: Any) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    with visit(hostile) as seen:
        page = seen.page
        page.wait_for_timeout(200)  # an alert would have come by now
        assert seen.errors == [] and seen.requests == [hostile.as_uri()]
        cells = dict(zip(HOSTILE, content(page, "raw"), strict=True))
        for name in ("HTML", "script", "template", "emoji", "lines", "spaces", "nothing"):
            assert cells[name] == HOSTILE[name], name
        assert cells["long"] == "a" * 300 + "… (4,700 more)"
        assert "⟨U+202E⟩evil⟨U+202C⟩" in cells["right to left"] and "\u202e" not in cells["right to left"]
        for name in ("0000", "0007", "001B", "0009", "000D", "2028", "2029", "009B", "FEFF"):
            assert f"⟨U+{name}⟩" in cells["controls"], name
        assert content(page, "id") == [f"<i>{name}</i>" for name in HOSTILE]
        assert content(page, "text")[0] == "He said <script>alert('text')</script>."
        assert page.locator("#samples tbody :is(b, i, a, script, style, img)").count() == 0
        assert page.locator("#samples tbody tr").count() == len(HOSTILE)
        assert page.evaluate("document.documentElement.scrollWidth") == 1280
        assert page.locator("script").count() == 1, "the page's own"
        page.screenshot(path=SCREENSHOTS / "hostile.png", full_page=True)


def content(page: Any, name: str) -> list[str]:
    """The text of a column as the document holds it, white space and all."""
    names = page.eval_on_selector_all("#samples thead th", "cells => cells.map((cell) => cell.dataset.column)")
    rows = "(rows, n) => rows.map((row) => row.cells[n].textContent)"
    values: list[str] = page.eval_on_selector_all("#samples tbody tr", rows, names.index(name))
    return values
