"""What a data root holds of the benchmark, what it should hold, and what brings the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness_ext.caches import bytes_below
from harness_ext.catalogue import Catalogue
from mmla_tasks.documents import CLIP_SUFFIXES, Dataset, Split
from mmla_tasks.errors import DataError
from mmla_tasks.files import file_sha256
from mmla_tasks.received import Received, read_clip_digests
from mmla_tasks.sources import SOURCES, SPLITS, Source


@dataclass(frozen=True)
class SplitHolding:
    """One split file."""

    rows: int | None
    """None where it is not there or cannot be read."""
    known_rows: int | None
    """Rows of the released file; None where no source states them."""
    clips: int = 0
    """Rows whose clip is there and not empty."""
    fault: str | None = None
    """Why a file that is there cannot be read."""

    @property
    def is_off(self) -> bool:
        """Whether it is missing, unreadable, or has other rows than the released file."""
        return self.rows is None or self.known_rows not in (None, self.rows)


@dataclass(frozen=True)
class Holding:
    """One dataset."""

    dataset: str
    splits: Mapping[str, SplitHolding]
    clip_bytes: int
    """Of all video files, also those that no row names; a file shared with another dataset counts here too."""
    licence: str
    commit: str | None
    """Of the Hub dataset, where `mmla data download` noted it."""
    next_step: str
    """What to type next; empty where everything is there."""

    @property
    def rows(self) -> int:
        """Rows of all splits that are there."""
        return sum(split.rows or 0 for split in self.splits.values())

    @property
    def clips(self) -> int:
        """Rows with a clip."""
        return sum(split.clips for split in self.splits.values())

    @property
    def texts(self) -> int:
        """Splits that are there."""
        return sum(split.rows is not None for split in self.splits.values())


def holding(root: Path, dataset: str) -> Holding:
    """Look at one dataset's folder; clips are looked up, not opened."""
    source = SOURCES[dataset]
    files = Dataset.in_folder(root / dataset, dataset)
    splits = {name: _split(files, name) for name in SPLITS}
    received = Received.read(root, dataset)
    bare = Holding(dataset, splits, clip_bytes(files.clips), source.licence, received.commit if received else None, "")
    return Holding(**{**bare.__dict__, "next_step": _next_step(bare, source, received)})


def _split(files: Dataset, name: str) -> SplitHolding:
    known = SOURCES[files.name].rows[name]
    if not files.has(name):
        return SplitHolding(None, known)
    try:
        documents = read_split(files, name).documents
    except DataError as error:
        return SplitHolding(None, known, fault=str(error))
    return SplitHolding(len(documents), known, sum(bool(d["clip"] and d["clip"]["size"]) for d in documents))


def read_split(files: Dataset, name: str) -> Split:
    """Read a split with the labels that the packaged task declares.

    Raises:
        DataError: As `Dataset.read`.
    """
    config = _configs()[files.name]
    return files.read(name, labels=list(config["labels"]), dimension=str(config["dimension"]), with_clips=True)


@lru_cache(maxsize=1)
def _configs() -> dict[str, Mapping[str, Any]]:
    """Dataset -> its task's YAML."""
    files = Catalogue.load(()).files.values()
    return {str(file.config["dataset"]): file.config for file in files if not file.is_group}


def clip_bytes(folder: Path) -> int:
    """Bytes of clips, and of the files that segments lie in."""
    return bytes_below(folder, lambda name: name.casefold().endswith(CLIP_SUFFIXES))


def _next_step(holding: Holding, source: Source, received: Received | None) -> str:
    if any(split.fault for split in holding.splits.values()):
        return f"mmla data verify {source.folder}"
    whole_texts = not any(split.is_off for split in holding.splits.values())
    whole_clips = holding.clips == holding.rows > 0 and not (received and received.unfinished)
    if whole_clips:
        return "" if whole_texts else _download(source)
    step = _step_for_clips(source, received)
    return step if whole_texts or source.videos_published else f"{_download(source)}; then {step}"


def _step_for_clips(source: Source, received: Received | None) -> str:
    """What brings clips that are missing; where they are published, it brings texts too."""
    if not source.videos_published:
        return source.next_step_for_videos
    extracted = received and received.archives and not received.unfinished
    return f"{_download(source)} --repair" if extracted else _download(source)


def _download(source: Source) -> str:
    return f"mmla data download {source.folder}"


# ── verify ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it should be."""

    dataset: str
    what: str
    mend: str


def verified(root: Path, dataset: str, on_clip: Callable[[str, int, int], None] = lambda *_: None) -> Iterator[Fault]:
    """Compare a dataset with what is known of it: row counts, ids, labels, digests of texts and clips.

    Args:
        root: The data root.
        dataset: One of the twelve.
        on_clip: Called with the dataset, clips read and clips to read, while digests are made.
    """
    source, files, received = SOURCES[dataset], Dataset.in_folder(root / dataset, dataset), Received.read(root, dataset)
    texts = f"mmla data download {dataset} --texts_only"
    wanted: set[str] = set()
    for name in SPLITS:
        if not files.has(name):
            yield Fault(dataset, f"{name}.tsv is missing", texts)
            continue
        try:
            split = read_split(files, name)
        except DataError as error:
            yield Fault(dataset, str(error), texts)
            continue
        if split.difference:
            yield Fault(dataset, f"{name}.tsv has {split.difference}", texts)
        noted = received.texts.get(f"{dataset}/{name}.tsv") if received else None
        if noted and noted != file_sha256(split.path):
            yield Fault(dataset, f"{name}.tsv is not the file that was downloaded", texts)
        clips = [d["clip"] for d in split.documents if d["clip"]]
        wanted |= {clip["path"] for clip in clips if clip["size"]}
        bad = [clip for clip in clips if not clip["size"]]
        if bad:
            first = Path(bad[0]["path"]).name
            why = f"{len(bad):,} of {len(clips):,} clips of {name} are missing or empty, first: {first}"
            yield Fault(dataset, why, _step_for_clips(source, received))
    yield from _clip_faults(root, dataset, sorted(wanted), on_clip)


def _clip_faults(
    root: Path, dataset: str, paths: list[str], on_clip: Callable[[str, int, int], None]
) -> Iterator[Fault]:
    """Clips whose content is not the archive's; nothing where no digests were noted."""
    noted = read_clip_digests(root, dataset)
    known = [path for path in paths if Path(path).name in noted]
    for number, path in enumerate(known, 1):
        if why := _difference(Path(path), noted[Path(path).name]):
            yield Fault(dataset, f"{Path(path).name} {why}", f"mmla data download {dataset} --repair")
        on_clip(dataset, number, len(known))


def _difference(clip: Path, digest: str) -> str | None:
    try:
        return None if file_sha256(clip) == digest else "is not as in the archive"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
