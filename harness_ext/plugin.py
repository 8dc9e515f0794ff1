"""Tells lm-eval about our backends.

Later lm-eval releases read the entry points of pyproject.toml; 0.4.13 does not, so `mmla run` registers here. The
built-in models must be registered first: lm-eval takes a non-empty registry as complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmla_tasks.errors import MissingExtraError

BACKENDS = {
    "mmla-api": "harness_ext.backends.api:APILabelLM",
    "mmla-echo": "harness_ext.backends.echo:EchoLM",
    "mmla-hf": "harness_ext.backends.hf:HFLabelLM",
    "mmla-predictions": "harness_ext.backends.predictions:PredictionsLM",
    "mmla-vllm": "harness_ext.backends.vllm:VLLMLabelLM",
}
"""Name -> ``module:class``, loaded on first use."""


def register() -> None:
    """Register every backend by name; harmless when repeated."""
    import lm_eval.models  # noqa: F401  # first, see above
    from lm_eval.api.registry import model_registry

    for name, target in BACKENDS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


@contextmanager
def installed(name: str) -> Iterator[None]:
    """Say which extra brings the package that a backend misses.

    Raises:
        MissingExtraError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra=name.removeprefix("mmla-"), purpose=name) from None


def backend_class(name: str) -> Any:
    """The class of one of our backends.

    Raises:
        MissingExtraError: a package that it needs at once is not installed.
    """
    from lm_eval.api.registry import get_model

    register()
    with installed(name):
        return get_model(name)
