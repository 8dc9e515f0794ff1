"""The arrows between the packages, and what importing them may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "yaml_tasks": set(),
    "mmla_tasks": {"mmla_tasks"},
    "harness_ext": {"harness_ext", "mmla_tasks", "yaml_tasks"},
    "finetune": {"finetune", "harness_ext", "mmla_tasks"},
}
FORBIDDEN = {
    "yaml_tasks": {"lm_eval", "torch", "transformers", "vllm", "peft"},
    "mmla_tasks": {"lm_eval", "torch", "transformers", "vllm", "peft"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = imported(path) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"
        heavy = imported(path) & FORBIDDEN.get(package, set())
        assert not heavy, f"{path} imports {heavy}"


def test_yaml_tasks_holds_no_python_logic() -> None:
    for path in (ROOT / "yaml_tasks").rglob("*.py"):
        assert all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def test_backends_do_not_import_each_other() -> None:
    backends = {path.stem: path for path in (ROOT / "harness_ext" / "backends").glob("*.py")}
    named = {"echo", "predictions", "hf", "api", "vllm"}
    for name in named:
        text = backends[name].read_text()
        assert not [other for other in named - {name} if f"backends.{other} " in text or f"backends.{other}\n" in text]


@pytest.mark.parametrize(
    "module", ["harness_ext", "harness_ext.cli", "mmla_tasks", "harness_ext.video", "harness_ext.requests"]
)
def test_importing_is_free(module: str) -> None:
    heavy = "torch transformers vllm datasets lm_eval av decord PIL sklearn scipy"
    code = f"import sys, {module}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
