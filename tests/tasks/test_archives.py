"""Archives that nobody vouches for: nothing is written outside, and the message names the member."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmla_tasks.archives import Limits, extract_clips
from mmla_tasks.errors import DataError

CLIP = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8
Fill = Callable[[tarfile.TarFile], None]


def add(tar: tarfile.TarFile, name: str, content: bytes = CLIP, **facts: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def member(name: str, content: bytes = CLIP, **facts: object) -> Fill:
    return lambda tar: add(tar, name, content, **facts)


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> Fill:
    return member(name, b"", type=kind, linkname=to)


def twice(first: str, second: str) -> Fill:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, first, b"the first")
        add(tar, second, b"the second")

    return fill


def tar_of(fill: Fill, mode: str = "w:gz", **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as tar:
        add(tar, "v/good.mp4")
        fill(tar)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Fill, str]] = {
    "traversal": (member("../evil.mp4"), "../evil.mp4"),
    "traversal below a folder": (member("v/../../evil.mp4"), "v/../../evil.mp4"),
    "traversal of a text": (member("../../evil.txt"), "../../evil.txt"),
    "traversal with backslashes": (member("..\\evil.mp4"), "..\\evil.mp4"),
    "absolute": (member("/tmp/evil.mp4"), "/tmp/evil.mp4"),
    "absolute with a drive": (member("C:\\evil.mp4"), "C:\\evil.mp4"),
    "absolute folder": (member("/tmp/evil", b"", type=tarfile.DIRTYPE), "/tmp/evil"),
    "character device": (member("evil.mp4", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "evil.mp4"),
    "block device": (member("evil.mp4", b"", type=tarfile.BLKTYPE, devmajor=8), "evil.mp4"),
    "pipe": (member("evil.mp4", b"", type=tarfile.FIFOTYPE), "evil.mp4"),
    "unknown kind": (member("evil.mp4", b"", type=b"Z"), "evil.mp4"),
    "link out by traversal": (link("../evil.mp4", "x"), "../evil.mp4"),
}
ODD: dict[str, tuple[Fill, str]] = {
    "symbolic link out": (link("evil.mp4", "/etc/passwd"), "evil.mp4"),
    "symbolic link inside": (link("evil.mp4", "v/good.mp4"), "evil.mp4"),
    "symbolic link to a parent": (link("v/evil.mp4", "../../.."), "v/evil.mp4"),
    "hard link out": (link("evil.mp4", "/etc/passwd", tarfile.LNKTYPE), "evil.mp4"),
    "hard link inside": (link("evil.mp4", "v/good.mp4", tarfile.LNKTYPE), "evil.mp4"),
    "case collision": (twice("a.mp4", "A.MP4"), "A.MP4"),
    "duplicate": (twice("a.mp4", "a.mp4"), "a.mp4"),
    "duplicate in another folder": (twice("x/a.mp4", "y/a.mp4"), "y/a.mp4"),
    "long name": (member("n" * 300 + ".mp4"), "n" * 300),
    "long name in bytes": (member("名" * 100 + ".mp4"), "名" * 100),
}
UNPRINTABLE = {
    "GBK": ("视频.mp4".encode("gbk"), "not UTF-8"),
    "line end": (b"a\nb.mp4", "control characters"),
    "escape": (b"\x1b[31mred.mp4", "control characters"),
    "C1": ("\x9b31m.mp4".encode(), "control characters"),
}
HARMLESS: dict[str, Fill] = {
    "deep folders": member("/".join(["d"] * 60) + "/deep.mp4"),
    "macOS companions": member("v/._good.mp4"),
    "texts and pictures": member("v/readme.txt"),
    "empty folders": member("v/empty", b"", type=tarfile.DIRTYPE),
    "setuid and no rights": member("v/other.mp4", mode=0o4000),
}


def extract(data: bytes, tmp_path: Path, **limits: int) -> tuple[object, Path]:
    archive, into = tmp_path / "in" / "X_video.tar.gz", tmp_path / "root" / "X" / "video"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(data)
    return extract_clips(archive, into, limits=Limits(**limits)), into


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_end_the_extraction_by_name(name, tmp_path):
    fill, culprit = HOSTILE[name]
    with pytest.raises(DataError, match="no honest archive") as caught:
        extract(tar_of(fill), tmp_path)
    assert culprit in str(caught.value)
    assert files_below(tmp_path) == {"in/X_video.tar.gz", "root/X/video/good.mp4"}


@pytest.mark.parametrize("name", ODD)
def test_odd_members_are_left_out_by_name(name, tmp_path):
    fill, culprit = ODD[name]
    out, into = extract(tar_of(fill), tmp_path)
    assert [refused for refused in out.refused if culprit in refused], out.refused
    assert not [p for p in into.rglob("*") if p.is_symlink() or p.name == "evil.mp4"]
    assert all((into / clip).read_bytes() in (CLIP, b"the first") for clip in files_below(into))


@pytest.mark.parametrize("kind", UNPRINTABLE)
def test_names_that_cannot_be_printed_are_left_out_with_escapes(kind, tmp_path):
    name, why = UNPRINTABLE[kind]
    out, into = extract(tar_of(member(os.fsdecode(name)), encoding="utf-8", errors="surrogateescape"), tmp_path)
    ((shown, said),) = out.refused.items()
    assert why in said and shown.isprintable() and shown.encode() and files_below(into) == {"good.mp4"}
    assert list(out.sha256) == ["good.mp4"]


def test_a_hostile_member_is_named_with_escapes(tmp_path):
    fill = member(os.fsdecode("../视频\x1b.mp4".encode("gbk")))
    with pytest.raises(DataError, match="no honest archive") as caught:
        extract(tar_of(fill, encoding="utf-8", errors="surrogateescape"), tmp_path)
    assert str(caught.value).encode() and "\x1b" not in str(caught.value)


def test_a_zip_of_windows_with_backslashes(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("MELD\\video\\a.mp4", CLIP)
        packed.writestr("MELD\\._b.mp4", CLIP)
        packed.writestr("c.mp4\\", b"")  # a folder
    out, into = extract(buffer.getvalue(), tmp_path)
    assert files_below(into) == {"a.mp4"} and list(out.sha256) == ["a.mp4"] and not out.refused


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_with_the_name_of_a_clip_is_named(replace, tmp_path):
    archive, into = tmp_path / "X_video.tar.gz", tmp_path / "video"
    archive.write_bytes(tar_of(member("b.mp4")))
    (into / "b.mp4").mkdir(parents=True)
    with pytest.raises(DataError, match="a folder has the name of a clip") as caught:
        extract_clips(archive, into, replace=replace)
    assert str(into / "b.mp4") in str(caught.value) and files_below(into) == {"good.mp4"}


def test_a_full_disk_is_told_with_its_folder(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="a clip cannot be written") as caught:
        extract(tar_of(member("b.mp4")), tmp_path)
    assert "No space left" in str(caught.value) and str(tmp_path / "root" / "X" / "video") in str(caught.value)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_only_unusual_passes(name, tmp_path):
    out, into = extract(tar_of(HARMLESS[name]), tmp_path)
    assert not out.refused and (into / "good.mp4").read_bytes() == CLIP
    for clip in into.iterdir():
        assert not clip.stat().st_mode & (stat.S_ISUID | stat.S_ISGID) and os.access(clip, os.R_OK)


def bomb(name: str) -> bytes:
    """10 GB of zeros in one member, written without ever holding them."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        info = tarfile.TarInfo(name)
        info.size = 10 << 30
        packed.write(info.tobuf())
        for _ in range(128):  # what is read before it is noticed; the rest is never written
            packed.write(bytes(1 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["bomb.mp4", "bomb.bin"])
def test_a_bomb_is_noticed_before_it_goes_off(name, tmp_path):
    with pytest.raises(DataError) as caught:
        extract(bomb(name), tmp_path)
    assert name in str(caught.value) and not files_below(tmp_path / "root")


def test_many_small_members_are_too_many(tmp_path):
    def fill(tar: tarfile.TarFile) -> None:
        for n in range(200):
            add(tar, f"{n}.txt", b"")

    with pytest.raises(DataError, match="member 101"):
        extract(tar_of(fill), tmp_path, members=100)


def test_a_name_that_would_fill_the_memory(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 34
    with pytest.raises(DataError, match=r"header of 17,179,869,\d+ bytes"):
        extract(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_leaves_whole_clips_only(share, tmp_path):
    noise = os.urandom(20_000)

    def fill(tar: tarfile.TarFile) -> None:
        for n in range(10):
            add(tar, f"{n}.mp4", noise)

    data = tar_of(fill)
    with pytest.raises(DataError, match="broken or cut short"):
        extract(data[: int(len(data) * share)], tmp_path)
    assert all((tmp_path / "root" / f).stat().st_size in (len(CLIP), 20_000) for f in files_below(tmp_path / "root"))


@pytest.mark.parametrize("at", range(0, 2000, 200))
def test_flipped_bytes_are_named_faults_or_harmless(at, tmp_path):
    data = bytearray(tar_of(member("v/a.mp4", os.urandom(2_000))))
    data[10 + at % (len(data) - 20)] ^= 0xFF
    try:
        extract(bytes(data), tmp_path)
    except DataError as error:
        assert "X_video.tar.gz" in str(error)


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>" * 100, b"\x1f\x8b", b"PK\x03\x04" + bytes(100), b"BZh9" + bytes(99)]
)
def test_what_is_no_archive(data, tmp_path):
    with pytest.raises(DataError, match="broken or cut short"):
        extract(data, tmp_path)


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_every_packing_is_told_by_its_first_bytes(mode, tmp_path):
    out, into = extract(tar_of(member("b.mp4"), mode), tmp_path)
    assert out.written == 2 and files_below(into) == {"good.mp4", "b.mp4"}


def test_zip_files_and_the_links_in_them(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("v/good.mp4", CLIP)
        info = zipfile.ZipInfo("evil.mp4")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    out, into = extract(buffer.getvalue(), tmp_path)
    assert out.refused == {"evil.mp4": "it is a link, not a file"} and files_below(into) == {"good.mp4"}


def test_a_zip_bomb(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb.mp4", bytes(1 << 20))
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
    with pytest.raises(DataError) as caught:
        extract(bytes(data), tmp_path)
    assert "bomb.mp4" in str(caught.value)


def test_clips_that_are_there_stay(tmp_path):
    data = tar_of(member("b.mp4"))
    _, into = extract(data, tmp_path)
    (into / "b.mp4").write_bytes(b"mine")
    out, _ = extract(data, tmp_path)
    assert (out.kept, out.written, out.differs) == (1, 0, ["b.mp4"]) and (into / "b.mp4").read_bytes() == b"mine"
    archive = tmp_path / "in" / "X_video.tar.gz"
    out = extract_clips(archive, into, replace=True)
    assert (out.kept, out.written) == (1, 1) and (into / "b.mp4").read_bytes() == CLIP


def test_a_tar_cut_between_two_members(tmp_path):
    whole = tar_of(member("b.mp4"), "w:")
    with pytest.raises(DataError, match="broken or cut short") as caught:
        extract(whole[: whole.index(b"b.mp4")], tmp_path)
    assert "no end mark" in str(caught.value) and files_below(tmp_path / "root") == {"X/video/good.mp4"}


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path):
    data = bytearray(tar_of(twice("b.mp4", "c.mp4"), "w:"))
    data[data.index(b"b.mp4") + 148] ^= 1  # its checksum
    with pytest.raises(DataError, match="a header is damaged"):
        extract(gzip.compress(bytes(data)), tmp_path)


def test_an_empty_clip_is_replaced(tmp_path):
    video = tmp_path / "root" / "X" / "video"
    video.mkdir(parents=True)
    (video / "good.mp4").touch()
    out, into = extract(tar_of(member("b.mp4")), tmp_path)
    assert out.written == 2 and (into / "good.mp4").read_bytes() == CLIP
