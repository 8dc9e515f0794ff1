"""The folder of one fine-tuning run: whose it is, its logs, checkpoints, the selected adapter or model, its record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from finetune.config import Config
from harness_ext.run_folder import differences, read_mapping
from mmla_tasks.errors import OtherRunError, RunFolderError

CONFIG = "config.yaml"
LOG = "log.jsonl"
LOOKS = "selection.jsonl"
CURVE = "curve.png"
CHECKPOINTS = "checkpoints"
BEST = "best"
ADAPTER = "adapter"
MODEL = "model"
RECORD = "training.json"
PREFIX = "checkpoint-"
FREE = ("report_to", "keep_checkpoints", "evaluate", "workers", "output_dir", "max_length")
"""Keys that change nothing about what is learnt: they may differ from command to command."""
READ = ("data", "base")
"""What a run depends on and only knows when data and model are read."""


class Output:
    """A run folder, kept to one run while it is `held`.

    Args:
        path: The folder; `held` makes it.
        config: The run's.
        facts: What else the run depends on, such as the number of processes.
    """

    def __init__(self, path: Path, config: Config, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config
        self.identity = {**{k: v for k, v in config.plain().items() if k not in FREE}, **facts}

    @property
    def selected(self) -> Path:
        """Where the selected adapter or model is when the run is done."""
        return self.path / (ADAPTER if self.config.adapter == "lora" else MODEL)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to go on from."""
        return self.path / CHECKPOINTS

    @property
    def record(self) -> dict[str, Any] | None:
        """What a finished run wrote down; None while it is not finished."""
        return read_mapping(self.path / RECORD)

    @contextmanager
    def held(self, first: bool = True) -> Iterator[None]:
        """Hold the folder while the run lasts; of several processes the first one does it for all.

        Raises:
            OtherRunError: it belongs to a run that differs, with every difference, or another process works in it.
            RunFolderError: it cannot be written.
        """
        from filelock import FileLock, Timeout

        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_other_runs()
        if not first:
            yield
            return
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OtherRunError(
                f"another process is at work in {self.path}", next="wait for it, or name another output_dir"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _refuse_other_runs(self) -> None:
        owner = read_mapping(self.path / "run.json")
        if owner is None or not (self.last_checkpoint() or self.record):
            return
        known = {key: value for key, value in owner.items() if key in self.identity or key not in READ}
        listed = list(differences(known, self.identity))
        if listed:
            raise OtherRunError(
                f"{self.path} belongs to a run that differs",
                differs="\n".join(listed),
                next="name another output_dir, or repeat the command that made it",
            )

    def depends_on(self, facts: Mapping[str, Any]) -> None:
        """Add what the run depends on as well, see `READ`.

        Raises:
            OtherRunError: the run that began here depended on something else.
        """
        self.identity |= facts
        self._refuse_other_runs()

    def claim(self) -> None:
        """Write down whose folder this is."""
        with self.writing():
            self.write_json("run.json", self.identity)
            written = yaml.safe_dump(self.config.plain(), sort_keys=False, allow_unicode=True)
            self._write(CONFIG, written)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say which folder it was when something cannot be written.

        Raises:
            RunFolderError: with what is left intact.
        """
        try:
            yield
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: BaseException, what: str = "the run folder") -> RunFolderError:
        """The error for something that cannot be written."""
        last = self.last_checkpoint()
        return RunFolderError(
            f"{what} cannot be written",
            folder=self.path,
            why=str(getattr(error, "strerror", None) or error).strip().split("\n")[0],
            intact=f"{last.relative_to(self.path)} and what was selected before" if last else None,
            next="free space and give the same command again: it goes on from there" if last else "free space",
        )

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint; they are whole, for they are renamed into place."""
        found = self._by_step(self.checkpoints)
        return found[-1] if found else None

    def _by_step(self, folder: Path) -> list[Path]:
        there = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
        return sorted(there, key=step_of)

    def keep(self, count: int) -> None:
        """Delete all but the newest checkpoints."""
        for path in self._by_step(self.checkpoints)[:-count]:
            shutil.rmtree(path, ignore_errors=True)

    def best(self, step: int) -> Path:
        """Where what was best at a step is kept."""
        return self.path / BEST / f"{PREFIX}{step}"

    def keep_best(self, step: int | None) -> None:
        """Delete what was best before `step`."""
        for path in self._by_step(self.path / BEST):
            if step is not None and step_of(path) < step:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def whole(self, target: Path, *, first: bool, what: str, barrier: Any = None) -> Iterator[Path]:
        """Write a folder beside its place and rename it when it is whole.

        Args:
            target: Its place.
            first: Whether this process renames.
            what: For the error.
            barrier: Waits for all processes.

        Raises:
            RunFolderError: it could not be written; nothing of it is left, and what was there before is intact.
        """
        aside = target.with_name(f"{target.name}.part")
        try:
            if first:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
            if barrier:
                barrier()
            yield aside
            if barrier:
                barrier()
            if first:
                shutil.rmtree(target, ignore_errors=True)
                os.replace(aside, target)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not _is_about_writing(error):
                raise
            raise self.unwritable(error, what) from error

    # ---- logs ----------------------------------------------------------------------------------------------------

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to a log."""
        with self.writing(), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """All lines of a log; one that a killed process left torn is left out."""
        rows = []
        with suppress(FileNotFoundError):
            for line in (self.path / name).read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def rewind(self, step: int) -> None:
        """Forget what logs say of steps after `step`, from which the run goes on."""
        for name in (LOG, LOOKS):
            rows = [row for row in self.lines(name) if row["step"] <= step]
            self._write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a JSON file."""
        return self._write(name, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        aside = path.with_name(f"{path.name}.part")
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_text(text, encoding="utf-8", newline="\n")
                os.replace(aside, path)
            except OSError:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise
        return path


def step_of(path: Path) -> int:
    """Step of a checkpoint folder."""
    return int(path.name.removeprefix(PREFIX))


def _is_about_writing(error: BaseException) -> bool:
    """Libraries that write tensors have their own ways to say that a disk is full."""
    text = str(error).lower()
    said = (
        "no space left",
        "i/o error",
        "iostream error",
        "failed writing",
        "file too large",
        "enforce fail at inline",
    )
    return isinstance(error, OSError) or any(phrase in text for phrase in said)
