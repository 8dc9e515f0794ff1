"""The benchmark's texts and clips from the Hub into a data root, in any number of interrupted goes.

huggingface_hub fetches texts, whole or not at all. Archives are fetched with its HTTP client into a part that the next
command goes on with, and compared with the Hub's digest: its own download begins anew in every process, and one that
is killed leaves its gigabytes behind (2.4). `mmla_tasks.archives` takes the clips out. What is done is noted beside the
data (`mmla_tasks.received`), so that a repeated command does only what is left.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from harness_ext.holdings import clip_bytes
from mmla_tasks.archives import ARCHIVE_SUFFIXES, Extracted, disk_faults, extract_clips, is_archive
from mmla_tasks.documents import squeezed
from mmla_tasks.errors import DataError, UsageError, suggest
from mmla_tasks.files import file_sha256
from mmla_tasks.received import NOTES, Received, read_clip_digests, write_clip_digests
from mmla_tasks.sources import HUB_REPOSITORY, SOURCES, SPLITS, Source

GROWTH = 1.03
"""Bytes of clips for each byte of an archive, for the check of disk space: video hardly shrinks."""

DISK_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EXDEV,
    errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG,
    errno.ESTALE,
}  # fmt: skip
"""What a disk answers, and no network."""


@dataclass(frozen=True)
class Remote:
    """The Hub repository as it was when the command began."""

    commit: str
    files: Mapping[str, int]
    """Path -> bytes."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Path -> digest, of large files."""

    def mark(self, path: str) -> str:
        """What tells a file's content from another: its digest, else the commit."""
        return self.sha256.get(path, self.commit)

    def texts_of(self, source: Source) -> list[str]:
        """Its split files."""
        return [path for split in SPLITS if (path := f"{source.folder}/{split}.tsv") in self.files]

    def archives_of(self, source: Source) -> list[str]:
        """Its video archives, however their names are spelt.

        Raises:
            DataError: The repository holds none, although videos are published.
        """
        inside = [path for path in self.files if path.startswith(f"{source.folder}/") and is_archive(path)]
        spelt = {squeezed(name) for name in (source.folder, source.clip_prefix, source.archive)}
        alike = [path for path in self.files if is_archive(path) and squeezed(_archive_stem(path)) in spelt]
        if source.videos_published and not (inside or alike):
            there = [path for path in self.files if path.startswith(f"{source.folder}/")]
            raise DataError(
                f"the Hub dataset holds no video archive for {source.folder}",
                repository=f"{HUB_REPOSITORY} @ {self.commit[:7]}",
                there="\n".join(there[:20]) or f"nothing in {source.folder}/",
                next="--texts_only takes the texts; --data_revision names another commit",
            )
        return sorted(inside or alike)


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched."""

    datasets: Sequence[str]
    root: Path
    revision: str | None = None
    texts_only: bool = False
    repair: bool = False
    remove_archives: bool = False


@dataclass
class Progress:
    """Where is shown what goes on."""

    say: Callable[[str], None] = lambda line: None
    bar: type[Any] | None = None
    """A class like tqdm's, for files that come."""
    extracting: Callable[[str, int, int], None] = lambda name, done, total: None
    """Called with an archive's name, the bytes read of it, and its bytes."""


@dataclass
class Outcome:
    """What one dataset got."""

    dataset: str
    texts: int
    extracted: Extracted = field(default_factory=Extracted)
    archives: list[str] = field(default_factory=list)
    without_clips: list[str] = field(default_factory=list)
    """Archives that hold no clip at all."""


def chosen(names: Sequence[str]) -> list[str]:
    """Dataset folders by names in any case; all twelve for none.

    Raises:
        UsageError: A name is no dataset; all such names at once.
    """
    known = {folder.casefold(): folder for folder in SOURCES}
    unknown = {name: suggest(name, SOURCES) or "no such dataset" for name in names if name.casefold() not in known}
    if unknown:
        raise UsageError("these are no datasets of the benchmark", unknown, datasets=", ".join(SOURCES))
    return list(dict.fromkeys(known[name.casefold()] for name in names)) or list(SOURCES)


def look_up(revision: str | None) -> Remote:
    """Resolve a revision once: everything is fetched from this one commit.

    Raises:
        DataError: The Hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub import HfApi

    with _hub_faults(revision):
        info = HfApi().dataset_info(HUB_REPOSITORY, revision=revision, files_metadata=True)
    files = list(info.siblings or ())
    digests = {file.rfilename: str(file.lfs.sha256) for file in files if file.lfs}
    return Remote(str(info.sha), {file.rfilename: int(file.size or 0) for file in files}, digests)


def download(wanted: Wanted, remote: Remote, progress: Progress | None = None) -> Iterator[Outcome]:
    """Fetch texts and clips, dataset by dataset.

    Raises:
        DataError: No room, a disk that takes nothing, no network, a broken or hostile archive. What is there stays,
            and the same command goes on.
    """
    progress = progress or Progress()
    with _disk_faults(wanted.root):
        _check_space(wanted, remote)
    for dataset in wanted.datasets:
        with _disk_faults(wanted.root, dataset), _alone(wanted.root, dataset, progress):
            outcome = _download(SOURCES[dataset], wanted, remote, progress)
        yield outcome


def _disk_faults(root: Path, dataset: str | None = None) -> AbstractContextManager[None]:
    what = f"{dataset} cannot be written" if dataset else "the data root cannot be read"
    return disk_faults(root / (dataset or ""), what)


def _download(source: Source, wanted: Wanted, remote: Remote, progress: Progress) -> Outcome:
    received = _texts(source, wanted, remote, progress)
    outcome = Outcome(source.folder, len(received.texts))
    archives = [] if wanted.texts_only else remote.archives_of(source)
    for name in archives:
        if name in received.archives and not wanted.repair:
            outcome.extracted.refused |= received.refused.get(name, {})
        else:
            received = _clips(source, name, received, wanted, remote, progress, outcome)
        if wanted.remove_archives and name in received.archives:
            (wanted.root / name).unlink(missing_ok=True)
    if archives:
        _forget_others(received, archives).write(wanted.root, source.folder)
    return outcome


def _texts(source: Source, wanted: Wanted, remote: Remote, progress: Progress) -> Received:
    """Fetch the split files, and note them; clips of an archive that has changed are no longer counted as there."""
    texts = {name: file_sha256(_fetch(name, wanted, remote, progress)) for name in remote.texts_of(source)}
    before = Received.read(wanted.root, source.folder)
    received = Received(
        HUB_REPOSITORY,
        remote.commit,
        texts,
        _unchanged(before, remote),
        wanted.revision,
        _marks(before, remote),
        before.refused if before else {},
    )
    received.write(wanted.root, source.folder)
    return received


def _clips(
    source: Source, name: str, received: Received, wanted: Wanted, remote: Remote, progress: Progress, outcome: Outcome
) -> Received:
    """Fetch one archive and extract it. The note claims it when its clips are there."""
    outcome.archives.append(name)
    archive, root = _fetch_archive(name, wanted, remote, progress), wanted.root
    replacing = wanted.repair or _is_outdated(received, remote)
    received = _begun(received, name, remote)
    received.write(root, source.folder)
    extracted = extract_clips(
        archive,
        root / source.folder / "video",
        replace=replacing,
        on_bytes=lambda done: progress.extracting(name, done, remote.files[name]),
    )
    _add(outcome.extracted, extracted)
    write_clip_digests(root, source.folder, {**read_clip_digests(root, source.folder), **extracted.sha256})
    if not extracted.sha256:
        outcome.without_clips.append(name)
        return received
    received = replace(
        received,
        archives={**received.archives, name: remote.files[name]},
        archive_sha256={**received.archive_sha256, name: remote.mark(name)},
        refused={**received.refused, name: extracted.refused},
    )
    received.write(root, source.folder)
    return received


def _marks(received: Received | None, remote: Remote) -> dict[str, str]:
    """Archive -> the content that its clips came from; an older note knows it by its commit alone."""
    if received is None:
        return {}
    old = {name: remote.mark(name) if received.commit == remote.commit else "" for name in received.archives}
    return {**old, **received.archive_sha256}


def _unchanged(received: Received | None, remote: Remote) -> dict[str, int]:
    """Archives that are noted as extracted, and have the same content on the Hub."""
    marks, sizes = _marks(received, remote), received.archives if received else {}
    return {
        name: size
        for name, size in sizes.items()
        if remote.files.get(name) == size and marks[name] == remote.mark(name)
    }


def _is_outdated(received: Received, remote: Remote) -> bool:
    """Whether clips may be there that are not as in the archives of now."""
    return any(mark != remote.mark(name) for name, mark in received.archive_sha256.items())


def _begun(received: Received, name: str, remote: Remote) -> Received:
    """What is true while an archive is extracted, whenever that is interrupted."""
    mark = remote.mark(name)
    mark = mark if received.archive_sha256.get(name, mark) == mark else ""
    return replace(received, archive_sha256={**received.archive_sha256, name: mark})


def _forget_others(received: Received, archives: Sequence[str]) -> Received:
    """Archives that the Hub no longer holds: once the new ones are extracted, no clip is known to be theirs."""
    return replace(
        received,
        archives={name: size for name, size in received.archives.items() if name in archives},
        archive_sha256={name: mark for name, mark in received.archive_sha256.items() if name in archives},
        refused={name: why for name, why in received.refused.items() if name in archives and why},
    )


def _fetch(name: str, wanted: Wanted, remote: Remote, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    with _hub_faults(wanted.revision, name):
        return Path(
            hf_hub_download(
                HUB_REPOSITORY,
                name,
                repo_type="dataset",
                revision=remote.commit,
                local_dir=wanted.root,
                tqdm_class=progress.bar,
            )
        )


def _fetch_archive(name: str, wanted: Wanted, remote: Remote, progress: Progress) -> Path:
    """Fetch what is missing of an archive; it has its name only when it is whole and what the Hub says it is.

    Raises:
        DataError: No network, or what came is something else, or a folder has the archive's name.
    """
    path, part = wanted.root / name, _part(wanted.root, name, remote)
    if _is_as_on_hub(path, name, remote):
        return path
    if path.is_dir():
        raise DataError(
            "a folder has the name of an archive", folder=path, next="move it away, then run the same command again"
        )
    part.parent.mkdir(parents=True, exist_ok=True)
    with _hub_faults(wanted.revision, name), part.open("ab") as opened:
        _fetch_rest(opened, name, remote, progress)
    if not _is_as_on_hub(part, name, remote):
        part.unlink()
        raise DataError(
            f"{name} did not arrive as the Hub has it",
            expected=f"{remote.files[name]:,} bytes, SHA-256 {remote.sha256.get(name, 'unknown')}",
            next="what came was deleted; the same command fetches it again",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)
    return path


def _fetch_rest(opened: BinaryIO, name: str, remote: Remote, progress: Progress) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    size, have = remote.files[name], opened.seek(0, os.SEEK_END)
    if have > size:
        opened.truncate(have := 0)
    if have < size:
        http_get(
            hf_hub_url(HUB_REPOSITORY, name, repo_type="dataset", revision=remote.commit, endpoint=_endpoint()),
            opened,
            resume_size=have,
            headers=build_hf_headers(),
            expected_size=size,
            tqdm_class=progress.bar,
        )


def _part(root: Path, name: str, remote: Remote) -> Path:
    """What came so far of an archive; content decides the name, so that parts of two revisions do not mix.

    It lies on the disk of the archive, for there it is renamed: a dataset's folder may be a link to another disk.
    """
    folder, dataset = root / NOTES, (root / name).parent
    if dataset.is_dir() and dataset.stat().st_dev != (folder if folder.is_dir() else root).stat().st_dev:
        folder = dataset / NOTES
    return folder / "parts" / f"{remote.mark(name)[:16]}-{PurePosixPath(name).name}"


def _is_as_on_hub(path: Path, name: str, remote: Remote) -> bool:
    """Whether a file has the size and, where the Hub tells it, the digest."""
    if not path.is_file() or path.stat().st_size != remote.files[name]:
        return False
    return name not in remote.sha256 or file_sha256(path) == remote.sha256[name]


def _add(total: Extracted, part: Extracted) -> None:
    total.written += part.written
    total.kept += part.kept
    total.others += part.others
    total.differs += part.differs
    total.refused |= part.refused


@dataclass
class Needed:
    """Bytes that a download takes on one disk, or on all."""

    fetch: int = 0
    """Still to fetch."""
    clips: int = 0
    """Of clips still to extract."""
    taken: int = 0
    """At the end; below zero where removed archives free more than comes."""
    peak: int = 0
    """At most, on the way."""

    def take(self, fetch: int, clips: int = 0) -> None:
        """Add what comes."""
        self.fetch, self.clips, self.taken = self.fetch + fetch, self.clips + clips, self.taken + fetch + clips
        self.peak = max(self.peak, self.taken)


def needed_bytes(wanted: Wanted, remote: Remote) -> Needed:
    """What is still to fetch and to extract, in the order in which it happens."""
    needed = Needed()
    with _disk_faults(wanted.root):
        for dataset in wanted.datasets:
            _need(needed, SOURCES[dataset], wanted, remote)
    return needed


def _need(needed: Needed, source: Source, wanted: Wanted, remote: Remote) -> None:
    received = Received.read(wanted.root, source.folder)
    marks, done = _marks(received, remote), {} if wanted.repair else _unchanged(received, remote)
    needed.take(sum(_to_fetch(name, marks, wanted, remote) for name in remote.texts_of(source)))
    spare = clip_bytes(wanted.root / source.folder / "video") - sum(done.values())  # of an extraction that was killed
    for name in [] if wanted.texts_only else remote.archives_of(source):
        if name not in done:
            unpacked = int((1 if wanted.repair else GROWTH) * remote.files[name])
            there = min(max(spare, 0), unpacked)
            needed.take(_to_fetch(name, marks, wanted, remote), unpacked - there)
            spare -= there
            freed = remote.files[name]
        else:
            freed = _bytes_of(wanted.root / name)
        needed.taken -= freed if wanted.remove_archives else 0


def _to_fetch(name: str, marks: Mapping[str, str], wanted: Wanted, remote: Remote) -> int:
    """Bytes of a file that are not there. Its digest is made only where the note says that it has changed."""
    path, size = wanted.root / name, remote.files[name]
    same = marks.get(name, remote.mark(name)) == remote.mark(name)
    if _bytes_of(path) == size and (same or _is_as_on_hub(path, name, remote)):
        return 0
    return max(size - _bytes_of(_part(wanted.root, name, remote)), 0)


def _bytes_of(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _check_space(wanted: Wanted, remote: Remote) -> None:
    for folder, datasets in _by_disk(wanted).items():
        needed, free = needed_bytes(replace(wanted, datasets=datasets), remote), shutil.disk_usage(folder).free
        if needed.peak > free:
            freeing = "" if wanted.remove_archives else "; --remove_archives frees space after each dataset"
            raise DataError(
                f"there is no room for {len(datasets)} dataset{'s' * (len(datasets) > 1)} in {folder}",
                needed=f"{_size(needed.fetch)} to fetch, {_size(needed.clips)} of clips"
                + (f"; {_size(needed.peak)} at a time" if wanted.remove_archives else ""),
                free=_size(free),
                next=f"name another disk with --data_dir, fewer datasets, or --texts_only{freeing}",
            )


def _by_disk(wanted: Wanted) -> dict[Path, list[str]]:
    """A folder on each disk -> the datasets there: a dataset's folder may be a link."""
    named = {wanted.root.stat().st_dev: wanted.root}
    there: dict[Path, list[str]] = {}
    for dataset in wanted.datasets:
        folder = wanted.root / dataset
        disk = (folder if folder.is_dir() else wanted.root).stat().st_dev
        there.setdefault(named.setdefault(disk, folder), []).append(dataset)
    return there


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)


@contextmanager
def _alone(root: Path, dataset: str, progress: Progress) -> Iterator[None]:
    """One command at a time writes one dataset; others wait."""
    from filelock import FileLock, Timeout

    (root / NOTES).mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / NOTES / f"{dataset}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.say(f"{dataset}: another command is at work on it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _archive_stem(path: str) -> str:
    """``Ch-simsv2`` of ``CH-SIMSv2.0/Ch-simsv2_video.tar.gz``."""
    name = PurePosixPath(path).name.casefold()
    stem = name.removesuffix(next(suffix for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)))
    return re.sub(r"[-_ ]?videos?$", "", stem)


# ── what the Hub says ─────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _hub_faults(revision: str | None, file: str | None = None) -> Iterator[None]:
    """Turn the hub client's many errors into one that says what can be done."""
    from huggingface_hub import errors

    where = HUB_REPOSITORY + (f" @ {revision}" if revision else "")
    try:
        yield
    except errors.GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{HUB_REPOSITORY}"
        raise DataError(
            f"the Hub asks you to accept the terms of {where}",
            why=_first_line(error),
            next=f"accept them at {page}, then: hf auth login, or HF_TOKEN=...",
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"the Hub dataset {HUB_REPOSITORY} has no revision {revision}", next="leave it out, or name a commit"
        ) from None
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"the Hub has no dataset {where}, or does not show it to you",
            endpoint=_endpoint(),
            why=_first_line(error),
            next="check HF_ENDPOINT, and HF_TOKEN if your mirror wants one",
        ) from None
    except errors.EntryNotFoundError as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            raise DataError(
                f"the Hub dataset {where} no longer holds {file}", next="run the same command again"
            ) from None
        raise _unreachable(error, file) from None
    except (errors.HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        if file and isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            raise  # `download` says which folder
        raise _unreachable(error, file) from None
    except Exception as error:  # the HTTP client's own tree, which has changed from release to release
        if type(error).__module__.partition(".")[0] in (
            "httpx",
            "httpcore",
            "httpx2",
            "httpcore2",
            "requests",
            "urllib3",
        ):
            raise _unreachable(error, file) from None
        raise


def _unreachable(error: Exception, file: str | None) -> DataError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    return DataError(
        "the Hub cannot be reached" + (f": {file} is not fetched" if file else ": nothing is fetched"),
        endpoint=_endpoint(),
        why="HF_HUB_OFFLINE is set" if offline else f"{type(error).__name__}: {_first_line(error)}",
        next="\n".join(
            [
                *(["unset HF_HUB_OFFLINE, if there is a network"] if offline else []),
                "the same command goes on where it stopped, once the network is back",
                "through a mirror: HF_ENDPOINT=https://...",
                "without network: run it on another machine, copy the folder, name it with --data_dir or MMLA_DATA_DIR",
                "without any data: mmla run --data_dir sample",
            ]
        ),
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:200]


class Said:
    """Lines about an extraction, not more often than every few seconds."""

    EVERY_SECONDS = 10.0

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Say how far an archive is read."""
        if time.monotonic() - self._last >= self.EVERY_SECONDS:
            self._last = time.monotonic()
            self._say(f"{name}: {done / max(total, 1):.0%} of {_size(total)} extracted")
