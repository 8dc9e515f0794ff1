"""What was found out about clip files, from one command to the next: ``clips.sqlite`` in the cache folder.

A fact belongs to a key (a path, a digest) in a state (size and time of the file, version of the reader); in another
state it is found out again. Each carries a digest of its own: a damaged one is not there. The store is shared by
threads and processes, and one that can't be used costs time, never a run.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from harness_ext.video import cache_folder

STORE: Final = "clips.sqlite"
BOUND: Final = 200_000
"""Facts of a kind that are kept; the oldest go first."""
_AT_ONCE: Final = 500
"""Keys that SQLite is asked for at once."""

_UNUSABLE: Final = (sqlite3.Error, OSError, ValueError)

Facts = dict[str, Any]


@dataclass(frozen=True)
class FactStore:
    """Facts of one kind."""

    kind: Literal["probes", "decodes"]

    def known(self, states: Mapping[str, str]) -> dict[str, Facts]:
        """Key -> its facts, where they are known.

        Args:
            states: Key -> the state that it is in.
        """
        found: dict[str, Facts] = {}
        asked = list(states)
        with suppress(*_UNUSABLE), self._opened() as store:
            for first in range(0, len(asked), _AT_ONCE):
                keys = asked[first : first + _AT_ONCE]
                places = ", ".join("?" * len(keys))
                rows = store.execute(f"SELECT key, state, facts, digest FROM {self.kind} WHERE key IN ({places})", keys)
                for key, state, facts, digest in rows:
                    if state == states[key] and digest == _digest(key, state, facts):
                        found[key] = json.loads(facts)
        return found

    def keep(self, facts: Mapping[str, Facts], states: Mapping[str, str]) -> None:
        """Remember facts in the place of older ones.

        Args:
            facts: Key -> facts, JSON-plain.
            states: Key -> the state that they were found in.
        """
        texts = {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}
        rows = [(key, states[key], text, _digest(key, states[key], text)) for key, text in texts.items()]
        if not rows:
            return
        with suppress(*_UNUSABLE), self._opened() as store, store:
            store.executemany(f"INSERT OR REPLACE INTO {self.kind} VALUES (?, ?, ?, ?)", rows)
            store.execute(f"DELETE FROM {self.kind} WHERE rowid <= (SELECT max(rowid) FROM {self.kind}) - {BOUND}")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The store for one use; what is no database, or a damaged one, is removed."""
        path = cache_folder() / STORE
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(path, timeout=30)) as store:
                store.execute("PRAGMA synchronous = OFF")  # a lost fact is found out again
                columns = "key TEXT PRIMARY KEY, state TEXT, facts TEXT, digest TEXT"
                store.execute(f"CREATE TABLE IF NOT EXISTS {self.kind} ({columns})")
                yield store
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError):  # that is a lock, or a full disk
                path.unlink(missing_ok=True)
            raise


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
