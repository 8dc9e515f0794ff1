"""`mmla doctor`, and the probes that it shares with `mmla run`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness_ext import clip_check, doctor
from harness_ext.clip_check import probe_files
from harness_ext.clip_facts import STORE, FactStore
from harness_ext.doctor import odd_length
from harness_ext.video import Probe, reader_versions
from harness_ext.video.probing import probe_file
from mmla_tasks.errors import ClipError
from mmla_tasks.records import Clip

from ..broken_clips import TASK, WAYS, damage, partly_broken
from ..clips import clip_bytes

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("data") / "data"
    return root, partly_broken(root, 50)


@pytest.fixture
def root(drawn: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn[0], tmp_path / "data"))


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Files that were opened."""
    opened: list[str] = []

    def counted(paths: Sequence[str]) -> list[Probe | ClipError]:
        opened.extend(paths)
        return probe_all(paths)

    probe_all = clip_check.probe_all
    monkeypatch.setattr(clip_check, "probe_all", counted)
    yield opened


def examined(mmla: Command, root: Path, *arguments: object) -> tuple[Any, dict[str, Any]]:
    file = root.parent / "doctor.json"
    ran = mmla("doctor", "--data_dir", root, "--tasks", TASK, "--json", file, *arguments)
    return ran, json.loads(file.read_text())


def test_every_fault_is_named_counted_and_has_its_command(
    mmla: Command, drawn: tuple[Path, dict[str, str]], root: Path
) -> None:
    ran, found = examined(mmla, root)
    assert ran.status == 1
    assert {finding["id"]: finding["kind"] for finding in found["faults"]} == drawn[1]
    assert set(drawn[1].values()) == set(WAYS)
    assert "5 clips can't be shown" in ran.out and "mmla data download MELD --repair" in ran.out
    assert found["files"] == 48 and found["formats"] == {"h264 112x112": 45} and found["rates"] == {"10": 45}
    assert not found["remarks"]


def test_healthy_clips_are_status_0(mmla: Command, meld_root: Path) -> None:
    fill(meld_root, 42)
    ran, found = examined(mmla, meld_root)
    assert ran.status == 0 and "every clip can be shown" in ran.out, ran.out
    assert found["seconds"] == {"total": pytest.approx(42 * 0.12), "min": 0.12, "median": 0.12, "max": 0.12}


def fill(root: Path, count: int) -> Path:
    clips = root / "MELD" / "video"
    clips.mkdir(exist_ok=True)
    for n in range(count):
        (clips / f"MELD_{n // 10}_{n % 10}.mp4").write_bytes(clip_bytes(b"%3d" % n))
    return clips


def test_copies_within_a_dataset_are_remarks(mmla: Command, meld_root: Path, probed: list[str]) -> None:
    clips = fill(meld_root, 42)
    shutil.copy(clips / "MELD_0_0.mp4", clips / "MELD_3_3.mp4")
    ran, found = examined(mmla, meld_root)
    assert ran.status == 0
    (remark,) = found["remarks"]
    assert (remark["id"], remark["kind"], remark["why"]) == ("3_3", "duplicate", "the same file as id 0_0")


def test_clips_shared_by_tasks_are_opened_once_and_unchanged_ones_never_again(
    mmla: Command, meld_root: Path, tmp_path: Path, probed: list[str]
) -> None:
    clips = fill(meld_root, 42)
    folder = tmp_path / "more"
    folder.mkdir()
    yaml = "task: mmla_mood\nclass: !function harness_ext.task.LabelTask\ndataset: MELD\ndimension: emotion\n"
    labels = "labels: [neutral, surprise, fear, sadness, joy, anger, disgust]\n"
    (folder / "mood.yaml").write_text(yaml + labels)
    command = ("doctor", "--data_dir", meld_root, "--include_path", folder, "--tasks", TASK, "mmla_mood")
    assert mmla(*command).status == 0
    assert max(Counter(probed).values()) == 1 and len(probed) == 42
    assert mmla(*command).status == 0 and len(probed) == 42
    (clips / "MELD_0_1.mp4").write_bytes(clip_bytes(b"another"))
    assert mmla(*command).status == 0 and len(probed) == 43


def test_a_run_looks_once_and_uses_what_the_doctor_saw(mmla: Command, meld_root: Path, probed: list[str]) -> None:
    fill(meld_root, 42)
    assert mmla("doctor", "--data_dir", meld_root, "--tasks", TASK).status == 0
    assert mmla("run", "--model", "mmla-echo", "--tasks", TASK, "--data_dir", meld_root).status == 0
    assert len(probed) == 42


def test_tasks_without_any_clip_are_left_out_unless_all_are_required(mmla: Command, meld_root: Path) -> None:
    ran, found = examined(mmla, meld_root)
    assert ran.status == 0 and not found["faults"]
    step = f"mmla data download MELD --data_dir {meld_root}"  # there is nothing to --repair
    assert f"left out mmla_emotion_meld: none of its 42 clips is there; {step}\n" in ran.out
    assert examined(mmla, meld_root, "--require_all")[0].status == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tasks", "mmla_emotion_meld_text"), "none of these tasks shows video"),
        (("--tasks", "mmla_emotoin"), "did you mean"),
        (("--num_frames", "4"), "add --deep"),
        (("--workers", "0"), "--workers 0 looks at nothing"),
        (("--deep", "--num_frames", "many"), "num_frames"),
        (("--tasks", TASK, "--splits", "test", "dev"), "none of these tasks has the split dev"),
    ],
)
def test_faults_of_the_command(mmla: Command, meld_root: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = mmla("doctor", "--data_dir", meld_root, *arguments)
    assert ran.status == 2 and said in ran.err


@pytest.mark.parametrize("said_by", ["--data_dir", "MMLA_DATA_DIR"])
def test_a_root_in_the_home_folder_is_found_by_its_tilde(
    mmla: Command, meld_root: Path, monkeypatch: pytest.MonkeyPatch, said_by: str
) -> None:
    fill(meld_root, 42)
    monkeypatch.setenv("HOME", str(meld_root.parent))
    root = f"~/{meld_root.name}"
    if said_by == "MMLA_DATA_DIR":
        monkeypatch.setenv(said_by, root)
    ran = mmla("doctor", "--tasks", TASK, *((said_by, root) if said_by == "--data_dir" else ()))
    assert ran.status == 0 and "every clip can be shown" in ran.out, ran.err


@pytest.mark.parametrize("place", ["nowhere/doctor.json", "."])
def test_a_json_file_that_cannot_be_written_is_told_before_the_work(
    mmla: Command, meld_root: Path, probed: list[str], place: str
) -> None:
    fill(meld_root, 42)
    ran = mmla("doctor", "--data_dir", meld_root, "--tasks", TASK, "--json", meld_root / place)
    assert ran.status == 2 and "the JSON file cannot be written" in ran.err and not probed


def test_train_and_dev_are_looked_at_when_asked_for(mmla: Command, meld_root: Path) -> None:
    clips = fill(meld_root, 42)
    (clips / "MELD_t0_0.mp4").write_bytes(clip_bytes())
    ran, found = examined(mmla, meld_root, "--splits", "test", "train")
    assert ran.status == 1 and [part["split"] for part in found["datasets"]] == ["test", "train"]
    assert {finding["kind"] for finding in found["faults"]} == {"missing"} and len(found["faults"]) == 41


# ── the deep part ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_deep_part_finds_damage_that_packets_do_not_show_and_decodes_a_clip_once(
    mmla: Command, root: Path, drawn: tuple[Path, dict[str, str]]
) -> None:
    video = root / "MELD" / "video"
    victim = next(path for path in sorted(video.iterdir()) if path.stem.removeprefix("MELD_") not in drawn[1])
    damage(victim)
    _, cheap = examined(mmla, root)
    ran, deep = examined(mmla, root, "--deep", "--num_frames", "2")
    new = {f["id"] for f in deep["faults"]} - {f["id"] for f in cheap["faults"]}
    assert new == {victim.stem.removeprefix("MELD_")} and ran.status == 1
    assert deep["decoded"] == 45 and deep["frame_policy"]["num_frames"] == 2
    assert examined(mmla, root, "--deep", "--num_frames", "2")[1] == {**deep, "decoded": 0}
    shutil.move(root, root.with_name("elsewhere"))
    assert examined(mmla, root.with_name("elsewhere"), "--deep", "--num_frames", "2")[1]["decoded"] == 0
    assert examined(mmla, root.with_name("elsewhere"), "--deep", "--num_frames", "3")[1]["decoded"] == 45


KILLED = """
import itertools, os, sys
from harness_ext import doctor
from harness_ext.cli import main
decode, count = doctor.decode, itertools.count(1)
def killed(*args):
    if next(count) == 30:
        os.kill(os.getpid(), 9)
    return decode(*args)
doctor.decode = killed
main(sys.argv[1:])
"""


def test_what_was_decoded_before_a_kill_is_kept(mmla: Command, meld_root: Path) -> None:
    fill(meld_root, 42)
    command = ["doctor", "--tasks", TASK, "--data_dir", str(meld_root), "--deep", "--num_frames", "1", "--workers", "2"]
    assert subprocess.run([sys.executable, "-c", KILLED, *command]).returncode == -9
    assert examined(mmla, meld_root, "--deep", "--num_frames", "1")[1]["decoded"] <= 42 - 16


# ── lengths ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("start", "end", "lasts", "declared", "said"),
    [
        (0.0, None, 3.0, 3.02, None),
        (0.0, None, 0.04, 0.04, "0.040 s are shown, less than 0.1 s"),
        (0.0, None, 2.0, 9.0, "the pictures last 2.000 s, the file says 9.000 s, sound included"),
        (0.0, None, 2.0, None, None),
        (1.0, 2.5, 9.0, 30.0, None),
        (8.0, 9.5, 9.0, 9.0, "the clip ends at 9.5 s, the file at 9.000 s"),
        (8.0, 9.03, 9.0, 9.0, None),
        (8.95, 9.03, 9.0, 9.0, "0.050 s are shown, less than 0.1 s"),
    ],
)
def test_odd_lengths(start: float, end: float | None, lasts: float, declared: float | None, said: str | None) -> None:
    probe = Probe("mp4", "h264", 8, 8, 30, lasts, declared, lasts, 25.0, True)
    assert odd_length(Clip(path="x", start_seconds=start, end_seconds=end, size=1, mtime_ns=1), probe) == said


def test_a_stretch_beyond_the_end_of_its_file_is_a_fault(mmla: Command, meld_root: Path) -> None:
    clips = fill(meld_root, 41)
    (clips / "whole").mkdir()
    (clips / "whole" / "w.mp4").write_bytes(clip_bytes())
    lines = "id\tfile\tstart_seconds\tend_seconds\n4_1\twhole/w.mp4\t5.0\t6.0\n"
    (clips / "segments.tsv").write_text(lines)
    _, found = examined(mmla, meld_root)
    assert [(f["id"], f["kind"]) for f in found["faults"]] == [("4_1", "outside")]


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_damaged_fact_is_found_out_again(own_cache: Path) -> None:
    store = FactStore("probes")
    store.keep({"a": {"x": 1}, "b": {"x": 2}}, {"a": "s", "b": "s"})
    assert store.known({"a": "s", "b": "s", "c": "s"}) == {"a": {"x": 1}, "b": {"x": 2}}
    assert store.known({"a": "other"}) == {}
    with sqlite3.connect(own_cache / STORE) as database:
        database.execute("UPDATE probes SET facts = '{\"x\": 3}' WHERE key = 'a'")
    assert store.known({"a": "s", "b": "s"}) == {"b": {"x": 2}}


def test_a_store_that_is_no_database_is_made_anew(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / STORE).write_bytes(b"this is no database" * 99)
    store = FactStore("probes")
    assert store.known({"a": "s"}) == {}
    store.keep({"a": {"x": 1}}, {"a": "s"})
    assert store.known({"a": "s"}) == {"a": {"x": 1}}


def test_a_cache_folder_that_cannot_be_written_costs_time_alone(
    own_cache: Path, tmp_path: Path, mmla: Command, meld_root: Path
) -> None:
    own_cache.write_text("a file in its place")
    fill(meld_root, 42)
    assert mmla("doctor", "--data_dir", meld_root, "--tasks", TASK).status == 0


def test_the_oldest_facts_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness_ext.clip_facts.BOUND", 10)
    store = FactStore("probes")
    for n in range(30):
        store.keep({str(n): {}}, {str(n): "s"})
    assert list(store.known({str(n): "s" for n in range(30)})) == [str(n) for n in range(20, 30)]


def test_what_was_probed_before_an_interruption_is_kept(meld_root: Path, probed: list[str]) -> None:
    paths = sorted(map(str, fill(meld_root, 42).iterdir()))

    def interrupt(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_files(paths, workers=2, on_progress=interrupt)
    probed.clear()
    assert len(probe_files(paths, workers=2)) == 42
    assert 0 < len(probed) <= 26


def test_facts_of_another_release_are_not_taken_for_ones_own(meld_root: Path) -> None:
    (clip,) = fill(meld_root, 1).iterdir()
    found = probe_files([str(clip)], workers=1)[str(clip)]
    state = f"{clip.stat().st_size} {clip.stat().st_mtime_ns} {' '.join(reader_versions('pyav'))}"
    FactStore("probes").keep({str(clip): {**vars(found), "size_bytes": 1}}, {str(clip): state})
    assert probe_files([str(clip)], workers=1) == {str(clip): found}


def test_a_fault_that_may_lie_in_the_machine_is_looked_at_again(
    meld_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = map(str, fill(meld_root, 1).iterdir())

    def late(paths: Sequence[str]) -> list[ClipError]:
        return [ClipError("clip can't be read", fault="timeout", why="reading it was ended after 10 s")]

    with monkeypatch.context() as patch:
        patch.setattr(clip_check, "probe_all", late)
        assert isinstance(probe_files([path], workers=1)[path], ClipError)
    assert isinstance(probe_files([path], workers=1)[path], Probe)


# ── light and quick ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_does_without_lm_eval(meld_root: Path) -> None:
    fill(meld_root, 42)
    script = (
        "import sys; from harness_ext.cli import main; "
        f"status = main(['doctor', '--tasks', '{TASK}', '--data_dir', {str(meld_root)!r}]); "
        "print([name for name in ('lm_eval', 'torch', 'transformers', 'datasets', 'av') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.splitlines()[-1] == "[]", ran


def test_it_takes_little_more_than_probing_bare(mmla: Command, meld_root: Path, draw: ModuleType) -> None:
    """The doctor over 420 clips, against the same probes bare, in two threads of this process; the best of five.

    On a busy machine ratios only rise. Against PyAV alone, whole processes: benchmarks/doctor_cost.py.
    """
    rows = [f"{n // 10}_{n % 10}\tSentence {n}.\tjoy" for n in range(420)]
    (meld_root / "MELD" / "test.tsv").write_text("\n".join(["id\ttext\tlabel", *rows]) + "\n")
    source = meld_root / "drawn.mp4"
    draw.draw_clip(source, frames=48)
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    for n in range(420):
        (clips / f"MELD_{n // 10}_{n % 10}.mp4").write_bytes(source.read_bytes() + b"%04d" % n * (1 + n))

    def timed(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def in_two_threads() -> None:
        with ThreadPoolExecutor(2) as pool:
            assert {probe.frames for probe in pool.map(probe_file, map(str, clips.iterdir()))} == {48}

    def by_doctor() -> None:
        (meld_root.parent / "cache" / STORE).unlink(missing_ok=True)
        question = doctor.Question([TASK], str(meld_root), workers=2)
        assert len(doctor.diagnose(question, quiet).faults) == 0

    by_doctor()  # starts the workers
    ratios = sorted(timed(by_doctor) / timed(in_two_threads) for _ in range(5))
    assert ratios[0] < 1.5, ratios


@contextmanager
def quiet(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """No bar."""
    yield lambda done, total: None
