"""SmolLM2-135M-Instruct on whole real test sets, reported: the example and the pictures of docs/reporting.md.

Run as ``MMLA_DATA_DIR=... python benchmarks/report_example.py [--tasks TASK ...] [--run_dir runs/report_example]``.

Labels are ranked. Interrupted, the same command goes on from its journal. The report stays in the run folder; only
pictures and the table of scores go into docs/, never a text of a dataset.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

TASKS = ("mmla_speaking_style_mustard_text", "mmla_sentiment_mosi_text", "mmla_intent_mintrec_text")
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURES = DOCS / "reporting.md", DOCS / "pictures"
WORDS = {
    "scores": "Bars of accuracy with intervals before the range of published models",
    "reliability": "Reliability curves of the label probabilities, one panel a task",
    f"confusion-{TASKS[-1]}": "Confusion matrix of MIntRec",
}
BEGIN, END = "<!-- made by benchmarks/report_example.py -->", "<!-- end -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--run_dir", type=Path, default=Path("runs/report_example"))
    parser.add_argument("--batch_size", type=int, default=16)
    args = parser.parse_args()
    if "MMLA_DATA_DIR" not in os.environ:
        print("set MMLA_DATA_DIR to a folder in the Hub layout")
        return 2
    from rich.console import Console

    from harness_ext.cli.progress import RunProgress
    from harness_ext.models import smollm2_folder
    from harness_ext.reports.report import write_report
    from harness_ext.reports.run_files import read_run
    from harness_ext.run import RunOptions, run

    options = RunOptions(
        model="mmla-hf",
        model_args={"pretrained": str(smollm2_folder()), "dtype": "float32"},
        batch_size=args.batch_size,
        tasks=args.tasks,
        answer="rank",
        run_dir=args.run_dir,
    )
    run(options, progress=RunProgress(Console(stderr=True, width=120)))
    folder = args.run_dir / "report"
    for path in write_report([read_run(args.run_dir)], folder, announce=print):
        print(f"wrote {path}")
    PICTURES.mkdir(exist_ok=True)
    publish(folder)
    print(f"wrote {PAGE} and its pictures")
    return 0


def publish(folder: Path) -> None:
    """Put scores and pictures into the page."""
    report = (folder / "report.md").read_text(encoding="utf-8")
    scores = re.search(r"^## Scores\n\n(.*?)\n\n", report, re.MULTILINE | re.DOTALL)
    assert scores is not None
    shown = [scores[1]]
    if screenshot(folder / "report.html", PICTURES / "report_page.png"):
        shown.append("![The top of the page: averages and the table of scores](pictures/report_page.png)")
    for name, words in WORDS.items():
        drawn = folder / "figures" / f"{name}.svg"
        if drawn.exists():
            shutil.copy(drawn, PICTURES / f"report_{name}.svg")
            shown.append(f"![{words}](pictures/report_{name}.svg)")
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(shown) + f"\n\n{END}{after}", encoding="utf-8")


def screenshot(page: Path, path: Path) -> bool:
    """Photograph the top of the report; False without Chromium or Playwright."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return False
    if chromium is None:
        return False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=path)
        browser.close()
    return True


if __name__ == "__main__":
    sys.exit(main())
