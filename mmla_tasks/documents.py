"""Rows of a dataset as documents ``{id, text, label, clip}``, from a data root in the layout of the Hub dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmla_tasks.errors import DataError
from mmla_tasks.records import Clip, Document
from mmla_tasks.segments import segment_clips
from mmla_tasks.sources import SOURCES, SPLITS, Source
from mmla_tasks.tsv import Table, read_table

VIDEO_FOLDER = "video"
CLIP_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")

_ID_COLUMNS = ("id",)
_TEXT_COLUMNS = ("text", "utterance")
_LABEL_COLUMNS = ("label",)


class Documents(list[Document]):
    """The documents of one split, a list that lm-eval takes for a dataset (it asks for `features`)."""

    features: Mapping[str, None] = dict.fromkeys(("id", "text", "label", "clip"))


@dataclass(frozen=True)
class Split:
    """One split as read, with what a reader of the results needs to check it."""

    documents: Documents
    path: Path
    sha256: str
    known_rows: int | None
    """Rows that the released file holds; None when unknown or when this is no MMLA dataset."""

    @property
    def difference(self) -> str | None:
        """Say how the row count differs from the known one; None when it does not or nothing is known."""
        rows = len(self.documents)
        if self.known_rows is None or rows == self.known_rows:
            return None
        return f"{rows:,} rows where the released file has {self.known_rows:,}"


@dataclass(frozen=True)
class Dataset:
    """Where the files of one dataset are. Nothing is read before `read`.

    Attributes:
        name: Folder under the data root, or the name of a TSV.
        files: Split name -> TSV file, present or not.
        clips: Folder of the clips.
    """

    name: str
    files: Mapping[str, Path]
    clips: Path
    source: Source | None = field(default=None, compare=False)

    @classmethod
    def in_root(cls, root: Path, name: str) -> Dataset:
        """Find the dataset folder `name` under a data root.

        Raises:
            DataError: the folder is missing (similar names are suggested).
        """
        folder = root / name
        if not folder.is_dir():
            present = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
            raise DataError(
                f"the data root has no folder {name}",
                root=root,
                there=", ".join(present) or "nothing",
                next=f"put {name}/{{train,dev,test}}.tsv there, or name another root with --data_dir or MMLA_DATA_DIR",
            )
        return cls.in_folder(folder, name)

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> Dataset:
        """A folder that holds ``test.tsv`` and perhaps ``train.tsv``, ``dev.tsv`` and ``video/``."""
        return cls(name, {s: folder / f"{s}.tsv" for s in SPLITS}, folder / VIDEO_FOLDER, SOURCES.get(name))

    @classmethod
    def of_file(cls, path: Path) -> Dataset:
        """A single TSV as test split; ``NAME.train.tsv`` and ``NAME.dev.tsv`` beside it are found too."""
        files = {s: path.with_name(f"{path.stem}.{s}.tsv") for s in SPLITS} | {"test": path}
        return cls(path.stem, files, path.parent / VIDEO_FOLDER)

    def has(self, split: str) -> bool:
        """Whether the split's file is there."""
        return self.files[split].is_file()

    def read(self, split: str, *, labels: Sequence[str], dimension: str, with_clips: bool, asked_by: str = "") -> Split:
        """Read and check one split.

        Args:
            split: ``train``, ``dev`` or ``test``.
            labels: The closed label list; a row's label is matched to it without regard to case.
            dimension: The task's dimension, since some files name the label column after it.
            with_clips: Whether documents carry a clip reference; the files are looked up, not opened.
            asked_by: Who needs the split, for the error when it is absent.

        Raises:
            DataError: file absent or unreadable, columns not found, unknown labels, duplicate or empty ids
                (all rows at once).
        """
        path = self.files[split]
        if not path.is_file():
            raise self._absent(split, asked_by)
        table = read_table(path)
        columns = _find_columns(table, dimension)
        documents = _checked_documents(table, columns, labels)
        if with_clips:
            self._attach_clips(documents)
        known = self.source.rows[split] if self.source else None
        return Split(documents, path, table.sha256, known)

    def _absent(self, split: str, asked_by: str) -> DataError:
        folder = self.files[split].parent
        there = sorted(p.name for p in folder.glob("*.tsv")) if folder.is_dir() else []
        return DataError(
            f"dataset {self.name} has no {split} split" + (f", which {asked_by} needs" if asked_by else ""),
            file=f"{self.files[split]} (missing)",
            there=", ".join(there) or "no TSV files",
            next=f"mmla data download {self.name} --texts_only      then name its folder with --data_dir"
            if self.source
            else None,
        )

    def _attach_clips(self, documents: Documents) -> None:
        present, segments = _clip_files(str(self.clips)), segment_clips(self.clips)
        prefixes = [self.source.clip_prefix, self.name] if self.source else [self.name]
        by_id = _clips_by_id(present, [*prefixes, *([self.source.archive] if self.source else [])])
        for document in documents:
            stems = [f"{prefix}_{document['id']}" for prefix in prefixes] + [document["id"]]
            found = next((present[s.casefold()] for s in stems if s.casefold() in present), None)
            found = found or segments.get(document["id"]) or by_id.get(document["id"].casefold())
            document["clip"] = found or _missing_clip(self.clips / f"{stems[0]}.mp4")


def _clip_files(folder: str) -> dict[str, Clip]:
    """Every clip file of a folder by its case-folded stem; nothing is opened."""
    if not os.path.isdir(folder):
        return {}
    return _scan_clips(folder, os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=64)
def _scan_clips(folder: str, _mtime_ns: int) -> dict[str, Clip]:
    clips: dict[str, Clip] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in CLIP_SUFFIXES and entry.is_file():
                stat = entry.stat()
                clips[stem.casefold()] = Clip(
                    path=os.path.abspath(entry.path),
                    start_seconds=0.0,
                    end_seconds=None,
                    size=stat.st_size,
                    mtime_ns=stat.st_mtime_ns,
                )
    return clips


def _clips_by_id(present: Mapping[str, Clip], prefixes: Iterable[str]) -> dict[str, Clip]:
    """Clips by what follows their prefix, whose spelling is uneven: ``UR-FUNNYv2_408``, ``AnnoMI_client_116_163``."""
    known = {squeezed(prefix) for prefix in prefixes}
    return {
        stem[at + 1 :]: clip
        for stem, clip in present.items()
        for at, mark in enumerate(stem)
        if mark == "_" and squeezed(stem[:at]) in known
    }


def squeezed(name: str) -> str:
    """A name without case and punctuation, in which spellings of one name agree."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _missing_clip(path: Path) -> Clip:
    return Clip(path=str(path.absolute()), start_seconds=0.0, end_seconds=None, size=None, mtime_ns=None)


def _find_columns(table: Table, dimension: str) -> tuple[int, int, int]:
    """Positions of id, text and label, under any of the names seen in the wild."""
    folded = [c.casefold().replace(" ", "_") for c in table.columns]
    wanted = {
        "id": _ID_COLUMNS,
        "text": _TEXT_COLUMNS,
        "label": (*_LABEL_COLUMNS, dimension.casefold().replace(" ", "_")),
    }
    found = {role: next((folded.index(n) for n in names if n in folded), None) for role, names in wanted.items()}
    absent = [f"{role} (as {' or '.join(f'`{n}`' for n in wanted[role])})" for role, at in found.items() if at is None]
    if absent:
        raise DataError(
            f"{table.path.name} lacks the column {' and '.join(absent)}",
            file=table.path,
            columns=", ".join(table.columns),
        )
    positions = [at for at in found.values() if at is not None]
    return positions[0], positions[1], positions[2]


def _checked_documents(table: Table, columns: tuple[int, int, int], labels: Sequence[str]) -> Documents:
    id_at, text_at, label_at = columns
    declared = {label.casefold(): label for label in labels}
    documents = Documents(
        Document(
            id=row[id_at].strip(),
            text=row[text_at].strip(),
            label=declared.get(row[label_at].strip().casefold(), ""),
            clip=None,
        )
        for row in table.rows
    )
    faults = [*_label_faults(table, documents, label_at, labels), *_id_faults(table, documents)]
    if faults:
        what = f"{table.path.name} has {len(faults)} fault{'s' * (len(faults) > 1)}"
        raise DataError(what, file=table.path, **{f"fault_{n}": fault for n, fault in enumerate(faults, 1)})
    if not documents:
        raise DataError(f"{table.path.name} has a header and no rows", file=table.path)
    return documents


def _label_faults(table: Table, documents: Documents, label_at: int, labels: Sequence[str]) -> Iterable[str]:
    unknown: dict[str, list[int]] = {}
    for n, document in enumerate(documents):
        if not document["label"]:
            unknown.setdefault(table.rows[n][label_at].strip(), []).append(n)
    for label, rows in unknown.items():
        first = f"first: row {rows[0] + 1}, line {table.lines[rows[0]]}, id {documents[rows[0]]['id']}"
        count = "1 row" if len(rows) == 1 else f"{len(rows):,} rows"
        yield f'label "{label}" in {count} ({first}) is not one of: {", ".join(labels)}'


def _id_faults(table: Table, documents: Documents) -> Iterable[str]:
    counts = Counter(document["id"] for document in documents)
    for name, count in counts.items():
        if count > 1 or not name:
            rows = [n for n, document in enumerate(documents) if document["id"] == name]
            where = ", ".join(f"row {n + 1} (line {table.lines[n]})" for n in rows[:5])
            more = f" and {count - 5} more" if count > 5 else ""
            yield f"id {name!r} is given {count} times: {where}{more}" if name else f"empty id in {where}{more}"


def clip_counts(documents: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Count documents whose clip file is there, and whose is not. Documents without clip count in neither."""
    present = missing = 0
    for document in documents:
        if document["clip"] is not None:
            present += document["clip"]["size"] is not None
            missing += document["clip"]["size"] is None
    return present, missing
