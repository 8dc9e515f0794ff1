"""The folder of one run: who it belongs to, its journal, results, samples and score card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness_ext.journal import WRITER, Journal
from harness_ext.ranks import Ranks
from harness_ext.shards import Shard
from mmla_tasks.errors import OtherRunError, RunFolderError

if TYPE_CHECKING:
    from filelock import FileLock

MANIFEST = "run.json"
RESULTS = "results.json"
SAMPLES = "samples"
SCORE_CARD = "scorecard.md"
JOURNAL = "journal"
SHARDS = "shards"
RECORD = "shard.json"

_MOMENT_SECONDS = 10
"""How long a shard waits for others that are just opening the folder."""


class RunFolder:
    """Opens a run folder and keeps it to one run.

    A whole run has the folder for itself. Shards work in it side by side, each with its own part.

    Args:
        path: Made when missing.
        identity: What all answers of the folder depend on: model, answer mode, protocol, modality, frame policy,
            decoding. JSON-plain.
        shard: The part that this run is, if it is one.
        ranks: The processes that share this run; the first one holds the lock for all.

    Attributes:
        journal: Answers of all runs and shards in this folder.
        output: Where results, samples and score card go: the folder itself, or the shard's own in it.

    Raises:
        OtherRunError: it belongs to a run that differs (every difference is listed), or another process works in it.
        RunFolderError: it cannot be written.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], *, shard: Shard | None = None, ranks: Ranks | None = None
    ) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity, default=str))
        self.output = path / SHARDS / shard.name if shard else path
        self._shard = shard
        self._ranks = ranks or Ranks()
        names = [WRITER, shard and shard.name, self._ranks.index or None]
        self._writer = "-".join(str(name) for name in names if name)
        self._stack = ExitStack()

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._ranks.is_first:
                self._lock()
            self._ranks.wait()
            self.journal = self._stack.enter_context(Journal(self.path / JOURNAL, self._writer))
            self._refuse_other_runs()
        except OSError as error:
            self._stack.close()
            raise self._unwritable(self.path, error) from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lock(self) -> None:
        """Take the folder, or within it the shard. Locks end with their process, however it ends."""
        whole = self._held(self.path / ".lock", "another process", _MOMENT_SECONDS if self._shard else 0)
        if self._shard:
            self._held(self.path / f".lock-{self._shard.name}", f"another process with {self._shard}")
            whole.release()
            return
        for path in sorted(self.path.glob(".lock-*-of-*")):
            shard = Shard.read(path.name.removeprefix(".lock-").replace("-of-", "/"))
            self._held(path, f"a process with {shard}").release()

    def _held(self, path: Path, whose: str, timeout: float = 0) -> FileLock:
        from filelock import FileLock, Timeout

        lock = FileLock(path)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise OtherRunError(
                f"{whose} is at work in {self.path}", next="wait for it, or name another --run_dir"
            ) from None
        self._stack.callback(lock.release)
        return lock

    def _refuse_other_runs(self) -> None:
        """A folder without answers belongs to nobody: the command that made it may have failed at its start."""
        manifest = self.path / MANIFEST
        if not manifest.exists() or not any(file.stat().st_size for file in self.journal.folder.iterdir()):
            return
        owner = read_mapping(manifest)
        if owner is None:
            raise OtherRunError("run.json of this folder is damaged", file=manifest, next="name another --run_dir")
        listed = list(differences(owner, self.identity))
        if listed:
            raise OtherRunError(
                f"{self.path} belongs to a run that differs",
                differs="\n".join(listed),
                next="name another --run_dir, or repeat the command that made it",
            )

    def claim(self) -> None:
        """Write down whose folder this is. Called once the model is loaded, so that a failed start claims nothing.

        Raises:
            OtherRunError: a shard of another run has begun to answer meanwhile.
            RunFolderError: it cannot be written.
        """
        self._refuse_other_runs()
        self._write_text(self.path / MANIFEST, _dumped(self.identity))

    def keep_earlier(self, rows: Mapping[str, int], repeats: int = 1) -> Path | None:
        """Move results, samples and score card aside when they cover what the new ones do not.

        Args:
            rows: Leaf task -> rows of the new results.
            repeats: How often the new results asked them.

        Returns:
            The folder ``earlier-N`` they are in now; None when nothing would be lost.
        """
        results = read_mapping(self.output / RESULTS) or {}
        before = results.get("n-samples") or {}
        repeated = results.get("mmla", {}).get("repeats", {}).get("count", 1)
        if repeats >= repeated and all(rows.get(task, 0) >= counts["effective"] for task, counts in before.items()):
            return None
        aside = self.output / f"earlier-{1 + sum(1 for _ in self.output.glob('earlier-*'))}"
        aside.mkdir()
        for name in (RECORD, RESULTS, SAMPLES, SCORE_CARD):
            if (self.output / name).exists():
                (self.output / name).rename(aside / name)
        return aside

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write results.json."""
        return self._write_text(self.output / RESULTS, _dumped(results))

    def write_samples(self, task: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write the samples of one task as JSONL."""
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True, default=str) + "\n" for row in rows)
        return self._write_text(self.output / SAMPLES / f"{task}.jsonl", text)

    def write_score_card(self, markdown: str) -> Path:
        """Write scorecard.md."""
        return self._write_text(self.output / SCORE_CARD, markdown)

    def write_record(self, record: Mapping[str, Any]) -> Path:
        """Write shard.json, by which `mmla merge` knows a finished shard."""
        return self._write_text(self.output / RECORD, _dumped(record))

    def _write_text(self, path: Path, text: str) -> Path:
        """Write beside, then rename: a reader, or a full disk, never sees half a file.

        Raises:
            RunFolderError: it cannot be written; the journal is intact.
        """
        aside = path.with_name(f"{path.name}.{self._writer}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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


def read_mapping(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], here: str = "there", there: str = "now", at: str = ""
) -> Iterable[str]:
    """A line for every value in which two JSON-plain mappings differ; `here` and `there` say which is which."""
    for key in sorted(one.keys() | other.keys()):
        before, after, name = one.get(key), other.get(key), f"{at}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, here, there, f"{name}.")
        elif before != after:
            yield f"{name}: {_shown(before)} {here}, {_shown(after)} {there}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
