"""Counts how often the files of a folder are opened, by whichever process: the kernel tells (inotify, Linux)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from pathlib import Path
from types import TracebackType

IN_OPEN, IN_Q_OVERFLOW, IN_ISDIR = 0x20, 0x4000, 0x40000000
HEADER = struct.Struct("iIII")
"""Watch, mask, cookie, bytes of the name that follows."""


class Opens:
    """``with Opens(folder) as opens:`` and then `opens.since_last()`; folders inside are not looked into.

    Raises:
        OSError: The kernel refuses, or has dropped events because nobody asked for too long.
    """

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._queue < 0 or libc.inotify_add_watch(self._queue, os.fsencode(folder), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def since_last(self) -> Counter[str]:
        """How often each file was opened since the last call, or since the beginning."""
        counts: Counter[str] = Counter()
        while events := self._read():
            start = 0
            while start < len(events):
                _, mask, _, size = HEADER.unpack_from(events, start)
                start += HEADER.size + size
                if mask & IN_Q_OVERFLOW:
                    raise OSError("more files were opened than the kernel remembers")
                if not mask & IN_ISDIR:
                    counts[events[start - size : start].rstrip(b"\0").decode()] += 1
        return counts

    def _read(self) -> bytes:
        try:
            return os.read(self._queue, 1 << 20)
        except BlockingIOError:
            return b""

    def __enter__(self) -> Opens:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        os.close(self._queue)
