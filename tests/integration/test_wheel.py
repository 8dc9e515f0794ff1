"""The wheel holds what an installed `mmla` needs: task YAMLs, the score card's template, published scores."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_everything_that_is_read_at_run_time_is_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        str(path.relative_to(ROOT))
        for package in ("yaml_tasks", "mmla_tasks", "harness_ext", "finetune")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".j2", ".css", ".js", ".typed") or path.name == "py.typed"
    }
    assert needed - held == set()
    assert not [name for name in held if name.startswith(("tests", "benchmarks"))]
