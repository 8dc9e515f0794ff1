"""A process that answers questions about video files: started by `isolation.py`, never by a person.

A question is a line of JSON on standard input; it asks for frames of a clip, for what packets tell, or for a file to be
written unpacked. Pixels go to the file whose descriptor is the first argument, the rest of the answer as JSON behind
them; a line on standard output says where the JSON starts and ends. It ends when standard input does, and by an alarm
from the kernel when it is stuck and nobody is there to end it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from harness_ext.frame_policy import FramePolicy
from harness_ext.video.files import UnreadableError, pyav
from harness_ext.video.probing import probe_file
from harness_ext.video.reading import read_clip
from harness_ext.video.unpacking import unpack_file

if TYPE_CHECKING:
    from harness_ext.video.frames import Pixels

GRACE_SECONDS: Final = 5
"""How much later than its parent's time limit the alarm comes."""


class Pages:
    """Images in the shared file, one behind the other."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.begin()

    def begin(self) -> None:
        """Forget what came so far."""
        os.ftruncate(self.file, 0)
        self.shape: tuple[int, ...] = ()
        self.end = 0

    def add(self, image_HWC: Pixels) -> None:
        """Write one more image."""
        import numpy as np

        self.shape = image_HWC.shape
        self.write(np.ascontiguousarray(image_HWC).data.cast("B"))

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes; of more than 2 GiB the system takes some at a time."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.file, view, self.end)
            self.end += written
            view = view[written:]


def main() -> int:
    """Answer until there are no more questions."""
    questions, answers = _streams()
    pages = Pages(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes standard input
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # where memory ends, the run outlives this process
    _load()
    gc.freeze()  # what is there now need not be looked through after every answer
    own_bytes = _address_space()
    os.dup2(0, 2)  # what a decoder prints is no help to anybody
    answers.write(b"ready\n")
    for line in questions:
        question = json.loads(line)
        _bound(own_bytes + question["bytes"])
        signal.setitimer(signal.ITIMER_REAL, question["seconds"] + GRACE_SECONDS)
        answer = _answer(question, pages)
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()  # frames that refer to themselves hold pictures and threads
        start = pages.end
        pages.write(json.dumps(answer).encode())
        answers.write(b"%d %d\n" % (start, pages.end))
    return 0


def _load() -> None:
    """Import what reading needs: it is this process's own memory, and must not count as that of the first file."""
    pyav()
    for package in ("numpy", "PIL.Image"):
        importlib.import_module(package)


def _streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep standard input and output for the parent: a native library that prints must not be taken for an answer."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    return questions, answers  # type: ignore[return-value]


def _address_space() -> int:
    """Bytes of address space that this process has before it decodes; 0 where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _bound(size: int) -> None:
    """Let allocations beyond `size` bytes fail."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def _answer(question: dict[str, Any], pages: Pages) -> dict[str, Any]:
    """What was found, or which fault the file has; nothing that a file can cause is raised."""
    ffmpeg_error = pyav().error.FFmpegError
    pages.begin()
    try:
        return _found(question, pages)
    except UnreadableError as error:
        return {"fault": error.fault, "why": error.why, "hint": error.hint}
    except (MemoryError, BlockingIOError):  # the second says that there is no room for another thread
        return {"fault": "memory"}
    except ffmpeg_error as error:
        return {"fault": "damaged", "why": f"the decoder gives up: {error.strerror or type(error).__name__}"}
    except Exception as error:
        return {"fault": "unforeseen", "why": f"reading it fails with {type(error).__name__}: {error}"}


def _found(question: dict[str, Any], pages: Pages) -> dict[str, Any]:
    if question["kind"] == "probes":
        return {"answers": [_answer({"kind": "probe", "path": path}, pages) for path in question["paths"]]}
    if question["kind"] == "probe":
        return vars(probe_file(question["path"]))
    if question["kind"] == "unpack":
        return dict(unpack_file(question["path"], question["target"]))
    shown = read_clip(question["clip"], FramePolicy(**question["policy"]), pages)
    return {**shown._asdict(), "shape": pages.shape}


if __name__ == "__main__":
    sys.exit(main())
