"""What tests of `harness_ext` share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .loopback_hub import Hub, loopback_hub
from .whole_runs import small_results

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def draw() -> ModuleType:
    """tests/media/draw.py: clips whose frame numbers can be read back. Loaded by path, for tests are no package."""
    pytest.importorskip("av", reason="drawing clips needs PyAV: pip install -e '.[dev]'")
    spec = importlib.util.spec_from_file_location("mmla_test_media_draw", TESTS / "media" / "draw.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_clips() -> list[Path]:
    """The H.264 clips of other origin beside the clone."""
    folder = TESTS.parents[1] / "shared" / "clips"
    clips = sorted(folder.glob("*.mp4"))
    if not clips:
        pytest.skip(f"no clips under {folder}")
    return clips


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub on loopback; `Hub.environment` makes a process take it for the real one."""
    with loopback_hub() as running:
        yield running


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results that `whole_runs.grown` makes whole runs of."""
    return small_results(tmp_path_factory.mktemp("small"))
