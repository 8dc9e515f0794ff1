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
from mmla_tasks.errors import RunFolderError

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
        RunFolderError: it belongs to a run that differs (every difference is listed), another process works in it,
            or it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity, default=str))
        self._stack = ExitStack()

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._claim()
            self.journal = self._stack.enter_context(Journal(self.path / JOURNAL))
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
            raise RunFolderError(
                f"another process is at work in {self.path}", next="wait for it, or name another --run_dir"
            ) from None
        self._stack.callback(lock.release)

    def _claim(self) -> None:
        manifest = self.path / MANIFEST
        if not manifest.exists():
            self._write_text(manifest, _dumped(self.identity))
            return
        try:
            owner = json.loads(manifest.read_text(encoding="utf-8"))
        except ValueError:
            raise RunFolderError(
                "run.json of this folder is damaged", file=manifest, next="name another --run_dir"
            ) from None
        differences = list(_differences(owner, self.identity))
        if differences:
            raise RunFolderError(
                f"{self.path} belongs to a run that differs",
                differs="\n".join(differences),
                next="name another --run_dir, or repeat the command that made it",
            )

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write results.json; earlier results over other tasks or more rows are kept under another name."""
        path = self.path / RESULTS
        if path.exists():
            self._keep_earlier(path, results)
        return self._write_text(path, _dumped(results))

    def write_samples(self, task: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write the samples of one task as JSONL."""
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True, default=str) + "\n" for row in rows)
        return self._write_text(self.path / SAMPLES / f"{task}.jsonl", text)

    def write_score_card(self, markdown: str) -> Path:
        """Write scorecard.md."""
        return self._write_text(self.path / SCORE_CARD, markdown)

    def _keep_earlier(self, path: Path, results: Mapping[str, Any]) -> None:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["n-samples"]
        except (ValueError, KeyError):
            return
        now = results["n-samples"]
        lost = [t for t, n in before.items() if t not in now or now[t]["effective"] < n["effective"]]
        if lost:
            number = 1 + sum(1 for _ in self.path.glob("results-*.json"))
            path.rename(path.with_name(f"results-{number}.json"))

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
