"""The command line of `mmla finetune`: a config file, and every key of it as a flag."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

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
    """All keys with their defaults, choices and meaning."""
    return "\n".join(line for key in known_keys() if not _is_section(key) for line in _key_help(key))


def _key_help(key: str) -> Iterator[str]:
    info = _field(key)
    yield f"  --{key:<28} {_default(info)}"
    choices = [one for kind in (info.annotation, *get_args(info.annotation)) for one in get_args(kind)]
    words = [one for one in choices if isinstance(one, str)] if Literal in _origins(info.annotation) else []
    about = " ".join(" ".join((f"One of {', '.join(words)}." if words else "", info.description or "")).split())
    plain = about.replace("``", "").replace("`", "")
    yield from textwrap.wrap(plain, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _origins(annotation: Any) -> set[Any]:
    """What an annotation is made of, such as ``Literal`` inside ``Literal[...] | None``."""
    return {get_origin(annotation), *(origin for part in get_args(annotation) for origin in [get_origin(part)])}


def _is_section(key: str) -> bool:
    info = Config.model_fields.get(key)
    return info is not None and isinstance(info.default, Section)


def _field(key: str) -> FieldInfo:
    section, _, inner = key.rpartition(".")
    fields = type(Config.model_fields[section].default).model_fields if section else Config.model_fields
    return fields[inner]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "none unless given" if info.default is None else f"{info.default}"
