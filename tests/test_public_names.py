"""The public surface: small, sorted, and changed on purpose."""

from __future__ import annotations

import mmla_tasks


def test_all_is_what_is_there_and_sorted() -> None:
    public = {n for n in vars(mmla_tasks) if not n.startswith("_") and n not in ("annotations",)}
    modules = {n for n in public if hasattr(getattr(mmla_tasks, n), "__path__") or n in submodules()}
    assert len(set(mmla_tasks.__all__)) == len(mmla_tasks.__all__)  # ruff sorts it (RUF022)
    assert set(mmla_tasks.__all__) <= set(dir(mmla_tasks))
    assert public - modules <= set(mmla_tasks.__all__)


def submodules() -> set[str]:
    import pkgutil

    return {m.name for m in pkgutil.iter_modules(mmla_tasks.__path__)}


def test_harness_ext_offers_evaluate_alone() -> None:
    import harness_ext

    assert harness_ext.__all__ == ["evaluate"]
    assert callable(harness_ext.evaluate)
