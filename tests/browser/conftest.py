"""A real browser, without a screen and without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and what it did that it should not."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture
def visit(browser: Any) -> Open:
    """Open a file: ``with visit(path, colour="dark", width=390) as seen:``."""

    @contextmanager
    def opened(path: Path, *, colour: str = "light", width: int = 1280) -> Iterator[Visit]:
        context = browser.new_context(color_scheme=colour, viewport={"width": width, "height": 900})
        seen = Visit(context.new_page())
        seen.page.set_default_timeout(15_000)
        seen.page.on("console", lambda message: seen.errors.append(f"{message.type}: {message.text}"))
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        seen.page.on("request", lambda request: seen.requests.append(request.url[:200]))
        seen.page.goto(path.as_uri())
        seen.page.wait_for_selector("html[data-ready]")
        try:
            yield seen
        finally:
            context.close()

    return opened
