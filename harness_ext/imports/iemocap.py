"""IEMOCAP as its owners hand it out: whole dialogues, and text files that say when each utterance is spoken.

``SessionN/dialog/avi/DivX/<dialogue>.avi`` shows one dialogue, ``SessionN/dialog/EmoEvaluation/<dialogue>.txt`` has a
line ``[2.5100 - 4.0200]<tab>Ses09F_impro09_F000<tab>neu<tab>[2.5, 2.5, 2.5]`` for each utterance that was judged,
``SessionN/dialog/transcriptions/<dialogue>.txt`` one ``Ses09F_impro09_F000 [002.5100-004.0200]: The kettle sings.`` for
each that was spoken (examples are invented). What of this was looked up, and where: docs/data.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from harness_ext.imports.distributions import Distribution, Piece, counted, files_below, nothing_found, one_of, top_of

_INNER: Final = re.compile(r"Session\d|dialog|avi|DivX|EmoEvaluation|transcriptions|sentences")
_SKIPPED: Final = frozenset({"sentences", "wav", "lab", "MOCAP_hand", "MOCAP_head", "MOCAP_rotated"})
"""Folders that hold a file for each utterance, and nothing that is needed."""
_DIALOGUE: Final = re.compile(r"Ses\d\d[FM]_(impro|script)\w+")
_JUDGED: Final = re.compile(r"\[(\d+\.?\d*) - (\d+\.?\d*)\]\t(\S+)\t")
_SPOKEN: Final = re.compile(r"(\S+) \[(\d+\.?\d*)-(\d+\.?\d*)\]:?[ \t]*(.*)")


class _Times(NamedTuple):
    start_seconds: float
    end_seconds: float


def read_iemocap(path: Path, wanted: Collection[str], without: Collection[Path]) -> Distribution:
    """Find dialogues and times.

    Args:
        path: The folder ``IEMOCAP_full_release``, one in it, or one around it.
        wanted: Ids such as ``Ses09F_impro09_F000``.
        without: Folders that are not looked into.

    Raises:
        DataError: there are no dialogues.
    """
    top = top_of(path, _INNER)
    videos, judged, spoken = _files(top, without)
    if not videos:
        raise nothing_found(
            "IEMOCAP dialogues",
            top,
            "SessionN/dialog/avi/DivX/<dialogue>.avi, also in folders below",
            "name the folder IEMOCAP_full_release; how to ask for it: sail.usc.edu/iemocap",
        )
    times, texts = _times(judged, spoken)
    found = Distribution(top, f"{counted(videos, 'dialogue')}, times of {counted(times, 'utterance')}", texts=texts)
    sources = {dialogue: one_of(paths) for dialogue, paths in videos.items()}
    for id in wanted:
        found_piece = _piece(id, sources, times)
        if isinstance(found_piece, Piece):
            found.pieces[id] = found_piece
        else:
            found.faults[id] = found_piece
    dialogues = {_dialogue_of(id) for id in wanted}
    found.unused = [path for dialogue, paths in videos.items() if dialogue not in dialogues for path in paths]
    return found


def _files(top: Path, without: Collection[Path]) -> tuple[dict[str, list[Path]], list[Path], list[Path]]:
    """Videos by dialogue, files of judgements, files of transcriptions."""
    videos: dict[str, list[Path]] = {}
    texts: dict[str, list[Path]] = {"EmoEvaluation": [], "transcriptions": []}
    for file in files_below(top, skip=_SKIPPED, without=without):
        if _DIALOGUE.fullmatch(file.stem):
            if file.suffix.casefold() == ".avi":
                videos.setdefault(file.stem, []).append(file)
            elif file.suffix == ".txt" and file.parent.name in texts:
                texts[file.parent.name].append(file)
    return videos, texts["EmoEvaluation"], texts["transcriptions"]


def _times(judged: Iterable[Path], spoken: Iterable[Path]) -> tuple[dict[str, _Times], dict[str, str]]:
    """When each utterance is spoken, by the judgements where they have it, and what is said."""
    times: dict[str, _Times] = {}
    texts: dict[str, str] = {}
    for file in spoken:
        for id, start, end, text in _SPOKEN.findall(_read(file)):
            times[id], texts[id] = _Times(float(start), float(end)), text
    for file in judged:
        times |= {id: _Times(float(start), float(end)) for start, end, id in _JUDGED.findall(_read(file))}
    return times, texts


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _piece(id: str, videos: dict[str, Path | None], times: dict[str, _Times]) -> Piece | str:
    """Where an utterance is, or why it can't be had."""
    dialogue = _dialogue_of(id)
    if dialogue not in videos:
        return f"no {dialogue}.avi"
    video, spoken = videos[dialogue], times.get(id)
    if video is None:
        return f"several files {dialogue}.avi, with different content"
    if spoken is None:
        return f"no times in EmoEvaluation/{dialogue}.txt or transcriptions/{dialogue}.txt"
    if spoken.start_seconds >= spoken.end_seconds:
        return f"no length: {spoken.start_seconds:g} s to {spoken.end_seconds:g} s"
    return Piece(video, *spoken)


def _dialogue_of(id: str) -> str:
    return id.rpartition("_")[0]
