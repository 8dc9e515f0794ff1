"""What `mmla data download` noted about a dataset beside it: which commit, which files, which clips.

``<data root>/.mmla/<Folder>.json`` holds the note, ``<Folder>.clips.json`` the digest of every clip.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

NOTES = ".mmla"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Received:
    """Where one dataset came from."""

    repository: str
    commit: str
    texts: Mapping[str, str] = field(default_factory=dict)
    """Text file, from the data root -> SHA-256."""
    archives: Mapping[str, int] = field(default_factory=dict)
    """Archive, from the data root, whose clips are all there -> its bytes."""
    revision: str | None = None
    """As asked for, such as a branch; `commit` is what it was at that time."""
    archive_sha256: Mapping[str, str] = field(default_factory=dict)
    """Archive some or all of whose clips are there -> its SHA-256, or the commit where the Hub tells none; empty where
    clips of several contents may be mixed, since an extraction did not end."""
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Archive -> member that was left out -> why."""

    @property
    def unfinished(self) -> bool:
        """Whether an extraction began and did not end, or the archive has changed since."""
        return any(name not in self.archives for name in self.archive_sha256)

    @classmethod
    def read(cls, root: Path, dataset: str) -> Received | None:
        """The note about a dataset; None where there is none, or none that can be read."""
        with suppress(OSError, ValueError, TypeError):
            return cls._of(json.loads(note_of(root, dataset).read_text(encoding="utf-8")))
        return None

    @classmethod
    def _of(cls, note: Any) -> Received:
        """A note of an older release lacks fields, and one of a newer release has more.

        Raises:
            TypeError: It has another shape.
        """
        if not isinstance(note, dict):
            raise TypeError("a note is an object")
        revision = note.get("revision")
        return cls(
            _as(str, note.get("repository")),
            _as(str, note.get("commit")),
            _mapping(str, note.get("texts", {})),
            _mapping(int, note.get("archives", {})),
            None if revision is None else _as(str, revision),
            _mapping(str, note.get("archive_sha256", {})),
            {name: _mapping(str, why) for name, why in _mapping(dict, note.get("refused", {})).items()},
        )

    def write(self, root: Path, dataset: str) -> None:
        """Replace the note, whole or not at all."""
        _write(note_of(root, dataset), asdict(self))


def note_of(root: Path, dataset: str, kind: str = "") -> Path:
    """The file of a note."""
    return root / NOTES / f"{dataset}{kind}.json"


def read_clip_digests(root: Path, dataset: str) -> dict[str, str]:
    """Clip -> SHA-256 of the archive's copy; empty where nothing was noted."""
    with suppress(OSError, ValueError, TypeError):
        return _mapping(str, json.loads(note_of(root, dataset, ".clips").read_text("utf-8")))
    return {}


def write_clip_digests(root: Path, dataset: str, digests: Mapping[str, str]) -> None:
    """Note the digests of all clips of a dataset."""
    _write(note_of(root, dataset, ".clips"), dict(sorted(digests.items())))


def _write(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.replace(file)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _mapping(kind: type[Value], value: Any) -> dict[str, Value]:
    return {str(key): _as(kind, item) for key, item in _as(dict, value).items()}


def _as(kind: type[Value], value: Any) -> Value:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value
