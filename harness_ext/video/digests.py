"""A clip's content as a digest, computed once for each file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache

from harness_ext.video.files import Source, UnreadableError, clip_error, source_of
from mmla_tasks.places import cache_folder
from mmla_tasks.records import Clip

STORE = "digests.sqlite"


def clip_digest(clip: Clip, *, who: str = "") -> str:
    """SHA-256 of the clip's whole file, 64 hex digits; cached by path, size and mtime, also from run to run.

    Args:
        clip: Its file as it is now counts, not the size and time in the reference.
        who: Who asks, for the error.

    Raises:
        ClipError: The file is missing, empty or unreadable.
    """
    try:
        return _digest(source_of(clip["path"]))
    except UnreadableError as error:
        raise clip_error(clip["path"], who, error) from None
    except OSError as error:
        raise clip_error(clip["path"], who, UnreadableError(error.strerror or str(error))) from None


@lru_cache(maxsize=65_536)
def _digest(source: Source) -> str:
    known = _stored_digest(source)
    if known is None:
        with open(source.path, "rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        _store_digest(source, known)
    return known


def _stored_digest(source: Source) -> str | None:
    """Look into the cache on disk; a cache that can't be used costs time, never a run."""
    with _unless_damaged(), closing(_digest_store()) as store:
        row = store.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime_ns = ?", source
        ).fetchone()
        return str(row[0]) if row else None
    return None


def _store_digest(source: Source, digest: str) -> None:
    with _unless_damaged(), closing(_digest_store()) as store, store:
        store.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (*source, digest))


@contextmanager
def _unless_damaged() -> Iterator[None]:
    """Go on without the cache when it fails; one that is no database any more is deleted, to be made again."""
    try:
        yield
    except (sqlite3.OperationalError, OSError):  # busy, read-only, full: it may do the next time
        pass
    except sqlite3.DatabaseError:
        with suppress(OSError):
            (cache_folder() / STORE).unlink(missing_ok=True)


def _digest_store() -> sqlite3.Connection:
    """Open ``digests.sqlite`` in the cache folder; SQLite lets several processes share it."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(folder / STORE, timeout=30)
    store.execute("PRAGMA synchronous = OFF")  # a lost entry is computed again
    store.execute(
        "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
    )
    return store
