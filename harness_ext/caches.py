"""What is kept on this machine to save time, and how large it may grow: everything lies in one folder.

The folder is ``MMLA_CACHE_DIR``, else the user's cache folder. Deleting any part of it, or all, costs time and nothing
else; several processes may share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness_ext.frame_cache import frame_cache_bytes
from mmla_tasks.places import cache_folder


@dataclass(frozen=True)
class CacheUse:
    """One part of the cache."""

    what: str
    path: Path
    bytes: int
    bound: int | None
    """Bytes that it may take; None where its content bounds it."""


PARTS = {
    "decoded frames": "frames",
    "digests of clips": "digests.sqlite",
    "facts of clips": "clips.sqlite",
    "drawn sample": "sample",
    "small models": "models",
}


def caches() -> list[CacheUse]:
    """Every part of the cache, also those that are not there yet."""
    folder = cache_folder()
    bounds = {"frames": frame_cache_bytes()}
    return [CacheUse(what, folder / name, bytes_below(folder / name), bounds.get(name)) for what, name in PARTS.items()]


def bytes_below(folder: Path, counts: Callable[[str], bool] = lambda name: True) -> int:
    """Bytes of the files below a folder.

    Args:
        folder: May be a file, or missing.
        counts: Whether a file of that name counts.
    """
    if folder.is_file():
        return _size(folder)
    return sum(_size(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names if counts(name))


def _size(file: str | Path) -> int:
    """None of a link that leads nowhere, or of what another process has deleted since it was listed."""
    with suppress(OSError):
        return os.stat(file).st_size
    return 0
