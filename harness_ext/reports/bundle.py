"""A run as one file that others can verify: results, score card, and samples without texts.

`write_bundle` makes it (``mmla report --bundle FILE``); `opened_run` gives the `Run` of a folder or of a bundle, as
``mmla verify`` and ``mmla compare`` take either. A bundle is a ZIP archive of a run folder's files under their own
names and of ``bundle.json``, which says what was left out. Two equal runs make equal bundles but for date and timings.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from harness_ext.reports.run_files import Run, read_run
from harness_ext.run_folder import RESULTS, SAMPLES, SCORE_CARD
from mmla_tasks.errors import RunFilesError

MANIFEST = "bundle.json"
BUNDLE_SCHEMA = 1
LEFT_OUT = (
    "texts and prompts of the samples: their SHA-256 stands instead; a prompt can be made again from the data files",
    "folders of clips: the file names stay",
    "the journal, and all media",
)
KEPT = "raw answers are kept as the model gave them; a model may have quoted the text that it was shown"

LARGEST = 4 << 30
"""Bytes that a bundle may unpack to: far above any run, far below what a made-up archive could."""


def write_bundle(run: Run, path: Path) -> Path:
    """Pack a run for others.

    Args:
        run: A finished run.
        path: The file to write, such as ``run.zip``.

    Raises:
        RunFilesError: Samples are missing or damaged, or the file cannot be written.
    """
    files = {
        MANIFEST: _dumped(_manifest(run)),
        RESULTS: _dumped(run.results),
        **{_samples_name(task): _lines(rows) for task, rows in run.samples.items()},
    }
    card = run.path / SCORE_CARD
    if card.is_file():
        files[SCORE_CARD] = card.read_text(encoding="utf-8")
    aside = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                # No time of day and no permissions of this machine.
                archive.writestr(zipfile.ZipInfo(name), files[name].encode(), zipfile.ZIP_DEFLATED)
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RunFilesError("the bundle cannot be written", file=path, why=error.strerror or error) from None
    return path


def without_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample row as a bundle holds it."""
    clip = row["doc"]["clip"]
    return {
        **row,
        "doc": {
            "id": row["doc"]["id"],
            "label": row["doc"]["label"],
            "clip": {**clip, "path": PurePath(clip["path"]).name} if clip else None,
        },
        "arguments": [[None, row["arguments"][0][1]]],
    }


@contextmanager
def opened_run(path: Path) -> Iterator[Run]:
    """Read a run folder or a bundle; samples are there until the end of the ``with`` block.

    Raises:
        RunFilesError: It is neither, or its files cannot be read.
    """
    if not path.is_file():
        yield read_run(path)
        return
    with tempfile.TemporaryDirectory(prefix="mmla-bundle-") as folder:
        _unpack(path, Path(folder))
        yield replace(read_run(Path(folder)), bundle=path)


def is_bundle(run: Run) -> bool:
    """Whether a run came from a bundle, so that texts and prompts are not there."""
    return run.bundle is not None


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if MANIFEST not in archive.namelist():
                raise _no_bundle(path, f"{MANIFEST} is not in it")
            schema = json.loads(archive.read(MANIFEST))["schema"]
            if schema > BUNDLE_SCHEMA:
                raise RunFilesError(f"{path} was written by a newer mmla", next="pip install -U mmla-eval")
            size = sum(info.file_size for info in archive.infolist())
            if size > LARGEST:
                raise _no_bundle(path, f"it would unpack to {size:,} bytes")
            archive.extractall(folder)  # never outside the folder: zipfile drops `..` and roots
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise _no_bundle(path, error) from None


def _no_bundle(path: Path, why: object) -> RunFilesError:
    return RunFilesError(
        f"{path} is no bundle of a run",
        why=why,
        next="name a folder of `mmla run --run_dir`, or a file of `mmla report --bundle`",
    )


def _manifest(run: Run) -> dict[str, Any]:
    return {
        "schema": BUNDLE_SCHEMA,
        "left_out": list(LEFT_OUT),
        "kept": KEPT,
        "samples_sha256": {
            task: hashlib.sha256((run.path / _samples_name(task)).read_bytes()).hexdigest() for task in run.tasks
        },
    }


def _samples_name(task: str) -> str:
    return f"{SAMPLES}/{task}.jsonl"


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(without_texts(row), ensure_ascii=False, sort_keys=True) + "\n" for row in rows)


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
