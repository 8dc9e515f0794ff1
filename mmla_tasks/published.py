"""The published scores, as data with their source (`data/paper_scores.yaml`); unlike our results in percent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, TypedDict, get_args

Method = Literal["zero_shot", "sft", "it"]
"""How a model met the benchmark: without training, tuned on one dataset, tuned on all twelve."""
METHODS: tuple[Method, ...] = get_args(Method)
METHOD_NAMES: Mapping[Method, str] = {"zero_shot": "zero-shot", "sft": "SFT", "it": "IT"}
"""As they are written for readers."""


class PriorBest(TypedDict):
    """The best published specialised method on a dataset."""

    method: str
    accuracy: float
    """Percent."""


def published(method: Method) -> dict[str, dict[str, float]]:
    """Return accuracies in percent, model -> dataset folder -> value, best leaderboard average first.

    Raises:
        ValueError: The method is not one of `METHODS`.
    """
    table = _table(method)
    datasets = table["datasets"]
    return {model: dict(zip(datasets, row, strict=True)) for model, row in table[method].items()}


def leaderboard_average(method: Method) -> dict[str, float]:
    """Return the leaderboard's ACC in percent per model: accuracy over all 15,710 test rows, best first.

    Some models have an average only and no row in `published`.

    Raises:
        ValueError: The method is not one of `METHODS`.
    """
    return dict(_table(method)["leaderboard_average"][method])


def prior_best() -> dict[str, PriorBest]:
    """Return the best specialised method per dataset folder; none is published for the two AnnoMi sets."""
    rows = _load()["prior_best"].items()
    return {dataset: PriorBest(method=method, accuracy=accuracy) for dataset, (method, accuracy) in rows}


def human() -> dict[str, float]:
    """Return human accuracies in percent, for the datasets that have one."""
    return dict(_load()["human"])


def source() -> str:
    """Return where the numbers were read, in one sentence, for score cards."""
    return str(_load()["source"])


def _table(method: str) -> dict[str, Any]:
    if method not in METHODS:
        raise ValueError(f"no published method {method!r}; there are {', '.join(METHODS)}")
    return _load()


@lru_cache(maxsize=1)
def _load() -> dict[str, Any]:
    import yaml

    # The C parser is in every wheel of PyYAML; a build from source may lack it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = resources.files("mmla_tasks").joinpath("data", "paper_scores.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.load(text, Loader=loader)
    return table
