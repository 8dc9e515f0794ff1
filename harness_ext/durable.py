"""A file of lines that are never lost: each is written at once, and on the disk shortly after."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

SYNC_PAUSE_SECONDS: Final = 0.1
"""How long the next sync waits after one: the most that a power cut can take. A killed process loses nothing."""


class DurableLines:
    """Appends whole lines. Nothing is opened before the first.

    A line is handed to the system in one write, so it outlives the process from then on. A thread of its own then
    asks the disk to keep it; a sync takes about a millisecond, and one serves all lines that came before it.

    Args:
        path: The file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._thread = threading.Thread(target=self._sync, name="journal-sync", daemon=True)
        self._written = threading.Event()
        self._closing = threading.Event()
        self._fault: OSError | None = None

    def append(self, text: str) -> None:
        """Write one line.

        Raises:
            OSError: it could not be written, or earlier ones could not be synced.
        """
        if self._fault is not None:
            raise self._fault
        file = self._file or self._open()
        line = memoryview((text + "\n").encode())
        while line:
            line = line[file.write(line) :]
        self._written.set()

    def close(self) -> None:
        """Sync and close.

        Raises:
            OSError: the lines could not be synced.
        """
        if self._file is None:
            return
        self._closing.set()
        self._written.set()
        self._thread.join()
        try:
            if self._fault is not None:
                raise self._fault
            _to_disk(self._file)
        finally:
            self._file.close()
            self._file = None

    def _open(self) -> FileIO:
        # Unbuffered: after a failed write nothing is left over that closing would try to write again.
        file = self.path.open("a+b", buffering=0)
        if _is_torn(file):
            file.write(b"\n")  # a kill in the middle of a write: the next line starts on its own
        _sync_folder(self.path.parent)
        self._file = file
        self._thread.start()
        return file

    def _sync(self) -> None:
        while not self._closing.is_set():
            self._written.wait()
            self._written.clear()
            try:
                assert self._file is not None
                _to_disk(self._file)
            except OSError as fault:
                self._fault = fault
                return
            self._closing.wait(SYNC_PAUSE_SECONDS)


def _to_disk(file: FileIO) -> None:
    """Wait until the disk has what was written; macOS has no `fdatasync`."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(file.fileno())


def _is_torn(file: FileIO) -> bool:
    """Whether the last line has no end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _sync_folder(folder: Path) -> None:
    """Let a new file's name outlive a power cut too, where the file system can be told so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
