"""Reads video files in processes of their own, so that no file can hang, crash or exhaust the run.

A worker answers one question at a time. One that takes more than `MMLA_DECODE_SECONDS` (10 unless set) or crashes is
replaced; allocations beyond `MMLA_DECODE_GB` (2 unless set) fail in it. Either way the file gets a named fault.
Workers are started when first needed, as many as threads ask at once, and end with this process. What this costs, and
why it is always on: docs/decisions/009-isolated-decoding.md.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness_ext.environment import number_from_environment
from harness_ext.video.files import UnreadableError
from mmla_tasks.errors import MmlaError

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels

SECONDS_VARIABLE: Final = "MMLA_DECODE_SECONDS"
DEFAULT_SECONDS: Final = 10.0
MEMORY_VARIABLE: Final = "MMLA_DECODE_GB"
DEFAULT_GB: Final = 2.0
START_SECONDS: Final = 60.0
"""Until a new worker must be ready; on a busy machine with cold disks it takes a while."""
ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
"""Of a worker. Threads that it does not use would take address space, which counts as memory. Pictures come and go by
the dozen: giving each back to the system and taking it again costs a tenth of decoding."""


class Bounds(NamedTuple):
    """What one question may take."""

    seconds: float
    bytes: int
    """Of memory, beside the frames that come out."""


def bounds() -> Bounds:
    """What the environment says.

    Raises:
        UsageError: It says no number.
    """
    seconds = number_from_environment(SECONDS_VARIABLE, DEFAULT_SECONDS, "seconds")
    gigabytes = number_from_environment(MEMORY_VARIABLE, DEFAULT_GB, "gigabytes")
    return Bounds(seconds, int(gigabytes * 2**30))


class Answer(NamedTuple):
    """What a worker found."""

    facts: dict[str, Any]
    pixels: Pixels
    """uint8 [bytes], images one behind the other; empty for a question that has none."""


class _LostError(Exception):
    """The worker is gone; the exit status of its process, a negative number for a signal."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class _LateError(Exception):
    """No answer in time."""


class Worker:
    """One process, and the file through which pixels come.

    Raises:
        MmlaError: The process does not start.
    """

    def __init__(self) -> None:
        self.answered = 0
        self._shared = _anonymous_file()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness_ext.video.worker", str(self._shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(self._shared,),
            start_new_session=True,  # Ctrl-C in a terminal is not for it
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._questions, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            self._wait_until_ready(self._process.stderr)
        except BaseException:
            self.end()
            raise

    @property
    def process(self) -> int:
        """The id of the process."""
        return self._process.pid

    def _wait_until_ready(self, messages: Any) -> None:
        try:
            self._line(START_SECONDS)
        except (_LostError, _LateError):
            self._process.kill()
            said = messages.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise MmlaError("the process that decodes video does not start", why=said[-1]) from None
        messages.close()

    def ask(self, question: Mapping[str, Any], seconds: float) -> Answer:
        """Put a question and wait.

        Raises:
            _LostError: The process died.
            _LateError: It did not answer within `seconds`.
        """
        self._send(json.dumps(question).encode() + b"\n")
        start, end = map(int, self._line(seconds).split())
        self.answered += 1
        facts = json.loads(_read(self._shared, start, end).tobytes())
        return Answer(facts, _read(self._shared, 0, start))

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._questions, view) :]
        except BrokenPipeError:
            raise _LostError(self._process.wait()) from None

    def _line(self, seconds: float) -> bytes:
        """Wait for one line, which is short enough to come whole."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise _LateError
        line = os.read(self._answers, 4096)
        if not line:
            raise _LostError(self._process.wait())
        return line

    def end(self) -> None:
        """End the process, whatever it does, and give back what it held."""
        self._process.kill()
        self._process.wait()
        self.disown()

    def disown(self) -> None:
        """Close this side of a process that is dead, or another process's child."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        with suppress(OSError):
            os.close(self._shared)
        self._shared = -1
        if self._process.returncode is None:
            self._process.returncode = 0  # nobody here may wait for it


class Workers:
    """Workers by kind of work, for any number of threads: each takes an idle one, or starts one more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: defaultdict[str, list[Worker]] = defaultdict(list)
        self._all: set[Worker] = set()

    def ask(self, kind: str, question: Mapping[str, Any], *, more_seconds: float = 0.0) -> Answer:
        """Put a question to a worker of this kind.

        Args:
            kind: Of work, such as a reader's name.
            question: See `worker.py`.
            more_seconds: That it may take beyond what `bounds` allows.

        A worker that has read other files before may suffer from one of them: when it crashes or finds no memory, the
        question is put once more to a new one.

        Raises:
            UnreadableError: The file gives no answer, or ended the worker.
            MmlaError: No worker can be started.
        """
        limits = bounds()
        limits = limits._replace(seconds=limits.seconds + more_seconds)
        asked = {**question, **limits._asdict()}
        worker = self._taken(kind)
        try:
            return self._ask(kind, worker, asked, limits)
        except UnreadableError as error:
            if error.fault not in ("crash", "memory") or not worker.answered:
                raise
        return self._ask(kind, self._started(), asked, limits)

    def _ask(self, kind: str, worker: Worker, question: Mapping[str, Any], limits: Bounds) -> Answer:
        kept = False
        try:
            answer = worker.ask(question, limits.seconds)
            kept = answer.facts.get("fault") != "memory"
            raise_fault(answer.facts, limits)
            return answer
        except _LateError:
            raise _late(limits) from None
        except _LostError as error:
            raise _crashed(error.status) from None
        finally:
            self._give_back(kind, worker, kept)

    def _taken(self, kind: str) -> Worker:
        with self._lock:
            if self._idle[kind]:
                return self._idle[kind].pop()
        return self._started()

    def _started(self) -> Worker:
        worker = Worker()
        with self._lock:
            self._all.add(worker)
        return worker

    def _give_back(self, kind: str, worker: Worker, kept: bool) -> None:
        with self._lock:
            if kept:
                self._idle[kind].append(worker)
                return
            self._all.discard(worker)
        worker.end()

    @property
    def processes(self) -> list[int]:
        """Ids of the processes that there are now."""
        with self._lock:
            return sorted(worker.process for worker in self._all)

    def end(self) -> None:
        """End all workers."""
        with self._lock:
            workers, self._all, self._idle = self._all, set(), defaultdict(list)
        for worker in workers:
            worker.end()

    def forget(self) -> None:
        """In a forked child: leave the parent's workers to the parent."""
        inherited = self._all
        self.__init__()  # type: ignore[misc]
        for worker in inherited:
            worker.disown()


def raise_fault(facts: Mapping[str, Any], limits: Bounds) -> None:
    """Raise the `UnreadableError` that a worker's answer tells; do nothing where it tells none."""
    match facts:
        case {"fault": "memory"}:
            why = f"reading it takes more than {limits.bytes / 2**30:g} GiB of memory"
            raise UnreadableError(why, f"get the file again, or set {MEMORY_VARIABLE} higher", "memory")
        case {"fault": fault, "why": why}:
            raise UnreadableError(why, facts.get("hint", "get the file again"), fault)


def _late(limits: Bounds) -> UnreadableError:
    why = f"reading it was ended after {limits.seconds:g} s"
    return UnreadableError(why, f"get the file again, or set {SECONDS_VARIABLE} higher", "timeout")


def _crashed(status: int) -> UnreadableError:
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return UnreadableError(f"the decoder crashes on it ({how})", fault="crash")


def _anonymous_file() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mmla-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _read(file: int, start: int, end: int) -> Pixels:
    import numpy as np

    data = np.empty(end - start, dtype=np.uint8)
    view = data.data
    while view:
        taken = os.preadv(file, [view], start)
        if not taken:
            raise EOFError("the worker's answer is shorter than it said")
        start, view = start + taken, view[taken:]
    return data


WORKERS: Final = Workers()
"""Of this process."""
atexit.register(WORKERS.end)
os.register_at_fork(after_in_child=WORKERS.forget)
