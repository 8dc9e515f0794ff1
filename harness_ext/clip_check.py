"""Clips looked at before anything is asked: a cheap probe of every file, header and packets, nothing decoded.

What a probe found is kept (`clip_facts`), by path, size, time and PyAV's version, so that looking again costs nothing.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Final

from harness_ext.clip_facts import Facts, FactStore
from harness_ext.session import WITHOUT_CLIP, mending_command, missing_clip, on_this_root
from harness_ext.video import Probe, probe_all, reader_versions
from mmla_tasks.errors import ClipError, ClipFault
from mmla_tasks.records import Clip, Document

Probed = Probe | ClipError
"""What is known of a clip file: what its packets tell, or what is wrong with it."""
OnProgress = Callable[[int, int], None]
"""Told how many files are probed, and of how many."""

PASSING: Final[frozenset[ClipFault]] = frozenset({"timeout", "memory", "crash", "unforeseen"})
"""Faults that may lie in the machine at that moment; they are looked at again."""
LISTED_BY: Final = "mmla doctor lists all bad clips, and what is wrong with each"
SHOWN: Final = 20
"""Rows that an error names of each fault before it counts the rest."""
_ASKED_AT_ONCE: Final = 16
_KEPT_AT_ONCE: Final = 256


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def probe_files(
    paths: Iterable[str], *, workers: int, on_progress: OnProgress = lambda done, total: None
) -> dict[str, Probed]:
    """Probe files in threads, each once; what was found before in an unchanged file is not looked at again.

    Args:
        paths: Of files that are there and not empty.
        workers: Threads.
        on_progress: See `OnProgress`; told of files that are opened.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    states = {path: state for path in dict.fromkeys(paths) if (state := _state(path))}
    store = FactStore("probes")
    found = {path: _from_facts(facts) for path, facts in store.known(states).items()}
    new: dict[str, Facts] = {}
    try:
        for path, probed in _probed([path for path in states if path not in found], workers, on_progress):
            found[path] = probed
            if _is_lasting(probed):
                new[path] = _to_facts(probed)
            if len(new) >= _KEPT_AT_ONCE:
                store.keep(new, states)
                new = {}
    finally:  # also when it is interrupted
        store.keep(new, states)
    return found


def _state(path: str) -> str | None:
    """What a file's facts depend on; None where it is gone."""
    with suppress(OSError):
        stat = os.stat(path)
        told = ",".join(field.name for field in fields(Probe))  # another release of ours may keep other facts
        return f"{stat.st_size} {stat.st_mtime_ns} {' '.join(reader_versions('pyav'))} {told}"
    return None


def _probed(paths: Sequence[str], workers: int, on_progress: OnProgress) -> Iterator[tuple[str, Probed]]:
    """Each file as soon as it is probed; whoever stops taking ends the rest."""
    parts = [paths[first : first + _ASKED_AT_ONCE] for first in range(0, len(paths), _ASKED_AT_ONCE)]
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="mmla-probe") as pool:
        futures = {pool.submit(probe_all, part): part for part in parts}
        try:
            for future in as_completed(futures):
                found = future.result()
                yield from zip(futures[future], found, strict=True)
                done += len(found)
                on_progress(done, len(paths))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _is_lasting(probed: Probed) -> bool:
    return not (isinstance(probed, ClipError) and probed.fault in PASSING)


def _to_facts(probed: Probed) -> Facts:
    if isinstance(probed, ClipError):
        return {"fault": probed.fault, "what": probed.what, "details": probed.details}
    return dict(vars(probed))


def _from_facts(facts: Facts) -> Probed:
    if "fault" in facts:
        return ClipError(facts["what"], facts["details"], fault=facts["fault"])
    return Probe(**facts)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class BadRow:
    """A row whose clip can't be shown."""

    task: str
    id: str
    path: str
    error: ClipError
    """Names the row."""


@dataclass(frozen=True)
class ClipCheck:
    """What is wrong with the clips of some rows."""

    clips: int
    """Rows that have one."""
    bad: Sequence[BadRow]
    """In the order of the rows."""

    @property
    def by_path(self) -> dict[str, ClipError]:
        """File -> what is wrong with it."""
        return {row.path: row.error for row in self.bad}

    @property
    def counts(self) -> str:
        """Such as ``3 missing, 1 empty``."""
        return ", ".join(f"{len(rows):,} {fault}" for fault, rows in self._by_fault().items())

    def error(self, datasets: Mapping[str, str], data_dir: str | None = None) -> ClipError:
        """The error for all of them: the first in full, the others counted and named.

        Args:
            datasets: Task -> its dataset, for what mends it.
            data_dir: Where the clips were looked for, as given.
        """
        first = self.bad[0]
        details = {name: value for name, value in first.error.details.items() if name != "next"}
        others = {f"also {fault.replace('_', ' ')}": _listed(rows) for fault, rows in self._by_fault(1).items()}
        known = filter(None, (mending_command(datasets[row.task]) for row in self.bad))
        mending = dict.fromkeys(on_this_root(command, data_dir) for command in known)
        also = len(self.bad) - 1
        return ClipError(
            first.error.what,
            {
                **details,
                **({"also": f"{also:,} more clips of {self.clips:,} are bad"} if also else {}),
                **others,
                "next": "\n".join([*(mending or ["get the clip"]), f"or {WITHOUT_CLIP}", LISTED_BY]),
            },
            fault=first.error.fault,
        )

    def _by_fault(self, after: int = 0) -> dict[ClipFault, list[BadRow]]:
        groups: dict[ClipFault, list[BadRow]] = {}
        for row in self.bad[after:]:
            groups.setdefault(row.error.fault, []).append(row)
        return groups


def _listed(rows: Sequence[BadRow]) -> str:
    tasks: dict[str, list[str]] = {}
    for row in rows[:SHOWN]:
        tasks.setdefault(row.task, []).append(row.id)
    more = f"\nand {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return "\n".join(f"{task} {', '.join(ids)}" for task, ids in tasks.items()) + more


def check_clips(
    documents: Mapping[str, Sequence[Document]], probed: Callable[[Sequence[str]], Mapping[str, Probed]]
) -> ClipCheck:
    """Look at the clips of some rows before they are needed.

    Args:
        documents: Task -> its documents; those without a clip are passed over.
        probed: Gives what is known of files; `probe_files`, or nothing where they can't be opened.
    """
    rows = [(task, row["id"], row["clip"]) for task, rows in documents.items() for row in rows if row["clip"]]
    known = probed([clip["path"] for _, _, clip in rows if clip["size"]])
    bad = (BadRow(t, i, clip["path"], e) for t, i, clip in rows if (e := _fault(t, i, clip, known)))
    return ClipCheck(len(rows), list(bad))


def _fault(task: str, doc_id: str, clip: Clip, known: Mapping[str, Probed]) -> ClipError | None:
    """What is wrong with a row's clip, in an error that names the row."""
    if not clip["size"]:
        return missing_clip(task, doc_id, clip)
    error = known.get(clip["path"])
    if not isinstance(error, ClipError):
        return None
    return ClipError(f"clip for {task} id {doc_id} can't be read", error.details, fault=error.fault)
