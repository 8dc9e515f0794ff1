"""The folder of one run: who it belongs to, its journal, results, samples and score card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from harness_ext.journal import Journal
from mmla_tasks.errors import OtherRunError, RunFolderError

MANIFEST = "run.json"
RESULTS = "results.json"
SAMPLES = "samples"
SCORE_CARD = "scorecard.md"
JOURNAL = "journal"


class RunFolder:
    """Opens a run folder for one process and keeps it to one run.

    Args:
        path: Made when missing.
        identity: What all answers of the folder depend on: model, answer mode, protocol, modality, frame policy,
            decoding. JSON-plain.

    Raises:
        OtherRunError: it belongs to a run that differs (every difference is listed), or another process works in it.
        RunFolderError: it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity, default=str))
        self._stack = ExitStack()

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self.journal = self._stack.enter_context(Journal(self.path / JOURNAL))
            self._refuse_other_runs()
        except OSError as error:
            self._stack.close()
            raise self._unwritable(self.path, error) from None
        except RunFolderError:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lock(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OtherRunError(
                f"another process is at work in {self.path}", next="wait for it, or name another --run_dir"
            ) from None
        self._stack.callback(lock.release)

    def _refuse_other_runs(self) -> None:
        """A folder without answers belongs to nobody: the command that made it may have failed at its start."""
        manifest = self.path / MANIFEST
        if not manifest.exists() or not len(self.journal):
            return
        owner = _read_mapping(manifest)
        if owner is None:
            raise OtherRunError("run.json of this folder is damaged", file=manifest, next="name another --run_dir")
        differences = list(_differences(owner, self.identity))
        if differences:
            raise OtherRunError(
                f"{self.path} belongs to a run that differs",
                differs="\n".join(differences),
                next="name another --run_dir, or repeat the command that made it",
            )

    def claim(self) -> None:
        """Write down whose folder this is. Called once the model is loaded, so that a failed start claims nothing.

        Raises:
            RunFolderError: it cannot be written.
        """
        self._write_text(self.path / MANIFEST, _dumped(self.identity))

    def keep_earlier(self, rows: Mapping[str, int], repeats: int = 1) -> Path | None:
        """Move results, samples and score card aside when they cover what the new ones do not.

        Args:
            rows: Leaf task -> rows of the new results.
            repeats: How often the new results asked them.

        Returns:
            The folder ``earlier-N`` they are in now; None when nothing would be lost.
        """
        results = _read_mapping(self.path / RESULTS) or {}
        before = results.get("n-samples") or {}
        repeated = results.get("mmla", {}).get("repeats", {}).get("count", 1)
        if repeats >= repeated and all(rows.get(task, 0) >= counts["effective"] for task, counts in before.items()):
            return None
        aside = self.path / f"earlier-{1 + sum(1 for _ in self.path.glob('earlier-*'))}"
        aside.mkdir()
        for name in (RESULTS, SAMPLES, SCORE_CARD):
            if (self.path / name).exists():
                (self.path / name).rename(aside / name)
        return aside

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write results.json."""
        return self._write_text(self.path / RESULTS, _dumped(results))

    def write_samples(self, task: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write the samples of one task as JSONL."""
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True, default=str) + "\n" for row in rows)
        return self._write_text(self.path / SAMPLES / f"{task}.jsonl", text)

    def write_score_card(self, markdown: str) -> Path:
        """Write scorecard.md."""
        return self._write_text(self.path / SCORE_CARD, markdown)

    def _write_text(self, path: Path, text: str) -> Path:
        """Write beside, then rename: a reader, or a full disk, never sees half a file.

        Raises:
            RunFolderError: it cannot be written; the journal is intact.
        """
        aside = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(exist_ok=True)
            aside.write_text(text, encoding="utf-8", newline="\n")
            os.replace(aside, path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise self._unwritable(path, error) from None
        return path

    def _unwritable(self, path: Path, error: OSError) -> RunFolderError:
        return RunFolderError(
            "the run folder cannot be written",
            file=path,
            why=error.strerror or error,
            next="free space or name another --run_dir; answers already in the journal are kept",
        )


def _read_mapping(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _differences(owner: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterable[str]:
    for key in sorted(owner.keys() | now.keys()):
        before, after, name = owner.get(key), now.get(key), f"{at}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{name}.")
        elif before != after:
            yield f"{name}: {_shown(before)} there, {_shown(after)} now"


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
