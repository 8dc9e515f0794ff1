"""The commands that the docs show work: those in ```sh blocks run, those in ```bash blocks at least parse."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.docs


def blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(m[1] or "", m[2].strip(), m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.split("  # ")[0].strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", [p for p in PAGES if any(b[0] == "sh" for b in blocks(p))], ids=lambda p: p.name)
def test_runnable_commands_run_in_order(page: Path, tmp_path: Path) -> None:
    """Blocks with ``file=PATH`` are written first; then every ```sh line must end with status 0."""
    for _language, info, text in blocks(page):
        if info.startswith("file="):
            path = tmp_path / info.removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for language, _info, text in blocks(page):
        for command in commands(text) if language == "sh" else ():
            run_in(tmp_path, command)


def run_in(folder: Path, command: str) -> None:
    assert command.startswith("mmla "), f"only mmla commands are run: {command}"
    arguments = [sys.executable, "-m", "harness_ext.cli", *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def shown() -> list[str]:
    return [c for p in PAGES for language, _, text in blocks(p) if language in ("bash", "sh") for c in commands(text)]


@pytest.mark.parametrize("command", sorted({c for c in shown() if c.startswith("mmla run ")}))
def test_flags_of_shown_runs_exist(command: str) -> None:
    from harness_ext.cli.run import _parser

    _parser().parse_args(shlex.split(command)[2:])


@pytest.mark.parametrize("command", sorted({c for c in shown() if c.startswith("make ")}))
def test_make_targets_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_task_table_of_the_readme_is_the_catalogue() -> None:
    from harness_ext.catalogue import Catalogue
    from mmla_tasks.sources import SOURCES

    catalogue, readme = Catalogue.load(), (ROOT / "README.md").read_text()
    for name in catalogue.leaves("mmla"):
        config = catalogue.files[name].config
        rows = SOURCES[config["dataset"]].rows["test"]
        assert re.search(rf"\| `{name}` \| {len(config['labels'])} \| {rows:,} \|", readme), name


def test_no_page_holds_a_path_of_this_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/root/", page.read_text()), page


def test_the_verbs_of_the_readme_are_those_of_the_help() -> None:
    from harness_ext.cli import VERBS

    readme = (ROOT / "README.md").read_text()
    missing = [verb for verb in VERBS if not re.search(rf"`mmla {verb}\b", readme)]
    assert not missing


def test_verifying_lists_every_check() -> None:
    from harness_ext.reports import verification

    page = (ROOT / "docs/verifying.md").read_text()
    names = [name for name, _, _ in verification.CHECKS]
    assert names and not [name for name in names if name not in page]
