"""How lm-eval runs MMLA: the task class, the `mmla` command, lazy video, backends, journal, reports.

Importing this package is free: no torch, transformers, vllm, datasets or lm_eval is loaded.
"""

from __future__ import annotations

from typing import Any

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        from harness_ext.run import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
