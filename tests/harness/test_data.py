"""`mmla data`: download from a Hub on loopback, interrupted and repeated; status; verify."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from mmla_tasks.places import download_folder
from mmla_tasks.root import DataRoot
from mmla_tasks.sources import SOURCES

from .loopback_datasets import DatasetHub, dataset_hub
from .miniatures import ARCHIVES, miniature_hub, packed


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return miniature_hub(clip_bytes=3_000)


@pytest.fixture
def hub(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DatasetHub]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with dataset_hub(dict(files)) as served:
        take_for_the_hub(served, monkeypatch)
        yield served


def take_for_the_hub(hub: DatasetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within this process huggingface_hub has read its environment already."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def data_of(root: Path) -> dict[str, str]:
    """Texts, clips and notes below a root -> digest."""
    names = [p for p in root.rglob("*") if p.is_file() and ".cache" not in p.parts and p.suffix != ".lock"]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(names)}


def test_all_twelve_folders_arrive_with_their_clips(hub, mmla, tmp_path):
    root = tmp_path / "data"
    ran = mmla("data", "download", "--data_dir", root)
    assert ran.status == 0, ran.err
    for folder, source in SOURCES.items():
        assert {p.name for p in (root / folder).glob("*.tsv")} == {"train.tsv", "dev.tsv", "test.tsv"}
        clips = {p.name for p in (root / folder).glob("video/*")}
        ids = [f"{split}_{n}" for split in ("train", "dev", "test") for n in range(2)]
        assert clips == ({f"{source.clip_prefix}_{id}.mp4" for id in ids} if folder in ARCHIVES else set()), folder
    assert ran.out.count("mmla data import iemocap PATH") == 2 and ran.out.count("mmla data import mosi PATH") == 1

    hub.asked.clear()
    again = mmla("data", "download", "--data_dir", root)
    assert again.status == 0 and again.out.count("nothing new") == 9
    assert not [asked for asked in hub.asked if asked.startswith("GET datasets")], "nothing is fetched twice"


def test_texts_alone(hub, mmla, tmp_path):
    assert mmla("data", "download", "meld", "--texts_only", "--data_dir", tmp_path).status == 0
    assert {p.name for p in (tmp_path / "MELD").iterdir()} == {"train.tsv", "dev.tsv", "test.tsv"}


def test_archives_go_when_asked_and_come_back_for_a_repair(hub, mmla, tmp_path):
    archive, clip = tmp_path / "MELD" / "MELD_video.tar.gz", tmp_path / "MELD" / "video" / "MELD_test_0.mp4"
    assert mmla("data", "download", "MELD", "--remove_archives", "--data_dir", tmp_path).status == 0
    assert not archive.exists() and clip.exists()
    whole = clip.read_bytes()
    clip.write_bytes(b"")
    (clip.parent / "MELD_dev_0.mp4").unlink()
    (clip.parent / "MELD_dev_1.mp4").write_bytes(whole[::-1])

    status = mmla("data", "status", "MELD", "--data_dir", tmp_path).out
    assert "4/6" not in status or "mmla data download MELD --repair" in status
    verify = mmla("data", "verify", "--data_dir", tmp_path)
    assert verify.status == 1 and "MELD_dev_1.mp4 is not as in the archive" in verify.out

    ran = mmla("data", "download", "MELD", "--repair", "--remove_archives", "--data_dir", tmp_path)
    assert ran.status == 0 and "3 clips extracted, 3 were there" in ran.out
    assert clip.read_bytes() == whole and not archive.exists()
    verify = mmla("data", "verify", "--data_dir", tmp_path)
    assert "clips" not in verify.out and "not as in the archive" not in verify.out
    assert "2 rows where the released file has 2,610" in verify.out, "the miniature is not the released file"


def test_runs_find_what_was_downloaded_and_record_its_commit(hub, mmla, tmp_path):
    assert mmla("data", "download", "MUStARD").status == 0
    root = DataRoot.choose()
    assert root.kind == "hub" and root.commit("MUStARD") == hub.commit and download_folder().is_dir()
    run = tmp_path / "run"
    task = "mmla_speaking_style_mustard_text"
    ran = mmla("run", "--model", "mmla-echo", "--tasks", task, "--run_dir", run)
    assert ran.status == 0, ran.err
    assert json.loads((run / "results.json").read_text())["mmla"]["tasks"][task]["data"]["commit"] == hub.commit
    other = mmla("run", "--model", "mmla-echo", "--tasks", task, "--data_revision", "abcdef1")
    assert other.status == 2 and "another commit" in other.err and "--data_revision abcdef1" in other.err
    assert "mmla data download MELD" in mmla("ls", "mmla_emotion").out


def test_a_branch_names_what_was_downloaded_from_it(hub, mmla, tmp_path):
    run = ("run", "--model", "mmla-echo", "--tasks", "mmla_speaking_style_mustard_text", "--data_revision")
    assert mmla("data", "download", "MUStARD", "--data_revision", "main").status == 0
    for revision in ("main", hub.commit, hub.commit[:8]):
        ran = mmla(*run, revision, "--run_dir", tmp_path / revision)
        assert ran.status == 0, ran.err
    assert "another commit" in mmla(*run, "v2").err


def test_a_newer_commit_replaces_what_changed(hub, mmla, tmp_path):
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    hub.commit = "f" * 40
    hub.files["MELD/test.tsv"] = hub.files["MELD/test.tsv"].replace(b"Text", b"Word")
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 0 and "nothing new" in ran.out
    assert b"Word" in (tmp_path / "MELD" / "test.tsv").read_bytes()
    assert json.loads((tmp_path / ".mmla" / "MELD.json").read_text())["commit"] == "f" * 40


def of_commit(hub: DatasetHub, commit: str, clips: dict[str, bytes], mode: str = "w:") -> None:
    hub.commit = commit * 40
    hub.files["MELD/MELD_video.tar.gz"] = packed(clips, mode)


def test_a_newer_archive_of_the_same_size_replaces_its_clips(hub, mmla, tmp_path):
    clip = tmp_path / "MELD" / "video" / "MELD_test_0.mp4"
    of_commit(hub, "a", {"MELD_test_0.mp4": b"old"})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    of_commit(hub, "b", {"MELD_test_0.mp4": b"new"})
    ran = mmla("data", "download", "MELD", "--texts_only", "--data_dir", tmp_path)
    assert ran.status == 0 and clip.read_bytes() == b"old"
    note = json.loads((tmp_path / ".mmla" / "MELD.json").read_text())
    assert note["commit"] == "b" * 40 and not note["archives"], "its clips are not there yet"
    assert "mmla data download MELD" in mmla("data", "status", "MELD", "--data_dir", tmp_path).out
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 0 and "1 clips extracted" in ran.out and clip.read_bytes() == b"new"
    note = json.loads((tmp_path / ".mmla" / "MELD.json").read_text())
    assert note["archive_sha256"] == {
        "MELD/MELD_video.tar.gz": hashlib.sha256(hub.files["MELD/MELD_video.tar.gz"]).hexdigest()
    }
    assert "nothing new" in mmla("data", "download", "MELD", "--data_dir", tmp_path).out


def test_a_newer_archive_of_another_size_replaces_clips_of_the_same_size(hub, mmla, tmp_path):
    clip = tmp_path / "MELD" / "video" / "MELD_test_0.mp4"
    of_commit(hub, "a", {"MELD_test_0.mp4": b"old"})
    assert mmla("data", "download", "MELD", "--remove_archives", "--data_dir", tmp_path).status == 0
    of_commit(hub, "b", {"MELD_test_0.mp4": b"new", "MELD_test_1.mp4": bytes(99_999)})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert clip.read_bytes() == b"new"


def test_an_extraction_that_was_killed_is_gone_on_with_at_a_newer_commit(hub, mmla, tmp_path, monkeypatch):
    from harness_ext import downloads

    def killed(archive, into, **options):
        extract(archive, into, **options)
        raise KeyboardInterrupt

    clip, extract = tmp_path / "MELD" / "video" / "MELD_test_0.mp4", downloads.extract_clips
    for commit, content in (("a", b"old"), ("b", b"mid"), ("a", b"old")):
        of_commit(hub, commit, {"MELD_test_0.mp4": content})
        with monkeypatch.context() as patch:
            patch.setattr(downloads, "extract_clips", killed)
            assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 130
        assert clip.read_bytes() == content
        assert needed(tmp_path, hub, "MELD").fetch == 0, "the archive is there"
    of_commit(hub, "b", {"MELD_test_0.mp4": b"new"})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert clip.read_bytes() == b"new"


def test_an_archive_of_another_name_replaces_the_clips_of_the_old_one(hub, mmla, tmp_path):
    of_commit(hub, "a", {"MELD_test_0.mp4": b"old"})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    del hub.files["MELD/MELD_video.tar.gz"]
    hub.commit, hub.files["MELD/MELD_videos.tar"] = "b" * 40, packed({"MELD_test_0.mp4": b"new"}, "w:")
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert (tmp_path / "MELD" / "video" / "MELD_test_0.mp4").read_bytes() == b"new"
    assert list(json.loads((tmp_path / ".mmla" / "MELD.json").read_text())["archives"]) == ["MELD/MELD_videos.tar"]


def test_a_note_without_digests_is_trusted_for_its_own_commit_only(hub, mmla, tmp_path):
    of_commit(hub, "a", {"MELD_test_0.mp4": b"old"})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    file = tmp_path / ".mmla" / "MELD.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "archive_sha256"}))
    old = file.read_text()
    assert "nothing new" in mmla("data", "download", "MELD", "--data_dir", tmp_path).out
    file.write_text(old)
    of_commit(hub, "b", {"MELD_test_0.mp4": b"new"})
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert (tmp_path / "MELD" / "video" / "MELD_test_0.mp4").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "RepoNotFound", "HF_TOKEN"),
        (403, "GatedRepo", "accept them at"),
        (404, "RepoNotFound", "has no dataset"),
        (500, "", "the same command goes on"),
    ],
)
def test_a_hub_that_refuses_is_told_in_words(hub, mmla, tmp_path, status, code, words):
    hub.status, hub.error_code = status, code
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 2 and words in ran.err, ran.err


def test_an_unknown_revision_or_dataset(hub, mmla, tmp_path):
    ran = mmla("data", "download", "MELD", "--data_revision", "nope", "--data_dir", tmp_path)
    assert ran.status == 2 and "no revision nope" in ran.err
    ran = mmla("data", "download", "MELT", "IEMOCAB", "--data_dir", tmp_path)
    assert ran.status == 2 and "did you mean `MELD`" in ran.err and "did you mean `IEMOCAP`" in ran.err


def test_without_network_the_message_says_what_can_be_done(mmla, tmp_path):
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 2
    for words in ("HF_HUB_OFFLINE", "another machine", "--data_dir sample", "HF_ENDPOINT", "goes on"):
        assert words in ran.err


def test_too_small_a_disk_is_told_before_anything_is_fetched(hub, mmla, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 2 and "there is no room" in ran.err and "10.0 kB" in ran.err
    assert not (tmp_path / "MELD").exists()


def needed(root: Path, hub: DatasetHub, *datasets: str, **options: bool):
    from harness_ext.downloads import Wanted, look_up, needed_bytes

    return needed_bytes(Wanted(datasets, root, **options), look_up(None))


def test_clips_that_are_there_need_no_room_again(hub, mmla, tmp_path, monkeypatch):
    from harness_ext import downloads

    def killed(archive, into, **options):
        extract(archive, into, **options)
        (into / "MELD_test_0.mp4").unlink()
        raise KeyboardInterrupt

    extract = downloads.extract_clips
    at_first = needed(tmp_path, hub, "MELD")
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "extract_clips", killed)
        assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 130
    left = needed(tmp_path, hub, "MELD")
    assert left.fetch == 0 and left.clips == left.peak == at_first.clips - 5 * 3_012
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=left.peak))
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert needed(tmp_path, hub, "MELD").peak == 0
    whole = needed(tmp_path, hub, "MELD", repair=True).peak
    (tmp_path / "MELD" / "video" / "MELD_test_0.mp4").unlink()
    assert needed(tmp_path, hub, "MELD", repair=True).peak == whole + 3_012


def test_removed_archives_make_room_for_the_next_dataset(hub, mmla, tmp_path, monkeypatch):
    together, in_turn = (needed(tmp_path, hub, *ARCHIVES, remove_archives=remove) for remove in (False, True))
    assert together.peak == together.fetch + together.clips == in_turn.fetch + in_turn.clips
    archives = [len(hub.files[f"{folder}/{name}"]) for folder, name in ARCHIVES.items()]
    assert in_turn.peak == together.peak - sum(archives[:-1])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=in_turn.peak))
    ran = mmla("data", "download", *ARCHIVES, "--data_dir", tmp_path)
    assert ran.status == 2 and "--remove_archives frees space" in ran.err
    assert mmla("data", "download", *ARCHIVES, "--remove_archives", "--data_dir", tmp_path).status == 0


def test_archives_that_were_received_before_go_when_asked(hub, mmla, tmp_path):
    archive = tmp_path / "MELD" / "MELD_video.tar.gz"
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0 and archive.exists()
    ran = mmla("data", "download", "MELD", "--remove_archives", "--data_dir", tmp_path)
    assert ran.status == 0 and "nothing new" in ran.out and not archive.exists()


def test_an_archive_with_odd_members_is_extracted_and_they_are_named(hub, mmla, tmp_path):
    clips = {"a/MELD_test_0.mp4": b"one", "b/MELD_test_0.mp4": b"two", "b/MELD_test_1.mp4": b"three"}
    hub.files["MELD/MELD_video.tar.gz"] = packed(clips)
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 1 and "b/MELD_test_0.mp4: the archive holds this name before" in ran.out
    assert (tmp_path / "MELD" / "video" / "MELD_test_0.mp4").read_bytes() == b"one"
    again = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert again.status == 1 and "nothing new" in again.out and "this name before" in again.out


def test_an_archive_without_a_clip_is_told_each_time(hub, mmla, tmp_path):
    hub.files["MELD/MELD_video.tar.gz"] = packed({"MELD/readme.txt": b"see elsewhere"})
    for _ in range(2):
        ran = mmla("data", "download", "MELD", "--remove_archives", "--data_dir", tmp_path)
        assert ran.status == 1 and "holds no clip (.mp4" in ran.out and "MELD/MELD_video.tar.gz" in ran.out


def test_status_counts_and_says_what_next(mmla, real_texts):
    ran = mmla("data", "status", "--data_dir", real_texts)
    assert ran.status == 0
    meld = next(line for line in ran.out.splitlines() if line.startswith("MELD "))
    assert "–" in meld and "1,109" in meld and "2,610" in meld and "0/3,719" in meld
    assert "mmla data import mosi" in ran.out and "decoded frames" in ran.out
    found = json.loads(mmla("data", "status", "--json", "--data_dir", real_texts).out)
    assert sum(one["splits"]["test"]["rows"] for one in found["datasets"]) == 15_710


def download(root: Path, hub: DatasetHub, home: Path, *datasets: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **hub.environment, "HF_HOME": str(home)}
    command = [sys.executable, "-m", "harness_ext.cli", "data", "download", *datasets, "--data_dir", str(root)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_two_downloads_at_once_wait_for_each_other(hub, tmp_path):
    hub.files = miniature_hub(clip_bytes=2_000, rows=1)
    both = [download(tmp_path / "data", hub, tmp_path / "home") for _ in range(2)]
    told = [process.communicate(timeout=120)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    clips = list((tmp_path / "data").glob("*/video/*"))
    assert len(clips) == 3 * len(ARCHIVES) and all(clip.stat().st_size > 2_000 for clip in clips)


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Exit status of a process that ends in so many seconds; what it said is shown when a test fails."""
    print(process.communicate(timeout=seconds)[0].decode())
    return process.returncode


@pytest.mark.slow
def test_killed_at_twenty_points_and_repeated_it_ends_the_same(tmp_path):
    draw = random.Random(0)
    with dataset_hub(miniature_hub(), seconds_a_chunk=0.002) as hub:
        began = time.monotonic()
        undisturbed = download(tmp_path / "undisturbed", hub, tmp_path / "home")
        assert ended(undisturbed, 120) == 0
        whole = time.monotonic() - began
        kills = 0
        while kills < 20:
            process = download(tmp_path / "killed", hub, tmp_path / "home")
            try:
                ended(process, draw.uniform(0.3, 0.8) * whole)
                shutil.rmtree(tmp_path / "killed")  # it was through before the kill: from the start again
            except subprocess.TimeoutExpired:
                process.kill()
                ended(process, 10)
                kills += 1
                for clip in (tmp_path / "killed").glob("*/video/*.mp4"):
                    assert clip.stat().st_size == 40_012, f"half a clip: {clip}"
        process = download(tmp_path / "killed", hub, tmp_path / "home")
        assert ended(process, 120) == 0
    assert data_of(tmp_path / "killed") == data_of(tmp_path / "undisturbed")


def test_a_killed_download_goes_on_where_it_stopped(tmp_path):
    """Of 30 MB some are there when the process is killed, and are not asked for again."""
    files = {name: content for name, content in miniature_hub(clip_bytes=1_000).items() if name.endswith(".tsv")}
    files["MELD/MELD_video.tar.gz"] = packed({"MELD_test_0.mp4": random.Random(1).randbytes(30_000_000)}, "w:")
    with dataset_hub(files, seconds_a_chunk=0.0005) as hub:
        process = download(tmp_path / "data", hub, tmp_path / "home", "MELD")
        parts = tmp_path / "data" / ".mmla" / "parts"
        for _ in range(6_000):
            if any(part.stat().st_size for part in parts.glob("*")):
                break
            time.sleep(0.01)
        process.kill()
        process.communicate()
        (part,) = parts.glob("*")
        have = part.stat().st_size
        assert 0 < have < 30_000_000
        hub.seconds_a_chunk = 0
        hub.asked.clear()
        process = download(tmp_path / "data", hub, tmp_path / "home", "MELD")
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 0, told
    (asked,) = (asked for asked in hub.asked if asked.startswith("GET") and "tar.gz" in asked)
    assert asked.endswith(f"bytes={have}-")
    clip = tmp_path / "data" / "MELD" / "video" / "MELD_test_0.mp4"
    assert clip.read_bytes() == random.Random(1).randbytes(30_000_000) and not any(parts.iterdir())


def test_an_archive_that_arrives_damaged_is_deleted_and_fetched_again(hub, mmla, tmp_path):
    assert mmla("data", "download", "MELD", "--texts_only", "--data_dir", tmp_path).status == 0
    archive = hub.files["MELD/MELD_video.tar.gz"]
    part = tmp_path / ".mmla" / "parts" / f"{hashlib.sha256(archive).hexdigest()[:16]}-MELD_video.tar.gz"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * (len(archive) // 2))
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 2 and "did not arrive as the Hub has it" in ran.err and not part.exists()
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    assert len(list((tmp_path / "MELD" / "video").iterdir())) == 6


@pytest.mark.parametrize(
    ("folder", "archive"),
    [
        ("CH-SIMSv2.0", "CH-SIMSv2.0/Ch-simsv2_video.tar.gz"),
        ("CH-SIMSv2.0", "archives/CH_SIMS_v2.0_videos.tar"),
        ("UR-FUNNY-v2", "URFUNNY_V2-video.zip"),
        ("MELD", "MELD_video.tar.gz"),
        ("MIntRec", "MIntRec_video.tar.xz"),
        ("MUStARD", "MUStARD/clips.tgz"),
    ],
)
def test_an_archive_is_found_however_it_is_spelt_and_no_other_is_taken_for_it(folder, archive):
    from harness_ext.downloads import Remote

    others = ["MELD-DA_video.tar.gz", "MIntRec2.0_video.tar.gz", "MELD/test.tsv"]
    assert Remote("c", dict.fromkeys([*others, archive], 1)).archives_of(SOURCES[folder]) == [archive]


def test_an_interrupt_says_that_the_same_command_goes_on(tmp_path):
    import signal

    with dataset_hub(miniature_hub(), seconds_a_chunk=0.05) as hub:
        process = download(tmp_path / "data", hub, tmp_path / "home")
        waited = threading.Event()
        for _ in range(600):
            if any(asked.startswith("GET datasets") for asked in hub.asked):
                break
            waited.wait(0.1)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130 and "the same command goes on" in told and "Traceback" not in told


def test_a_damaged_store_of_digests_is_made_again(tmp_path, monkeypatch):
    import sqlite3

    from harness_ext.video import clip_digest, digests
    from mmla_tasks.records import Clip

    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path))
    (tmp_path / digests.STORE).write_bytes(b"no database " * 1000)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(name.encode())
        clip = Clip(path=str(tmp_path / name), start_seconds=0.0, end_seconds=None, size=5, mtime_ns=0)
        assert clip_digest(clip) == hashlib.sha256(name.encode()).hexdigest()
    with sqlite3.connect(tmp_path / digests.STORE) as store:
        assert store.execute("SELECT count(*) FROM digests").fetchone()[0] >= 1


@pytest.mark.parametrize("note", ["[]", "null", "3", '{"repository": "r"}', '{"repository": "r", "commit": null}'])
def test_notes_of_another_shape_count_as_none(hub, mmla, tmp_path, note):
    root = tmp_path / "a root"
    assert mmla("data", "download", "MELD", "--texts_only", "--data_dir", root).status == 0
    (root / ".mmla" / "MELD.json").write_text(note)
    (root / ".mmla" / "MELD.clips.json").write_text(note)
    assert mmla("data", "verify", "MELD", "--data_dir", root).status == 1
    ran = mmla("data", "download", "MELD", "--data_dir", root)
    assert ran.status == 0 and "6 clips extracted" in ran.out, ran.err
    assert f"next: mmla data status --data_dir '{root}'" in ran.out, "a path with a space can be pasted"


def test_a_note_that_cannot_be_written_leaves_nothing_aside(tmp_path):
    from mmla_tasks.received import write_clip_digests

    with pytest.raises(UnicodeEncodeError):
        write_clip_digests(tmp_path, "MELD", {"\udcc4.mp4": "0"})
    assert not list((tmp_path / ".mmla").iterdir())


def test_an_older_note_can_be_read_and_so_can_a_newer_one(tmp_path):
    from mmla_tasks.received import Received, note_of

    note = {"repository": "r", "commit": "c", "texts": {"MELD/dev.tsv": "0"}, "archives": {"MELD/a.zip": 3}}
    note_of(tmp_path, "MELD").parent.mkdir()
    for more in ({}, {"of_the_future": [1]}):
        note_of(tmp_path, "MELD").write_text(json.dumps(note | more))
        read = Received.read(tmp_path, "MELD")
        assert read and read.archives == {"MELD/a.zip": 3} and read.revision is None


def test_links_that_lead_nowhere_and_files_that_go_count_nothing(mmla, tmp_path, monkeypatch):
    from harness_ext.caches import bytes_below

    video = tmp_path / "MELD" / "video"
    video.mkdir(parents=True)
    (video / "MELD_test_0.mp4").symlink_to(tmp_path / "gone.mp4")
    (video / "MELD_test_1.mp4").write_bytes(b"clip")
    (video / "MELD_test_2.txt").write_bytes(b"text")
    (tmp_path / "MELD" / "test.tsv").write_text("id\ttext\tlabel\ntest_0\tHi.\tjoy\n")
    ran = mmla("data", "status", "MELD", "--data_dir", tmp_path)
    assert ran.status == 0 and "4 bytes" in ran.out
    assert mmla("data", "verify", "MELD", "--data_dir", tmp_path).status == 1
    monkeypatch.setattr(os, "walk", lambda path: [(str(video), [], ["evicted.mp4", "MELD_test_1.mp4"])])
    assert bytes_below(video) == 4


def blocked_by(root: Path, what: str) -> Path:
    """Put something where the download wants to write."""
    if what == "an archive's name":
        (root / "MELD" / "MELD_video.tar.gz").mkdir(parents=True)
        return root / "MELD" / "MELD_video.tar.gz"
    if what == "a clip's name":
        (root / "MELD" / "video" / "MELD_test_0.mp4").mkdir(parents=True)
        return root / "MELD" / "video" / "MELD_test_0.mp4"
    file = {"notes": root / ".mmla", "dataset": root / "MELD", "clips": root / "MELD" / "video"}[what]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a file")
    return file


@pytest.mark.parametrize("what", ["notes", "dataset", "clips", "an archive's name", "a clip's name"])
def test_what_stands_in_the_way_is_named(hub, mmla, tmp_path, what):
    named = blocked_by(tmp_path, what)
    for flags in ((), ("--repair",), ("--remove_archives",)):
        ran = mmla("data", "download", "MELD", *flags, "--data_dir", tmp_path)
        assert ran.status == 2 and str(named) in ran.err and "next" in ran.err, ran.err
        assert "the Hub" not in ran.err
    assert mmla("data", "status", "MELD", "--data_dir", tmp_path).status == 0
    named.unlink() if named.is_file() else named.rmdir()
    ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
    assert ran.status == 0 and len(list((tmp_path / "MELD" / "video").iterdir())) == 6


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("step", ["http_get", "hf_hub_download", "mkdir"])
def test_a_disk_that_takes_nothing_is_not_the_network(hub, mmla, tmp_path, monkeypatch, number, step):
    import huggingface_hub

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "MELD" / "x"))

    owner = {"http_get": huggingface_hub.file_download, "hf_hub_download": huggingface_hub, "mkdir": Path}[step]
    (tmp_path / "root").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fails if step != "mkdir" else lambda *_, **__: fails())
        patch.setattr("harness_ext.cli.data_download.data_folder", lambda *_, **__: tmp_path / "root")
        ran = mmla("data", "download", "MELD")
    assert ran.status == 2 and "MELD cannot be written" in ran.err and os.strerror(number) in ran.err, ran.err
    assert "the Hub" not in ran.err and "run the same command again" in ran.err


def test_a_dataset_on_another_disk(hub, mmla, tmp_path):
    """Its folder is a link; the archive's part must lie where it is renamed."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system, such as /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as elsewhere:
        (tmp_path / "MELD").symlink_to(elsewhere)
        ran = mmla("data", "download", "MELD", "--data_dir", tmp_path)
        assert ran.status == 0 and "6 clips extracted" in ran.out, ran.err
        assert len(list(Path(elsewhere, "video").iterdir())) == 6


def meld_of(root: Path, **rows: int) -> None:
    """MELD with so many rows a split, each with its clip."""
    (root / "MELD" / "video").mkdir(parents=True, exist_ok=True)
    for split, count in rows.items():
        lines = [f"{split}_{n}\tHi.\tjoy" for n in range(count)]
        (root / "MELD" / f"{split}.tsv").write_text("\n".join(["id\ttext\tlabel", *lines]))
        for n in range(count):
            (root / "MELD" / "video" / f"MELD_{split}_{n}.mp4").write_bytes(b"clip")


def test_a_clip_that_cannot_be_read_is_a_fault(hub, mmla, tmp_path, monkeypatch):
    from harness_ext import holdings

    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    sha256 = holdings.file_sha256

    def failing(file: Path) -> str:
        if file.name == "MELD_test_0.mp4":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sha256(file)

    monkeypatch.setattr(holdings, "file_sha256", failing)
    told = mmla("data", "verify", "MELD", "--data_dir", tmp_path)
    assert told.status == 1 and "MELD_test_0.mp4 cannot be read: Input/output error" in told.out


def test_all_is_there_only_when_no_split_is_missing_or_short(mmla, tmp_path, monkeypatch):
    known = dataclasses.replace(SOURCES["MELD"], rows={"train": 2, "dev": None, "test": 1})
    monkeypatch.setitem(SOURCES, "MELD", known)
    for rows, whole in (
        ({"test": 1}, False),
        ({"train": 1, "dev": 1}, False),
        ({"train": 2}, True),
        ({"train": 3}, False),
    ):
        meld_of(tmp_path, **rows)
        told = mmla("data", "status", "MELD", "--data_dir", tmp_path).out
        assert ("all texts and clips are there" in told) == whole, told
        assert (f"mmla data download MELD --data_dir {tmp_path}" in told) == (not whole), told


def test_each_fault_stands_with_what_mends_it(hub, mmla, tmp_path):
    assert mmla("data", "download", "MELD", "--data_dir", tmp_path).status == 0
    (tmp_path / "MELD" / "dev.tsv").write_text("no table")
    (tmp_path / "MELD" / "video" / "MELD_test_0.mp4").unlink()
    told = mmla("data", "verify", "MELD", "--data_dir", tmp_path).out.splitlines()
    at = next(n for n, line in enumerate(told) if "1 of 2 clips of test are missing" in line)
    assert told[at + 1].strip() == f"mmla data download MELD --repair --data_dir {tmp_path}"
    assert not [line for line in told if "mmla data verify" in line]
    os.utime(tmp_path / "MELD" / "dev.tsv", (time.time() + 9,) * 2)  # huggingface_hub trusts what is a second old
    assert mmla("data", "download", "MELD", "--repair", "--data_dir", tmp_path).status == 0
    told = mmla("data", "verify", "MELD", "--data_dir", tmp_path).out
    assert "clips" not in told and told.count("rows where the released file has") == 3
