"""Nothing that a file does to the process that reads it reaches the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode, isolation, probe, unpack
from harness_ext.video.isolation import Workers
from mmla_tasks.errors import ClipError, UsageError
from mmla_tasks.records import Clip

BAD_WORKER = """
import os, signal, sys, time
from harness_ext.video import reading, worker
read_clip, unpack_file = worker.read_clip, worker.unpack_file
def suffer(path):
    match path.rsplit("/", 1)[-1]:
        case "hangs.mp4":
            time.sleep(3600)
        case "crashes.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leaves.mp4":
            os._exit(7)
        case "eats.mp4":
            bytearray(8 << 30)
        case "raises.mp4":
            1 / 0
        case "prints.mp4":
            os.write(1, b"noise\\n" * 999)
            os.write(2, b"noise\\n" * 99999)
def read_bad(clip, policy, kept):
    suffer(clip["path"])
    return read_clip(clip, policy, kept)
def unpack_bad(source, target):
    open(target, "w").write("half of it")
    suffer(source)
    return unpack_file(source, target)
worker.read_clip, worker.unpack_file = read_bad, unpack_bad
sys.exit(worker.main())
"""
"""The real worker, but names of files say what happens to it."""


def clip_of(path: Path) -> Clip:
    return Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)


@pytest.fixture(scope="module")
def drawn(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = draw.draw_clip(tmp_path_factory.mktemp("drawn") / "good.mp4", frames=12)
    return path


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Fresh workers that read."""
    fresh = Workers()
    monkeypatch.setattr("harness_ext.video.WORKERS", fresh)
    yield fresh
    fresh.end()


@pytest.fixture
def bad(workers: Workers, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Clip]:
    """`bad("hangs")`: a whole clip that does this to its worker."""
    start = subprocess.Popen

    def popen(command: list[str], **kwargs: Any) -> Any:
        assert command[1:4] == ["-P", "-m", "harness_ext.video.worker"]
        return start([command[0], "-P", "-c", BAD_WORKER, *command[4:]], **kwargs)

    monkeypatch.setattr(isolation.subprocess, "Popen", popen)

    def make(what: str) -> Clip:
        path = tmp_path / f"{what}.mp4"
        path.write_bytes(drawn.read_bytes())
        return clip_of(path)

    return make


def fault(clip: Clip) -> ClipError:
    with pytest.raises(ClipError) as raised:
        decode(clip, FramePolicy(), who="mmla_emotion_meld id 1_1")
    return raised.value


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(process: int) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + 20
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(process)


@pytest.mark.parametrize(
    ("what", "name", "why", "hint"),
    [
        ("hangs", "timeout", "reading it was ended after 0.7 s", "set MMLA_DECODE_SECONDS higher"),
        ("crashes", "crash", "the decoder crashes on it (SIGSEGV)", "get the file again"),
        ("leaves", "crash", "the decoder crashes on it (exit status 7)", "get the file again"),
        ("eats", "memory", "reading it takes more than 2 GiB of memory", "set MMLA_DECODE_GB higher"),
        ("raises", "unforeseen", "reading it fails with ZeroDivisionError: division by zero", "get the file again"),
    ],
)
def test_what_a_file_does_to_its_worker_is_named_and_the_next_is_read(
    bad: Callable[[str], Clip], monkeypatch: pytest.MonkeyPatch, what: str, name: str, why: str, hint: str
) -> None:
    monkeypatch.setenv("MMLA_DECODE_SECONDS", "60")  # tests share their cores
    assert len(decode(bad("good"), FramePolicy())) == 4
    with monkeypatch.context() as patch:
        if what == "hangs":
            patch.setenv("MMLA_DECODE_SECONDS", "0.7")
        error = fault(bad(what))
    assert error.fault == name
    assert error.what == "clip for mmla_emotion_meld id 1_1 can't be read"
    assert error.details["why"] == why
    assert hint in error.details["next"] and error.details["next"].endswith("or run with --on_bad_clip skip")
    assert len(decode(bad("good"), FramePolicy())) == 4


@pytest.mark.parametrize(("what", "name"), [("hangs", "timeout"), ("crashes", "crash"), ("eats", "memory")])
def test_unpacking_is_bound_as_reading_is_and_leaves_nothing(
    bad: Callable[[str], Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, name: str
) -> None:
    monkeypatch.setenv("MMLA_DECODE_SECONDS", "0.7" if what == "hangs" else "60")
    target = tmp_path / "unpacked.avi"
    with pytest.raises(ClipError) as raised:
        unpack(Path(bad(what)["path"]), target)
    assert raised.value.fault == name and not target.exists()


def test_unpacking_what_is_no_video_names_the_fault_and_a_folder_that_is_not_there_the_disk(
    draw: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "text.avi").write_text("hello world" * 99)
    with pytest.raises(ClipError) as raised:
        unpack(tmp_path / "text.avi", tmp_path / "new.avi")
    assert raised.value.fault == "not_video"
    with pytest.raises(FileNotFoundError):
        unpack(draw.draw_clip(tmp_path / "plain.avi", frames=5, codec="mpeg4"), tmp_path / "nowhere" / "new.avi")


def test_a_library_that_prints_is_not_taken_for_an_answer(bad: Callable[[str], Clip]) -> None:
    assert decode(bad("prints"), FramePolicy()).indices == (0, 3, 7, 11)


def test_a_worker_that_others_harmed_is_not_held_against_a_file(workers: Workers, drawn: Path) -> None:
    assert len(decode(clip_of(drawn), FramePolicy())) == 4
    (worker,) = workers._all
    os.kill(worker.process, signal.SIGKILL)
    worker._process.wait()
    assert len(decode(clip_of(drawn), FramePolicy())) == 4
    assert workers._all and worker not in workers._all


def test_as_many_workers_as_threads_ask_at_once(workers: Workers, drawn: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        read = list(pool.map(lambda _: decode(clip_of(drawn), FramePolicy()), range(60)))
    assert len({frames.fingerprint["digest"] for frames in read}) == 1
    assert 1 <= len(workers._all) <= 3
    for _ in range(5):
        decode(clip_of(drawn), FramePolicy())
        probe(str(drawn))
    assert len(workers._all) <= 3


def test_readers_do_not_share_a_process(workers: Workers, drawn: Path) -> None:
    if find_spec("decord") is None:
        pytest.skip("decord is not installed: pip install -e '.[decord]'")
    for reader in ("pyav", "decord"):
        decode(clip_of(drawn), FramePolicy(reader=reader))  # type: ignore[arg-type]
    assert [len(idle) for idle in workers._idle.values()] == [1, 1]


def test_nothing_is_left_behind(workers: Workers, drawn: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    decode(clip_of(drawn), FramePolicy())
    processes = workers.processes
    assert [alive(process) for process in processes] == [True]
    workers.end()
    assert [alive(process) for process in processes] == [False]
    assert len(os.listdir("/proc/self/fd")) <= before


PARENT = """
import os, sys, time
from harness_ext.video import WORKERS, decode
from harness_ext.frame_policy import FramePolicy
clip = {"path": sys.argv[1], "start_seconds": 0.0, "end_seconds": None}
decode(clip, FramePolicy())
print(*WORKERS.processes, flush=True)
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        assert not WORKERS._all
        print(len(decode(clip, FramePolicy())), *WORKERS.processes, flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(len(decode(clip, FramePolicy())), *WORKERS.processes, flush=True)
else:
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(drawn: Path, how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(drawn), "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout and parent.stderr
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.send_signal(how)
        parent.wait(20)
        assert gone(worker)
        assert "worker" not in parent.stderr.read()


def test_a_forked_process_has_workers_of_its_own(drawn: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PARENT, str(drawn), "fork"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, done
    first, in_child, after = (line.split() for line in done.stdout.splitlines())
    assert in_child[0] == after[0] == "4"
    assert after[1:] == first and in_child[1:] != first


IN_A_DAEMON = """
import multiprocessing, sys
from harness_ext.video import WORKERS, decode
from harness_ext.frame_policy import FramePolicy

def work(path, answers):
    frames = decode({"path": path, "start_seconds": 0.0, "end_seconds": None}, FramePolicy())
    answers.send((len(frames), WORKERS.processes))

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[1], there), daemon=True)
    process.start()
    count, processes = here.recv()
    process.join()
    print(count, *processes)
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_daemon_such_as_a_data_loader_may_read(drawn: Path, tmp_path: Path, how: str) -> None:
    script = tmp_path / "daemon.py"
    script.write_text(IN_A_DAEMON)
    done = subprocess.run([sys.executable, script, str(drawn), how], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done
    count, worker = done.stdout.split()
    assert count == "4"
    assert gone(int(worker))


def test_an_interrupted_question_ends_its_worker(
    bad: Callable[[str], Clip], workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLA_DECODE_SECONDS", "60")
    decode(bad("good"), FramePolicy())
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        decode(bad("hangs"), FramePolicy())
    assert not workers._all


def test_bounds_that_are_no_numbers_are_named(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MMLA_DECODE_SECONDS", "MMLA_DECODE_GB"):
        for nonsense in ("0", "-1", "soon", "nan", "inf"):
            monkeypatch.setenv(name, nonsense)
            with pytest.raises(UsageError, match=f"{name}={nonsense} can't be used"):
                decode(clip_of(drawn), FramePolicy())
        monkeypatch.delenv(name)


def test_libraries_are_not_held_against_the_first_file(
    workers: Workers, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLA_DECODE_GB", "0.05")  # numpy alone takes more
    assert len(decode(clip_of(drawn), FramePolicy())) == 4


def test_a_worker_that_does_not_start_says_why(workers: Workers, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def popen(command: list[str], **kwargs: Any) -> Any:
        return start([command[0], "-c", "raise SystemExit('no such thing')"], **kwargs)

    monkeypatch.setattr(isolation.subprocess, "Popen", popen)
    with pytest.raises(isolation.MmlaError, match="does not start") as error:
        decode(clip_of(drawn), FramePolicy())
    assert error.value.details["why"] == "no such thing"
    assert not workers._all
