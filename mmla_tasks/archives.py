"""Clips out of an archive that nobody vouches for: nothing is written outside, overwritten by stealth, or left half.

A clip is written aside and renamed when it is whole. What an honest archive never holds (paths that lead out, devices,
more bytes than there can be) ends the extraction; what it may hold by accident (links, the same name twice, names that
differ in case only) is left out and named.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from mmla_tasks.documents import CLIP_SUFFIXES
from mmla_tasks.errors import DataError
from mmla_tasks.files import file_sha256

ARCHIVE_SUFFIXES: Final = (".tar.gz", ".tgz", ".tar", ".tar.xz", ".tar.bz2", ".zip")
ASIDE: Final = ".aside"
"""Folder beside the clips for the one that is being written."""
CHUNK: Final = 1 << 20
HEADER_BYTES: Final = 1 << 24
"""What an archive may ask to hold in memory at once; a tar header says how long the name after it is."""
END_BYTES: Final = 1024
"""Zeros that end a tar file."""
NAME_BYTES: Final = 255
"""What file systems take."""

_UNREADABLE = (
    EOFError, zlib.error, tarfile.TarError, lzma.LZMAError, zipfile.BadZipFile,
    OSError, RuntimeError, ValueError, OverflowError,
)  # fmt: skip
"""What the readers of the standard library raise on broken archives; RuntimeError is also a password or a compression
that is not known."""


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. Video hardly shrinks when it is packed: more than this is no video."""

    members: int = 500_000
    clip_bytes: int = 4 << 30
    growth: float = 8.0
    """Bytes unpacked for each byte of the archive ..."""
    floor_bytes: int = 64 << 20
    """... or this much, for small archives."""

    def total(self, archive_bytes: int) -> int:
        """Bytes that an archive may unpack to."""
        return max(int(self.growth * archive_bytes), self.floor_bytes)


@dataclass
class Extracted:
    """What came out of an archive."""

    written: int = 0
    kept: int = 0
    """Clips that were there, of the same size; or with the same content, where `replace` looked."""
    differs: list[str] = field(default_factory=list)
    """Clips that were there with another size, and stayed."""
    refused: dict[str, str] = field(default_factory=dict)
    """Member -> why it was left out."""
    others: int = 0
    """Members that are no clips."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Clip -> digest of the archive's copy."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: str
    """``file``, ``folder``, ``link``, or what else it is."""
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    """Whether a file name looks like an archive."""
    return name.casefold().endswith(ARCHIVE_SUFFIXES)


def extract_clips(
    archive: Path,
    into: Path,
    *,
    replace: bool = False,
    limits: Limits | None = None,
    on_bytes: Callable[[int], None] = lambda done: None,
) -> Extracted:
    """Put every clip of an archive into one folder, whatever folders it lies in there.

    Args:
        archive: A tar file, packed or not, or a zip file; told by its first bytes.
        into: The folder; made if it is not there.
        replace: Write clips anew that are there with other content. Otherwise they stay.
        limits: What the archive may unpack to.
        on_bytes: Called with the bytes of the archive that are read.

    Raises:
        DataError: The archive is broken, cut short or hostile, or the disk is full. Clips that were whole before stay.
    """
    out, seen, aside = Extracted(), dict[str, str](), into / ASIDE
    limits = limits or Limits()
    shutil.rmtree(aside, ignore_errors=True)  # of a command that was killed
    try:
        with disk_faults(into):
            aside.mkdir(parents=True, exist_ok=True)
        for number, member in enumerate(_members(archive, limits, on_bytes)):
            _refuse_hostile(archive, member, number, limits)
            if member.kind == "folder" or not _is_clip(member.name):
                out.others += 1
            elif why := _oddity(member, seen):
                out.refused[shown_name(member.name)] = why
            else:
                name = _file_name(member.name)
                seen[name.casefold()] = member.name
                _take(archive, member, into / name, aside / "clip", replace, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def _refuse_hostile(archive: Path, member: _Member, number: int, limits: Limits) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or member.name[1:2] == ":":
        why = "its path is absolute"
    elif ".." in path.parts:
        why = "its path leads out of the folder"
    elif member.kind not in ("file", "folder", "link"):
        why = f"it is a {member.kind}"
    elif member.size > limits.clip_bytes:
        why = f"it would take {member.size:,} bytes; no clip of a benchmark does"
    elif number >= limits.members:
        why = f"it is member {number + 1:,}; no archive of the benchmark has so many"
    else:
        return
    raise _hostile(archive, member.name, why)


def _hostile(archive: Path, member: str, why: str) -> DataError:
    member = shown_name(member)
    shown = member if len(member) < 200 else f"{member[:200]}... ({len(member):,} characters)"
    return DataError(
        f"{archive.name} is not extracted further: it holds what no honest archive holds",
        file=archive,
        member=shown,
        why=why,
        next="compare the archive's digest with the Hub's; get it again from a source you trust",
    )


def shown_name(name: str) -> str:
    r"""A name with escapes for what cannot be printed.

    >>> shown_name("a\nb\udcc4.mp4")
    'a\\nb\\udcc4.mp4'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def _file_name(member: str) -> str:
    """Without its folders; some Windows programs part them with backslashes."""
    return member.replace("\\", "/").rpartition("/")[2]


def _is_clip(name: str) -> bool:
    file = _file_name(name)
    return file.casefold().endswith(CLIP_SUFFIXES) and not file.startswith(".")  # macOS adds ._NAME.mp4


def _oddity(member: _Member, seen: dict[str, str]) -> str | None:
    """Why a clip cannot be taken as it is; None when it can."""
    name = _file_name(member.name)
    if member.kind == "link":
        return "it is a link, not a file"
    if not _is_utf8(name):
        return "its name is not UTF-8"
    if any(unicodedata.category(c) == "Cc" for c in name):
        return "its name holds control characters"
    if len(os.fsencode(name)) > NAME_BYTES:
        return f"its name is longer than {NAME_BYTES} bytes"
    first = seen.get(name.casefold())
    if first is None:
        return None
    if _file_name(first) == name:
        return f"the archive holds this name before: {shown_name(first)}"
    return f"its name differs only in case from {shown_name(first)}"


def _is_utf8(name: str) -> bool:
    """Tar files of other encodings give surrogates, which neither notes nor terminals take."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _take(archive: Path, member: _Member, target: Path, aside: Path, replace: bool, out: Extracted) -> None:
    """Write one clip, unless it is there.

    Raises:
        DataError: A folder has its name, the disk is full, or the member is broken.
    """
    if target.is_dir():
        raise DataError(
            "a folder has the name of a clip",
            folder=target,
            archive=archive,
            next="move the folder away, then run the same command again",
        )
    here = (target.stat().st_size if target.exists() else None) or None  # an empty file is nobody's clip
    write = here is None or replace
    out.sha256[target.name] = digest = _copy(archive, member, aside if write else None)
    if here is not None and (here == member.size if not write else file_sha256(target) == digest):
        out.kept += 1
    elif write:
        with disk_faults(target.parent):
            aside.replace(target)
        out.written += 1
    else:
        out.differs.append(target.name)


def _copy(archive: Path, member: _Member, to: Path | None) -> str:
    """Read a member to its end, and write it when told where; gives its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with _archive_faults(archive, member.name):
        source = member.open()
    if source is None:
        raise _hostile(archive, member.name, "it has no content of its own")
    with source, disk_faults(to.parent if to else archive.parent), open(to or os.devnull, "wb") as target:
        while True:
            with _archive_faults(archive, member.name):
                data = source.read(CHUNK)
            if not data:
                break
            digest.update(data)
            size += len(data)
            target.write(data)
    if size != member.size:
        raise _broken(archive, member.name, f"{size:,} of {member.size:,} bytes are there")
    return digest.hexdigest()


# ── reading archives ──────────────────────────────────────────────────────────────────────────────────────────────


def _members(archive: Path, limits: Limits, on_bytes: Callable[[int], None]) -> Iterator[_Member]:
    """Members in their order; each must be read before the next one is asked for."""
    bound = limits.total(archive.stat().st_size)
    with archive.open("rb") as packed:
        magic = packed.read(6)
        packed.seek(0)
        members = (
            _zip_members(packed, archive, bound)
            if magic.startswith(b"PK\x03\x04") or magic.startswith(b"PK\x05\x06")
            else _tar_members(_unpacked(packed, magic), archive, bound)
        )
        while True:
            with _archive_faults(archive, None):
                member = next(members, None)
            if member is None:
                return
            on_bytes(packed.tell())
            yield member


def _unpacked(packed: IO[bytes], magic: bytes) -> Any:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(packed) if magic.startswith(b"\xfd7zXZ\0") else packed


def _tar_members(file: IO[bytes], archive: Path, bound: int) -> Iterator[_Member]:
    reader: Any = _ForwardReader(file, archive, bound)
    with tarfile.open(fileobj=reader, mode="r:") as tar:
        for info in tar:
            reader.member = info.name
            yield _Member(info.name, info.size, _tar_kind(info), lambda info=info: tar.extractfile(info))  # type: ignore[misc]
        reader.check_end()


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "folder"
    if info.isreg() and not info.issparse():
        return "file"
    return "sparse file" if info.issparse() else "device, pipe or the like"


def _zip_members(file: IO[bytes], archive: Path, bound: int) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as packed:
        unpacked = 0
        for info in packed.infolist():
            unpacked += info.file_size
            if unpacked > bound:
                raise _hostile(archive, info.filename, f"with it the archive unpacks to more than {bound:,} bytes")
            mode = info.external_attr >> 16 & 0o170000
            kind = "folder" if info.is_dir() else "link" if mode == 0o120000 else "file"
            kind = kind if mode in (0, 0o100000, 0o040000, 0o120000) else "device, pipe or the like"
            yield _Member(info.filename, info.file_size, kind, lambda info=info: packed.open(info))  # type: ignore[misc]


class _ForwardReader:
    """An unpacked stream as tarfile reads it, with bounds on what is unpacked and on what is asked for at once."""

    def __init__(self, file: IO[bytes], archive: Path, bound: int) -> None:
        self.member = "the first header"
        self._file, self._archive, self._bound, self._at = file, archive, bound, 0
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise _hostile(self._archive, f"after {self.member}", f"a header of {size:,} bytes")
        data = self._file.read(size)
        self._at += len(data)
        self._tail = (self._tail + data)[-END_BYTES:] if data else self._tail
        if self._at > self._bound:
            why = f"with it the archive unpacks to more than {self._bound:,} bytes"
            raise _hostile(self._archive, self.member, why)
        return data

    def seek(self, position: int) -> int:
        if position < self._at:
            raise tarfile.ReadError("a header points back")
        while self._at < position and self.read(min(CHUNK, position - self._at)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at

    def check_end(self) -> None:
        """Read on to the end: tarfile takes a damaged header, or no more bytes, for the end; gzip checks only there."""
        while rest := self.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is more behind what looks like its end: a header is damaged")
        if len(self._tail) < END_BYTES or self._tail.strip(b"\0"):
            raise tarfile.ReadError("it has no end mark: it was cut short between two members")


@contextmanager
def _archive_faults(archive: Path, member: str | None) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise _broken(archive, member, str(error) or type(error).__name__) from None


def _broken(archive: Path, member: str | None, why: str) -> DataError:
    return DataError(
        f"{archive.name} is broken or cut short",
        file=f"{archive} ({archive.stat().st_size:,} bytes)",
        member=member and shown_name(member),
        why=why,
        next="delete it and run the same command again; clips that were whole stay",
    )


@contextmanager
def disk_faults(folder: Path, what: str = "a clip cannot be written") -> Iterator[None]:
    """Turn a fault of the disk into an error that says which folder, why, and what next.

    Args:
        folder: Where something is written.
        what: What is wrong.

    Raises:
        DataError: The disk is full or read-only, a file stands where a folder should, or the like.
    """
    try:
        yield
    except BrokenPipeError:  # nobody reads what is said
        raise
    except OSError as error:
        free = None
        with suppress(OSError):
            free = f"{shutil.disk_usage(folder).free:,} bytes"
        file = error.filename2 or error.filename
        raise DataError(
            what,
            folder=folder,
            file=shown_name(os.fsdecode(file)) if isinstance(file, str | bytes | os.PathLike) else None,
            why=error.strerror or error,
            free=free,
            next="make room or mend the folder, then run the same command again",
        ) from None
