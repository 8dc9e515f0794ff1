"""`mmla data import` on miniature originals: every clip is found, and shows exactly its frames of the source."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import harness_ext.imports.placing as placing
from harness_ext import evaluate
from harness_ext.frame_policy import FramePolicy
from harness_ext.video import decode, is_packed, unpack
from mmla_tasks.documents import Dataset, clip_counts
from mmla_tasks.errors import ClipError, ModelError
from mmla_tasks.root import download_folder
from mmla_tasks.segments import SEGMENTS, read_segments
from mmla_tasks.sources import SOURCES

from .loopback import Loopback
from .originals import DIALOGUES, FRAMES, NTSC, draw_iemocap, draw_mosi

ALL_FRAMES = FramePolicy(num_frames=10_000)
EMOTIONS = ["angry", "happy", "sad", "neutral", "frustrated", "excited"]
MOSI_ROWS = [
    ("In_ventedId$_$1", "sentence number 1 of it", "negative"),
    ("In_ventedId$_$2", "sentence number 2, of it", "positive"),
    ("-NoSuch-Vid$_$10", "quite another sentence", "negative"),
]


@pytest.fixture(scope="session")
def iemocap(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_iemocap(draw, tmp_path_factory.mktemp("iemocap"))


@pytest.fixture(scope="session")
def mosi(draw: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mosi(draw, tmp_path_factory.mktemp("mosi"), {"In_ventedId": 3, "-NoSuch-Vid": 10})


@pytest.fixture
def root(tmp_path: Path, tsv: Callable[..., Path]) -> Path:
    """Texts of IEMOCAP (train and test), IEMOCAP-DA and MOSI for the miniature originals."""
    root = tmp_path / "data"
    turns = {f"{d}_{turn}": text for d, turns in DIALOGUES.items() for turn, (_, _, text) in turns.items()}
    rows = [(id, text, "neutral") for id, text in turns.items()]
    tsv(root / "IEMOCAP" / "train.tsv", [row for row in rows if row[0].startswith("Ses06")])
    tsv(root / "IEMOCAP" / "test.tsv", [row for row in rows if row[0].startswith("Ses09")])
    tsv(root / "IEMOCAP-DA" / "test.tsv", [(id, text, "question") for id, text, _ in rows if "F00" in id])
    tsv(root / "MOSI" / "test.tsv", MOSI_ROWS)
    return root


@pytest.fixture
def imported(root: Path, mmla: Callable[..., Any]) -> Callable[..., tuple[int, str]]:
    """Run the verb on the data root; gives status and what was printed."""

    def call(*arguments: object) -> tuple[int, str]:
        ran = mmla("data", "import", *arguments, "--data_dir", root)
        return ran.status, ran.out + ran.err

    return call


def documents(root: Path, name: str, split: str = "test") -> dict[str, Any]:
    labels = {"IEMOCAP": EMOTIONS, "MOSI": ["positive", "negative"]}.get(name, ["question"])
    read = Dataset.in_root(root, name).read(split, labels=labels, dimension="x", with_clips=True)
    return {document["id"]: document for document in read.documents}


def test_every_utterance_shows_exactly_its_frames_of_the_dialogue(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], draw: ModuleType
) -> None:
    status, said = imported("iemocap", iemocap)
    assert status == 0, said
    everything = documents(root, "IEMOCAP", "train") | documents(root, "IEMOCAP")
    assert clip_counts(everything.values()) == (8, 0)
    assert clip_counts(documents(root, "IEMOCAP-DA").values()) == (4, 0)
    for dialogue, turns in DIALOGUES.items():
        for turn, (start, end, _) in turns.items():
            frames = decode(everything[f"{dialogue}_{turn}"]["clip"], ALL_FRAMES)
            shown = [draw.read_number(image) for image in frames.frames_THWC]
            first, stop = (math.ceil(Fraction(f"{seconds:.4f}") * NTSC) for seconds in (start, end))
            assert shown == list(range(first, stop)), f"{dialogue}_{turn}"


def test_one_import_serves_both_datasets_by_hard_link(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    imported("iemocap", iemocap)
    original = iemocap / "Session9" / "dialog" / "avi" / "DivX" / "Ses09F_impro09.avi"
    for name in ("IEMOCAP", "IEMOCAP-DA"):
        place = root / name / "video" / "whole" / original.name
        assert place.samefile(original) and not place.is_symlink()


def test_packed_pictures_get_packets_of_their_own(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], draw: ModuleType
) -> None:
    original = iemocap / "Session6" / "dialog" / "avi" / "DivX" / "Ses06M_script09_1b.avi"
    assert is_packed(original)
    _, said = imported("iemocap", iemocap)
    place = root / "IEMOCAP" / "video" / "whole" / original.name
    assert "1 copied with their pictures unpacked" in said
    with av.open(str(place)) as container:
        (sound,) = container.streams.audio
        assert sum(packet.size for packet in container.demux(sound)) == 2 * 96_000
    assert not place.samefile(original) and place.samefile(root / "IEMOCAP-DA" / "video" / "whole" / original.name)
    clip = dict(path=str(place), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)
    frames = decode(clip, ALL_FRAMES)  # type: ignore[arg-type]
    assert [draw.read_number(image) for image in frames.frames_THWC] == list(range(FRAMES))


def test_tasks_find_the_clips(
    iemocap: Path,
    mosi: Path,
    root: Path,
    imported: Callable[..., tuple[int, str]],
    mmla: Callable[..., Any],
    tmp_path: Path,
) -> None:
    imported("iemocap", iemocap)
    imported("mosi", mosi)
    tasks = "mmla_emotion_iemocap,mmla_dialogue_act_iemocap,mmla_sentiment_mosi"
    ran = mmla(
        "run", "--model", "mmla-echo", "--tasks", tasks, "--data_dir", root, "--run_dir", tmp_path / "run",
        "--limit", 2, "--require_all",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    listed = mmla("ls", "mmla_emotion", "--data_dir", root).out
    assert "✓ clips" in next(line for line in listed.splitlines() if "mmla_emotion_iemocap" in line)


def test_a_server_is_sent_the_frames_of_the_utterance_or_told_why_not(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], draw: ModuleType
) -> None:
    imported("iemocap", iemocap)
    server = Loopback(answer_of=lambda body: "emotion: neutral")
    with server.serving() as url:
        args = {"model": "m", "base_url": url, "num_frames": 3, "clips_as": "images"}
        evaluate("mmla-api", "mmla_emotion_iemocap", data_dir=root, model_args=args)
        files = {"model": "m", "base_url": url, "clips_as": "video"}
        with pytest.raises(ModelError, match="is a part of one"):
            evaluate("mmla-api", "mmla_emotion_iemocap", data_dir=root, model_args=files)
    sent = set()
    for call in server.calls:
        urls = [part["image_url"]["url"] for part in call.body["messages"][0]["content"][:-1]]
        pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
        sent.add(tuple(draw.read_number(np.asarray(picture)) for picture in pictures))
    assert sent == {(10, 19, 29), (128, 150, 172)}


def test_a_dry_run_writes_nothing_and_lists_what_is_missing(
    iemocap: Path, root: Path, tsv: Callable[..., Path], imported: Callable[..., tuple[int, str]]
) -> None:
    rows = [
        ("Ses09F_impro09_F000", "A heron painted my ladder.", "neutral"),
        ("Ses09F_impro09_F009", "The ladder objects.", "sad"),
    ]
    tsv(root / "IEMOCAP" / "test.tsv", [*rows, ("Ses08M_impro09_F000", "Moss agrees.", "sad")])
    before = sorted(root.rglob("*"))
    status, said = imported("iemocap", iemocap, "--dry_run")
    assert status == 1 and sorted(root.rglob("*")) == before
    assert "3 dialogues, times of 8 utterances" in said
    assert "missing: 2 rows" in said and "no Ses08M_impro09.avi: Ses08M_impro09_F000" in said
    assert "no times in EmoEvaluation/Ses09F_impro09.txt" in said
    assert "dry run: nothing was written" in said
    (line,) = [line for line in said.splitlines() if line.split()[:2] == ["test", "3"]]
    assert line.split() == ["test", "3", "1", "2"]


def test_the_second_time_everything_is_there_before(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    imported("iemocap", iemocap)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")}
    status, said = imported("iemocap", iemocap)
    assert status == 0 and "6 there before" in said
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")} == before


@pytest.mark.parametrize(
    "folder", ["..", "Session6", "Session9/dialog", "Session6/dialog/avi/DivX", "Session6/dialog/EmoEvaluation"]
)
def test_a_folder_too_high_or_too_deep_is_understood(
    iemocap: Path, imported: Callable[..., tuple[int, str]], folder: str
) -> None:
    status, said = imported("iemocap", iemocap / folder, "--dry_run")
    assert status == 0 and "3 dialogues" in said


def test_a_wrong_folder_says_what_was_looked_for(
    tmp_path: Path, iemocap: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "wrong" / "MELD").mkdir(parents=True)
    for name, looked in (("iemocap", "SessionN/dialog/avi/DivX/"), ("mosi", "Raw/Video/Segmented/")):
        status, said = imported(name, tmp_path / "wrong")
        assert status == 2 and looked in said and re.search(r"there +MELD\n", said), said
    status, said = imported("iemocap", iemocap / "Session6" / "dialog" / "transcriptions" / "Ses06F_impro09.txt")
    assert status == 2 and "is a file" in said


def changed(iemocap: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(iemocap, tmp_path / "changed"))


def test_impossible_times_are_counted_and_named(
    iemocap: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    top = changed(iemocap, tmp_path)
    judged = top / "Session9" / "dialog" / "EmoEvaluation" / "Ses09F_impro09.txt"
    judged.write_text(
        judged.read_text().replace("[0.3333 - 1.0000]", "[1.0000 - 1.0000]").replace("- 5.7500", "- 6.5000")
    )
    status, said = imported("iemocap", top)
    assert status == 1
    assert "no length: 1 s to 1 s: Ses09F_impro09_F000" in said
    assert "ends at 6.5 s; Ses09F_impro09.avi at 6.006 s: Ses09F_impro09_M000" in said
    assert clip_counts(documents(root, "IEMOCAP").values()) == (1, 1)
    judged.write_text(judged.read_text().replace("[4.2500 -", "[6.0070 -"))
    status, said = imported("iemocap", top, "--dry_run")
    assert status == 1 and "starts at 6.007 s; Ses09F_impro09.avi ends at 6.006 s: Ses09F_impro09_M000" in said


def test_a_damaged_dialogue_costs_its_rows_alone(
    iemocap: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    top = changed(iemocap, tmp_path)
    (top / "Session9" / "dialog" / "avi" / "DivX" / "Ses09F_impro09.avi").write_bytes(b"")
    status, said = imported("iemocap", top)
    assert status == 1 and "Ses09F_impro09.avi can't be read: the file is empty" in said
    assert clip_counts(documents(root, "IEMOCAP").values()) == (0, 2)
    assert clip_counts(documents(root, "IEMOCAP", "train").values()) == (6, 0)


def test_two_files_of_one_name_must_hold_the_same(
    iemocap: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    top = changed(iemocap, tmp_path)
    first = top / "Session6" / "dialog" / "avi" / "DivX" / "Ses06F_impro09.avi"
    twin = top / "copy" / first.name
    twin.parent.mkdir()
    shutil.copyfile(first, twin)
    assert imported("iemocap", top, "--dry_run")[0] == 0
    twin.write_bytes(first.read_bytes()[:-1] + b"x")
    status, said = imported("iemocap", top, "--dry_run")
    assert status == 1 and "several files Ses06F_impro09.avi, with different content" in said


def test_a_root_below_the_originals_is_not_taken_for_them(
    iemocap: Path, tmp_path: Path, root: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    shutil.copytree(iemocap, root / "IEMOCAP" / iemocap.name)
    for said in ("1 copied with their pictures unpacked", "6 there before"):
        for path in (root / "IEMOCAP", root, tmp_path):
            status, output = imported("iemocap", path, "--dry_run")
            assert status == 0 and "3 dialogues" in output, output
        status, output = imported("iemocap", root / "IEMOCAP")
        assert status == 0 and said in output, output


def test_links_to_folders_are_followed_and_lead_nowhere_twice(
    iemocap: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "linked").mkdir()
    for session in ("Session6", "Session9"):
        shutil.copytree(iemocap / session, tmp_path / "elsewhere" / session)
        (tmp_path / "linked" / session).symlink_to(tmp_path / "elsewhere" / session)
        (tmp_path / "elsewhere" / session / "up").symlink_to(tmp_path)
        (tmp_path / "elsewhere" / session / "again").symlink_to(tmp_path / "elsewhere")
    status, said = imported("iemocap", tmp_path / "linked")
    assert status == 0 and "3 dialogues" in said and "6 there before" not in said, said


def test_where_no_link_can_be_made_files_are_copied(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    status, said = imported("iemocap", iemocap)
    assert status == 0 and "5 copied, 1 copied with" in said, said
    assert clip_counts(documents(root, "IEMOCAP").values()) == (2, 0)
    assert "6 there before" in imported("iemocap", iemocap)[1]
    assert not list(root.rglob(".importing-*"))


def test_a_symbolic_link_is_followed_not_shared(
    iemocap: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    top = changed(iemocap, tmp_path)
    linked = top / "Session9" / "dialog" / "avi" / "DivX" / "Ses09F_impro09.avi"
    elsewhere = linked.rename(tmp_path / "elsewhere.avi")
    linked.symlink_to(elsewhere)
    imported("iemocap", top)
    shutil.rmtree(top)
    place = root / "IEMOCAP" / "video" / "whole" / linked.name
    assert place.samefile(elsewhere) and not place.is_symlink()


def test_too_little_room_is_said_before_anything_is_copied(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_linked", lambda *_: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    status, said = imported("iemocap", iemocap)
    assert status == 2 and "no room for the clips" in said
    assert not list(root.rglob("*.avi"))


def packed_in(iemocap: Path) -> Path:
    """The dialogue whose pictures are packed."""
    (packed,) = (path for path in iemocap.rglob("Ses*.avi") if is_packed(path))
    return packed


def test_room_is_asked_for_packed_files_also_where_links_can_be_made(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = packed_in(iemocap).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": size - 1}))
    status, said = imported("iemocap", iemocap)
    assert status == 2 and f"{size:,} bytes: packed AVI files are written anew" in said
    assert not list(root.rglob("*.avi"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": size}))
    assert imported("iemocap", iemocap)[0] == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    assert imported("iemocap", iemocap)[0] == 0


def test_a_disk_that_is_full_while_a_file_is_unpacked_leaves_nothing_there(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(source: Path, target: Path) -> None:
        target.symlink_to("/dev/full")
        unpack(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(placing, "unpack", on_a_full_disk)
        status, said = imported("iemocap", iemocap)
    assert status == 2 and "No space left on device" in said and "make room" in said
    assert not list(root.rglob(packed_in(iemocap).name))
    status, said = imported("iemocap", iemocap)
    assert status == 0 and "1 copied with their pictures unpacked" in said


@pytest.mark.parametrize("can_link", [True, False])
def test_a_file_that_cannot_be_unpacked_is_shared_as_it_is_and_tried_again(
    iemocap: Path,
    root: Path,
    imported: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    can_link: bool,
) -> None:
    def fails(source: Path, target: Path) -> None:
        raise ClipError("clip can't be read", fault="timeout", why="reading it was ended after 10 s")

    original = packed_in(iemocap)
    places = [root / name / "video" / "whole" / original.name for name in ("IEMOCAP", "IEMOCAP-DA")]
    with monkeypatch.context() as patch:
        patch.setattr(placing, "unpack", fails)
        if not can_link:
            patch.setattr(placing, "_linked", lambda *_: False)
        for there in (0, 4):
            status, said = imported("iemocap", iemocap)
            assert status == 0 and (f"{there} there before" in said) is (there > 0)
            assert "left packed: their clips are read slowly" in said and f"  {original}: reading it was" in said
            assert all(place.read_bytes() == original.read_bytes() for place in places)
            assert clip_counts(documents(root, "IEMOCAP", "train").values()) == (6, 0)
    status, said = imported("iemocap", iemocap)
    assert status == 0 and "left packed" not in said
    assert original.read_bytes() != places[0].read_bytes() and places[0].samefile(places[1])
    assert "6 there before" in imported("iemocap", iemocap)[1]
    assert not list(root.rglob(".importing-*"))


def test_a_sound_of_an_unknown_kind_is_left_out(
    iemocap: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]], draw: ModuleType
) -> None:
    top = changed(iemocap, tmp_path)
    original = packed_in(top)
    data = bytearray(original.read_bytes())
    tag = data.index(b"strf", data.index(b"auds")) + 8
    data[tag : tag + 2] = b"\x34\x12"
    original.write_bytes(data)
    status, said = imported("iemocap", top)
    assert status == 0 and "1 copied with their pictures unpacked" in said, said
    place = root / "IEMOCAP" / "video" / "whole" / original.name
    with av.open(str(place)) as container:
        assert not container.streams.audio
    clip = dict(path=str(place), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)
    frames = decode(clip, ALL_FRAMES)  # type: ignore[arg-type]
    assert [draw.read_number(image) for image in frames.frames_THWC] == list(range(FRAMES))


@pytest.mark.parametrize("fails_at", range(6))
def test_an_import_that_breaks_off_leaves_whole_files_and_goes_on(
    iemocap: Path,
    root: Path,
    imported: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
) -> None:
    calls, right = iter(range(100)), {name: getattr(placing, name) for name in ("_bring", "unpack")}

    def breaks(work: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Any]:
        def breaking(source: Path, aside: Path) -> Any:
            if next(calls) == fails_at:
                aside.write_bytes(source.read_bytes()[:1000])
                raise KeyboardInterrupt
            return work(source, aside)

        return breaking

    for name in ("_bring", "unpack"):
        monkeypatch.setattr(placing, name, breaks(getattr(placing, name)))
    assert imported("iemocap", iemocap, "--workers", 2)[0] == 130
    for path in root.rglob("whole/Ses*.avi"):
        assert path.stat().st_size > 1000
    for name in ("IEMOCAP", "IEMOCAP-DA"):
        for segment in read_segments(root / name / "video").values():
            assert (root / name / "video" / segment.file).exists()
    for name, work in right.items():
        monkeypatch.setattr(placing, name, work)
    assert imported("iemocap", iemocap)[0] == 0
    assert clip_counts(documents(root, "IEMOCAP", "train").values()) == (6, 0)
    assert not list(root.rglob(".importing-*"))


def test_a_second_import_at_the_same_time_is_refused(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    from filelock import FileLock

    (root / "IEMOCAP" / "video").mkdir()
    with FileLock(root / "IEMOCAP" / "video" / ".import.lock"):
        status, said = imported("iemocap", iemocap)
    assert status == 2 and "another import is at work" in said


def test_sessions_can_come_one_by_one(
    iemocap: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    for session, missing in (("Session6", 1), ("Session9", 1)):
        shutil.copytree(iemocap / session, tmp_path / f"part {session}" / session)
        assert imported("iemocap", tmp_path / f"part {session}")[0] == missing
    assert clip_counts(documents(root, "IEMOCAP", "train").values()) == (6, 0)
    assert clip_counts(documents(root, "IEMOCAP").values()) == (2, 0)


def test_a_damaged_table_of_segments_is_told_before_anything_is_placed(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    table = root / "IEMOCAP" / "video" / SEGMENTS
    table.parent.mkdir()
    table.write_text("id\tfile\tstart_seconds\tend_seconds\na_F000\twhole/a.avi\t5\t4\na_F001\twhole/a.avi\tsoon\t4\n")
    status, said = imported("iemocap", iemocap)
    assert status == 2 and "line 2, id a_F000: 5 to 4" in said and "line 3, id a_F001: soon to 4" in said
    assert not list(root.rglob("*.avi"))
    table.unlink()
    assert imported("iemocap", iemocap)[0] == 0


def test_the_next_step_of_restricted_datasets_is_the_import() -> None:
    commands = {name: source.next_step_for_videos for name, source in SOURCES.items() if source.restricted}
    assert all("mmla data import iemocap PATH" in commands[name] for name in ("IEMOCAP", "IEMOCAP-DA"))
    assert "mmla data import mosi PATH" in commands["MOSI"] and len(commands) == 3


@pytest.mark.parametrize("layout", ["original", "by folder"])
def test_mosi_clips_are_shared_as_they_are(
    mosi: Path, root: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]], layout: str
) -> None:
    top = mosi
    if layout == "by folder":
        top = tmp_path / "MOSI" / "Raw"
        for clip in (mosi / "Video" / "Segmented").iterdir():
            video, _, number = clip.stem.rpartition("_")
            (top / video).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip, top / video / f"{number}.mp4")
    status, said = imported("mosi", top)
    assert status == 0, said
    for id, document in documents(root, "MOSI").items():
        place = Path(document["clip"]["path"])
        assert place.name == f"MOSI_{id}.mp4"
        assert decode(document["clip"], ALL_FRAMES).source_frames == 10 + int(id.split("$_$")[1])
    assert "not used: 10 files" in said and not (root / "MOSI" / "video" / SEGMENTS).exists()
    if layout == "original":
        assert "2 of 3 agree with the distribution's transcripts" in said and "-NoSuch-Vid$_$10" in said


def test_a_clip_of_ones_own_is_left_alone_and_a_damaged_one_replaced(
    mosi: Path, root: Path, imported: Callable[..., tuple[int, str]], draw: ModuleType
) -> None:
    imported("mosi", mosi)
    own, damaged = (root / "MOSI" / "video" / f"MOSI_In_ventedId$_${n}.mp4" for n in (1, 2))
    original = mosi / "Video" / "Segmented" / "In_ventedId_2.mp4"
    for path in (own, damaged):
        path.unlink()
    mine = draw.draw_clip(own, frames=3).read_bytes()
    damaged.write_bytes(original.read_bytes()[:1000])
    status, said = imported("mosi", mosi)
    assert status == 1 and own.read_bytes() == mine and "left alone: other videos" in said and str(own) in said
    assert damaged.samefile(original)


def test_whole_videos_alone_are_not_guessed_at(
    mosi: Path, tmp_path: Path, imported: Callable[..., tuple[int, str]]
) -> None:
    shutil.copytree(mosi / "Video" / "Full", tmp_path / "Raw" / "Video" / "Full")
    status, said = imported("mosi", tmp_path / "Raw")
    assert status == 2 and "no MOSI clips" in said and "there are whole videos" in said


def test_without_texts_nothing_says_which_clips_are_wanted(
    iemocap: Path, tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    (tmp_path / "empty").mkdir()
    ran = mmla("data", "import", "iemocap", iemocap, "--data_dir", tmp_path / "empty")
    assert ran.status == 2 and "no texts of IEMOCAP or IEMOCAP-DA" in ran.err


def test_without_a_named_root_it_is_that_of_the_download(
    iemocap: Path, root: Path, mmla: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder = download_folder()
    assert folder.is_relative_to(tmp_path)
    shutil.copytree(root, folder)
    ran = mmla("data", "import", "iemocap", iemocap)
    assert ran.status == 0, ran.err
    assert (folder / "IEMOCAP" / "video" / SEGMENTS).exists()
    assert mmla("data", "import", "iemocap", iemocap, "--data_dir", "sample").status == 2


def test_status_counts_segments_and_names_commands_for_this_root(
    iemocap: Path, root: Path, imported: Callable[..., tuple[int, str]], mmla: Callable[..., Any]
) -> None:
    imported("iemocap", iemocap)
    said = mmla("data", "status", "IEMOCAP", "MOSI", "--data_dir", root).out
    line = next(line for line in said.splitlines() if line.startswith("IEMOCAP"))
    assert "8/8" in line and "kB" in line
    assert f"mmla data import mosi PATH --data_dir {root}" in said
