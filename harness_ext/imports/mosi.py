"""CMU-MOSI as its owners hand it out: a file for each utterance, numbered from 1 within its video.

``Raw/Video/Segmented/<video>_<n>.mp4`` is utterance n, ``Raw/Transcript/Segmented/<video>.annotprocessed`` has a line
``<n>_DELIM_<TEXT>`` for each. MMSA hands the same files out as ``Raw/<video>/<n>.mp4``; both layouts are read. What of
this was looked up, and where: docs/data.md. Ids here are invented.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness_ext.imports.distributions import Distribution, Piece, counted, files_below, nothing_found, one_of, top_of
from mmla_tasks.documents import CLIP_SUFFIXES

_INNER: Final = re.compile(r"Segmented|Full|Video|Transcript|Audio")
_SKIPPED: Final = frozenset({"Audio", "WAV_16000"})
_BETWEEN: Final = "$_$"
"""Between video and number in MMLA's ids: ``In_ventedId$_$24``."""
_LINE: Final = re.compile(r"(\d+)_DELIM_(.*)")


def read_mosi(path: Path, wanted: Collection[str], without: Collection[Path]) -> Distribution:
    """Find the clips.

    Args:
        path: The folder ``Raw``, one in it, or one around it.
        wanted: Ids such as ``In_ventedId$_$24``.
        without: Folders that are not looked into.

    Raises:
        DataError: there are no clips of single utterances.
    """
    top = top_of(path, _INNER)
    videos, clips, texts = _files(top, {id.partition(_BETWEEN)[0] for id in wanted}, without)
    if not clips:
        whole = "; there are whole videos, and the times that cut them are not in this distribution" if videos else ""
        raise nothing_found(
            "MOSI clips",
            top,
            f"Raw/Video/Segmented/<video>_<n>.mp4 or Raw/<video>/<n>.mp4, also in folders below{whole}",
            "name the folder Raw of CMU-MOSI; how to get it: the CMU-MultimodalSDK",
        )
    found = Distribution(top, counted(clips, "clip"), texts=texts)
    for id in wanted:
        if id not in clips:
            found.faults[id] = _why_missing(id, clips)
        elif file := one_of(clips[id]):
            found.pieces[id] = Piece(file)
        else:
            found.faults[id] = "several files, with different content: " + ", ".join(map(str, clips[id]))
    found.unused = [path for id, paths in clips.items() if id not in wanted for path in paths]
    return found


def _why_missing(id: str, clips: Mapping[str, Sequence[Path]]) -> str:
    video = id.partition(_BETWEEN)[0]
    has_others = any(other.startswith(video + _BETWEEN) for other in clips)
    return f"{'no such number among the' if has_others else 'no'} clips of {video}"


def _files(
    top: Path, known: Collection[str], without: Collection[Path]
) -> tuple[list[Path], dict[str, list[Path]], dict[str, str]]:
    """Whole videos, clips by id, transcripts by id."""
    videos: list[Path] = []
    clips: dict[str, list[Path]] = {}
    texts: dict[str, str] = {}
    for file in files_below(top, skip=_SKIPPED, without=without):
        if file.suffix == ".annotprocessed":
            texts |= _texts(file)
        elif file.suffix.casefold() in CLIP_SUFFIXES:
            if file.stem in known:
                videos.append(file)
            elif id := _id_of(file):
                clips.setdefault(id, []).append(file)
    return videos, clips, texts


def _id_of(file: Path) -> str | None:
    """The id that a file's name, or its folder and name, stand for."""
    video, _, number = file.stem.rpartition("_")
    video = video or file.parent.name
    return f"{video}{_BETWEEN}{int(number)}" if re.fullmatch("[0-9]+", number) else None


def _texts(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [match for match in map(_LINE.match, lines) if match]
    return {f"{file.stem}{_BETWEEN}{int(match[1])}": match[2].strip() for match in matches}
