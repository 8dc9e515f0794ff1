"""One part of a run whose rows are split over the jobs of an array: `--shard i/n`, put together by `mmla merge`.

A shard answers every n-th row and leaves, beside its own results, a record of all that scoring needs besides rows:
`merge` scores the rows of all shards again with it, without the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from harness_ext.masking import masked
from harness_ext.released import FAMILIES
from harness_ext.results import model_identity
from mmla_tasks.errors import UsageError

if TYPE_CHECKING:
    from harness_ext.run import RunOptions

Row = TypeVar("Row")

SCHEMA = 1
"""Version of the record; raised when a reader of older ones would misread it."""

_NOT_RECORDED = ("run_dir", "device", "max_batch_size", "decode_limits", "write_out")
"""Options that say where and how fast, and stand in no results."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            UsageError: it is no part of anything.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"--shard {text} is no shard", next="--shard 1/8 is the first of eight, --shard 8/8 the last"
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """As files and folders are called: ``2-of-8``."""
        return f"{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"shard {self.index} of {self.count}"

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """This shard's rows of one task: every `count`-th, so that every shard sees every part of a dataset."""
        return list(rows[self.index - 1 :: self.count])


def record(options: RunOptions, backend: Any, results: Mapping[str, Any]) -> dict[str, Any]:
    """What `merge` needs to know of a shard besides its sample rows, JSON-plain.

    Args:
        options: As they were given.
        backend: The model that answered.
        results: The shard's own.
    """
    given = {name: getattr(options, name) for name in options.__dataclass_fields__ if name not in _NOT_RECORDED}
    plain = {
        "schema": SCHEMA,
        "options": masked(given),
        "backend": _about(backend, options),
        "versions": results["mmla"]["versions"],
        "training": results["mmla"].get("training", []),
        "tasks": asked_of(results),
    }
    return _plain(plain)


def asked_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Leaf name -> what a run asked it: prompt, labels, decoding, and the digest of its texts. JSON-plain."""
    blocks = results["mmla"]["tasks"].items()
    return _plain({name: {**results["configs"][name], "data": block["data"]} for name, block in blocks})


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return copied


def _about(backend: Any, options: RunOptions) -> dict[str, Any]:
    """Everything of a backend that results are made of."""
    policy = getattr(backend, "frame_policy", None)
    config = getattr(backend, "model_config", SimpleNamespace())
    has_template = bool(getattr(backend, "has_chat_template", False))
    prices = getattr(backend, "prices", None)
    return {
        "identity": model_identity(backend),
        "answer_mode": backend.answer_mode,
        "deterministic": bool(backend.deterministic),
        "prices": asdict(prices) if prices is not None else None,
        "multimodal": bool(getattr(backend, "MULTIMODAL", False)),
        "frame_policy": policy.to_dict() if policy is not None else None,
        "has_chat_template": has_template,
        "chat_template": backend.chat_template(options.apply_chat_template or has_template),
        "rule": getattr(backend, "rule", None),
        "model_config": {key: getattr(config, key, None) for family in FAMILIES for key in family.config},
        "own_decoding": backend.checkpoint_decoding() if hasattr(backend, "checkpoint_decoding") else {},
    }
