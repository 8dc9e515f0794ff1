"""The journal: one flushed line per answer, so that an interrupted run goes on where it stopped.

A line is the request's key and the response with all that is known about it. The key says everything an answer
depends on (see `request_key`); what only describes it, such as the frames' fingerprint, stands beside the answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from harness_ext.requests import Request, Response
from mmla_tasks.errors import RunFolderError

FILE_NAME = "answers.jsonl"


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
    """Answers of one run folder, durable the moment they are added.

    Args:
        folder: Made when missing.

    Raises:
        RunFolderError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._answers: dict[str, Response] = {}
        self._file: FileIO | None = None
        self.torn_lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._load()
        except OSError as error:
            raise self._unwritable(error) from None

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Response | None:
        """The answer given under this key, if any."""
        return self._answers.get(key)

    def add(self, key: str, request: Request, response: Response) -> None:
        """Write one answer and flush it.

        Raises:
            RunFolderError: the line cannot be written (a full disk, say); earlier answers are intact.
        """
        row = {"key": key, "task": request.task, "id": request.id, **response.to_dict()}
        try:
            if self._file is None:
                # Unbuffered: after a failed write nothing is left over that closing would try to write again.
                self._file = self.path.open("ab", buffering=0)
            line = memoryview((json.dumps(row, ensure_ascii=False) + "\n").encode())
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._unwritable(error) from None
        self._answers[key] = response

    def close(self) -> None:
        """Sync and close the file."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                self._answers[row["key"]] = Response.from_dict(row)
            except (ValueError, KeyError, TypeError):
                self.torn_lines += 1
        if data and not data.endswith(b"\n"):  # a kill in the middle of a write: start the next answer on its own line
            with self.path.open("ab") as file:
                file.write(b"\n")

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            "the journal cannot be written",
            file=self.path,
            why=error.strerror or error,
            next="free space or name another --run_dir; answers already in the journal are kept",
        )
