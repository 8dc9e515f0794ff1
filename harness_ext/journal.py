"""The journal: one line per answer, so that an interrupted run goes on where it stopped.

A line is the request's key and the response with all that is known about it. The key says everything an answer
depends on (see `request_key`); what only describes it, such as the frames' fingerprint, stands beside the answer.

Every process that answers writes a file of its own and reads those of all: `docs/decisions/006-journal.md`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from harness_ext.durable import DurableLines
from harness_ext.requests import Request, Response
from mmla_tasks.errors import RunFolderError

WRITER = "answers"
"""The writer of an ordinary run; shards and further processes add their own name."""

_SEAL = ', "crc": '
"""Stands before the checksum, the last key of a line."""


def request_key(request: Request, *, model: Mapping[str, Any], clip_digest: str | None, seed: int | None = None) -> str:
    """Hash of everything an answer depends on.

    Args:
        request: Its task and version, id, prompt, labels and decoding count.
        model: Identity of model, adapter, answer mode and frame policy.
        clip_digest: Digest of the clip's file and span; None without a readable clip.
        seed: The torch seed, which counts where answers are sampled.
    """
    parts = {
        "task": request.task,
        "version": request.version,
        "id": request.id,
        "prompt": request.prompt,
        "chat": request.chat,
        "seed": seed if request.gen_kwargs.get("do_sample") else None,
        "labels": request.labels,
        "answer_prefix": request.answer_prefix,
        "gen_kwargs": dict(request.gen_kwargs),
        "clip": clip_digest,
        "model": dict(model),
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Answers of one run folder, each durable the moment it is added.

    Args:
        folder: Made when missing. Every file in it is read.
        writer: Name of the file that this process adds to, without its ending; no two write one file.

    Attributes:
        torn_lines: Lines that hold no whole answer: cut by a kill, or damaged. What they held is asked again.

    Raises:
        RunFolderError: the folder cannot be written.
    """

    def __init__(self, folder: Path, writer: str = WRITER) -> None:
        self.folder = folder
        self._answers: dict[str, Response] = {}
        self._lines = DurableLines(folder / f"{writer}.jsonl")
        self.torn_lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self.read()

    def __len__(self) -> int:
        return len(self._answers)

    def read(self) -> None:
        """Read all files: the answers found before, and what other processes have added since.

        Raises:
            RunFolderError: a file cannot be read.
        """
        self.torn_lines = 0
        try:
            for line in lines_of(self.folder):
                row = _unsealed(line)
                if row is None:
                    self.torn_lines += 1
                else:
                    self._keep(row["key"], Response.from_dict(row))
        except OSError as error:
            raise self._unwritable(error) from None

    def get(self, key: str) -> Response | None:
        """The answer given under this key, if any."""
        return self._answers.get(key)

    def add(self, key: str, request: Request, response: Response) -> None:
        """Write one answer.

        Raises:
            RunFolderError: the line cannot be written (a full disk, say); earlier answers are intact.
        """
        try:
            self._lines.append(_sealed({"key": key, "task": request.task, "id": request.id, **response.to_dict()}))
        except OSError as error:
            raise self._unwritable(error) from None
        self._keep(key, response)

    def close(self) -> None:
        """Sync and close the file.

        Raises:
            RunFolderError: the disk did not take what was written.
        """
        try:
            self._lines.close()
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, key: str, response: Response) -> None:
        """Of two answers under one key the first stays, unless it was given without video and the other was not."""
        kept = self._answers.get(key)
        if kept is None or (kept.as_text and not response.as_text):
            self._answers[key] = response

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            "the journal cannot be written",
            file=error.filename or self._lines.path,
            why=error.strerror or error,
            next="free space or name another --run_dir; answers already in the journal are kept",
        )


def lines_of(folder: Path) -> Iterator[bytes]:
    """The lines of all journal files, file by file in the order of their names."""
    for path in sorted(folder.glob(f"{WRITER}*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            if line.strip():
                yield line


def answer_count(folder: Path) -> int:
    """How many answers a journal holds, without keeping them."""
    return len({row["key"] for line in lines_of(folder) if (row := _unsealed(line)) is not None})


def _sealed(row: Mapping[str, Any]) -> str:
    """A line with its own checksum: what a disk or a hand has changed is no answer of the model."""
    text = json.dumps(row, ensure_ascii=False)
    return f"{text[:-1]}{_SEAL}{zlib.crc32(text.encode())}}}"


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None when it is torn or damaged."""
    text, _, seal = line.rpartition(_SEAL.encode())
    if seal != b"%d}" % zlib.crc32(text + b"}"):
        return None
    row: dict[str, Any] = json.loads(line)
    return row
