"""The command line of `mmla finetune`: a config file, and every key of it as a flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from finetune.config import Config, Section, known_keys
from mmla_tasks.errors import UsageError, suggest

LISTS = ("tasks", "include_path", "report_to", "lora.targets")
"""Keys that take several words."""


def read_arguments(arguments: list[str]) -> tuple[Path | None, dict[str, Any]]:
    """Split a command line into the config file and the flags.

    Flags are ``--key value`` or ``--key=value``, a key inside a section with a dot: ``--lora.rank 8``.

    Raises:
        UsageError: a flag that is no key, without a value, or a second file.
    """
    path: Path | None = None
    flags: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if path is not None:
                raise UsageError(f"two configs are named: {path} and {word}", next="name one; flags go over it")
            path = Path(word)
            continue
        key, given, value = word.removeprefix("--").partition("=")
        if key not in known_keys():
            raise UsageError(f"`--{key}` is no key of a config", hint=suggest(key, known_keys()))
        taken = [value] if given else _values(words, key)
        if not taken:
            raise UsageError(f"--{key} needs a value")
        flags[key] = _read(key, taken)
    return path, flags


def _values(words: list[str], key: str) -> list[str]:
    taken: list[str] = []
    while words and not words[0].startswith("--") and (key in LISTS or not taken):
        taken.append(words.pop(0))
    return taken


def _read(key: str, words: list[str]) -> Any:
    if key in LISTS:
        listed = [part.strip() for part in " ".join(words).strip("[]").replace(",", " ").split()]
        return listed[0] if key == "lora.targets" and len(listed) == 1 else listed
    try:
        return yaml.safe_load(words[0])
    except yaml.YAMLError:
        return words[0]


def keys_help() -> str:
    """All keys with their defaults."""
    return "\n".join(f"  --{key:<28} {_default(key)}" for key in known_keys() if not _is_section(key))


def _is_section(key: str) -> bool:
    info = Config.model_fields.get(key)
    return info is not None and isinstance(info.default, Section)


def _default(key: str) -> str:
    section, _, inner = key.rpartition(".")
    fields = type(Config.model_fields[section].default).model_fields if section else Config.model_fields
    info = fields[inner]
    if info.is_required():
        return "required"
    return "none unless given" if info.default is None else f"{info.default}"
