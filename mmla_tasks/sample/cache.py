"""Put the sample into a data root in the Hub layout, made once into a cache and shared by all processes.

::

    <cache>/sample/<digest>/SAMPLE.md
    <cache>/sample/<digest>/MELD/{train,dev,test}.tsv
    <cache>/sample/<digest>/MELD/video/MELD_105_3.mp4     (drawn when first asked for)

<cache> is ``MMLA_CACHE_DIR``, else the user's cache folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmla_tasks.errors import DataError
from mmla_tasks.places import CACHE_VARIABLE, cache_folder
from mmla_tasks.sample import draw
from mmla_tasks.sample.rows import SAMPLE_NOTE, Row, dataset_rows, rows_asked_for

GENERATOR_VERSION = 2
"""Raise it when rows or pictures change: the old cache is then left alone and a new one made."""

QUOTED = frozenset({"MIntRec", "MELD", "IEMOCAP-DA", "MOSI", "CH-SIMSv2.0", "MUStARD"})
"""Datasets written as quoted TSV; the others are not, so that readers meet both dialects."""
CAPITALISED = frozenset({"IEMOCAP"})
"""Datasets whose TSV says ``Frustrated`` where the label is ``frustrated``, as released."""

Progress = Callable[[int, int], None]
"""Called with clips drawn and clips to draw."""

_README = """# {note}

Made by `mmla_tasks.sample` (generator version {version}) so that everything can be tried without any dataset.
Texts come from templates, clips are drawn by code; nothing here is taken from MMLA.

- The text tells nothing: within a split, each text stands with every label equally often (but for a last round that
  is cut short when `sample:N` is no multiple of the number of labels). A model that reads only text scores chance.
- The clip tells all: expression, gesture and colour of the face follow the label's place in its list. The code is
  arbitrary. It can be learned from the train clips, not guessed.
- Clips are drawn when first asked for; `video/` may be absent or incomplete until then.

Delete this folder at any time; it is made again when needed.
"""


@dataclass(frozen=True)
class _Drawing:
    """One clip to draw."""

    path: Path
    label_index: int
    num_labels: int
    seed: str


def sample_root(
    spec: str = "sample",
    *,
    datasets: Mapping[str, Sequence[str]],
    prefixes: Mapping[str, str],
    with_clips: bool = True,
    splits: Collection[str] = ("test",),
    clips_of: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Make the sample, or find it made.

    Args:
        spec: ``sample``, or ``sample:N`` with N rows per test split; train and dev keep their size.
        datasets: Dataset folder -> its declared labels.
        prefixes: Dataset folder -> prefix of its clips, which are ``video/<prefix>_<id>.mp4``.
        with_clips: Whether clips are needed. Without them nothing but the texts is made, in milliseconds.
        splits: Splits whose clips are needed.
        clips_of: Datasets whose clips are needed; None for all in `datasets`. Texts are made for all.
        on_progress: Called after each clip with the number drawn and the number to draw; not at all when none is.

    Returns:
        The data root, a folder in the Hub layout. Its place depends on everything that decides its content.

    Raises:
        UsageError: `spec` is neither of the two forms.
        DataError: a dataset has more labels than can be drawn, or the cache cannot be written.
        MissingExtraError: clips must be drawn, and PyAV or Pillow is not installed.
    """
    test_rows = rows_asked_for(spec)
    _check_label_counts(datasets)
    root = cache_folder() / "sample" / _digest(test_rows, datasets, prefixes)
    with _cache_faults(root):
        if not root.is_dir():
            with _lock(root):
                if not root.is_dir():
                    _make_texts(root, test_rows, datasets)
        if with_clips:
            wanted = {name: labels for name, labels in datasets.items() if clips_of is None or name in clips_of}
            _make_clips(root, list(_drawings(root, test_rows, wanted, prefixes, splits)), on_progress)
    return root


def _check_label_counts(datasets: Mapping[str, Sequence[str]]) -> None:
    for name, labels in datasets.items():
        if not 2 <= len(labels) <= draw.MAX_LABELS:
            raise DataError(
                f"the sample has no rows for {name}: {len(labels)} labels, where 2 to {draw.MAX_LABELS} can be drawn",
                next="name a data root with --data_dir",
            )


def _digest(test_rows: int | None, datasets: Mapping[str, Sequence[str]], prefixes: Mapping[str, str]) -> str:
    """Name of the root: 16 hex digits over all that decides its content."""
    content = {
        "version": GENERATOR_VERSION,
        "test_rows": test_rows,
        "datasets": {name: [prefixes[name], list(labels)] for name, labels in sorted(datasets.items())},
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """One process at a time makes things under `root`; the others wait and find them made."""
    import filelock

    root.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{root}.lock"):
        yield


@contextmanager
def _cache_faults(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            "the sample cannot be written into the cache",
            folder=root,
            why=error,
            next=f"free some space, or name another folder with {CACHE_VARIABLE}",
        ) from error


@contextmanager
def _partial_folder(root: Path) -> Iterator[Path]:
    """A fresh folder beside `root`, on the same disk, so that finished things move into place in one step.

    Call it under the lock: what a killed process left in it is removed.
    """
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_texts(root: Path, test_rows: int | None, datasets: Mapping[str, Sequence[str]]) -> None:
    with _partial_folder(root) as partial:
        made = partial / "root"
        for name, labels in datasets.items():
            folder = made / name
            folder.mkdir(parents=True)
            for split, rows in dataset_rows(name, labels, test_rows).items():
                (folder / f"{split}.tsv").write_bytes(_tsv(name, rows).encode())
        readme = _README.format(note=SAMPLE_NOTE, version=GENERATOR_VERSION)
        (made / "SAMPLE.md").write_text(readme, encoding="utf-8", newline="\n")
        made.rename(root)


def _tsv(dataset: str, rows: Sequence[Row]) -> str:
    r"""A file's text: a header, then a line for each row, ended by ``\n``."""
    capitalise = dataset in CAPITALISED
    lines = [Row._fields, *((r.id, r.text, r.label.capitalize() if capitalise else r.label) for r in rows)]
    if dataset not in QUOTED:
        return "".join("\t".join(cells) + "\n" for cells in lines)
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _drawings(
    root: Path,
    test_rows: int | None,
    datasets: Mapping[str, Sequence[str]],
    prefixes: Mapping[str, str],
    splits: Collection[str],
) -> Iterator[_Drawing]:
    for name, labels in datasets.items():
        for split, rows in dataset_rows(name, labels, test_rows).items():
            if split in splits:
                for row in rows:
                    path = root / name / "video" / f"{prefixes[name]}_{row.id}.mp4"
                    yield _Drawing(path, labels.index(row.label), len(labels), f"{name}/{row.id}")


def _make_clips(root: Path, drawings: Sequence[_Drawing], on_progress: Progress | None) -> None:
    """Draw what is missing or damaged. An interrupted run goes on where it stopped."""
    if all(_is_whole(d.path) for d in drawings):
        return
    draw.require_packages()
    with _lock(root), _partial_folder(root) as partial:
        missing = [d for d in drawings if not _is_whole(d.path)]
        for folder in {d.path.parent for d in missing}:
            folder.mkdir(exist_ok=True)
        # Threads, not processes: a user's script without a `__main__` guard could not start those.
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        try:
            futures = [pool.submit(_draw_into_place, d, partial) for d in missing]
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if on_progress is not None:
                    on_progress(done, len(missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _draw_into_place(drawing: _Drawing, partial: Path) -> None:
    unfinished = partial / drawing.seed.replace("/", "-")  # unique, where two datasets may share a prefix
    draw.write_clip(unfinished, draw.look_of(drawing.label_index, drawing.num_labels), drawing.seed)
    digest = hashlib.sha256(unfinished.read_bytes()).hexdigest()
    _digest_of(drawing.path).unlink(missing_ok=True)  # killed between the two, the clip is drawn again
    os.replace(unfinished, drawing.path)
    unfinished.write_text(digest, encoding="ascii")
    os.replace(unfinished, _digest_of(drawing.path))


def _is_whole(clip: Path) -> bool:
    """Whether a clip is there as it was drawn."""
    try:
        return hashlib.sha256(clip.read_bytes()).hexdigest() == _digest_of(clip).read_text(encoding="ascii")
    except OSError:
        return False


def _digest_of(clip: Path) -> Path:
    """The file with the clip's SHA-256, beside it."""
    return clip.with_suffix(".sha256")
