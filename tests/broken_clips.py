"""Clips broken in every way that a header and packets show, and a data root in which every tenth is."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

from harness_ext.catalogue import packaged_labels
from mmla_tasks.root import DataRoot

TASK = "mmla_emotion_meld"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_sound(path: Path) -> None:
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path.write_bytes(buffer.getvalue())


def damage(path: Path) -> None:
    """Break the pictures and nothing else, which shows when they are decoded."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)


WAYS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut_short": cut,
    "not_video": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "audio_only": only_sound,
}
"""Fault -> what brings it about."""


def partly_broken(root: Path, rows: int, every: int = 10) -> dict[str, str]:
    """Write MELD with `rows` drawn rows, and break every tenth clip, in turn as `WAYS` has it.

    Returns:
        Id -> its fault, of the broken clips.
    """
    labels = packaged_labels()
    drawn = DataRoot.choose(f"sample:{rows}").dataset("MELD", labels_of=packaged_labels, with_clips=True)
    split = drawn.read("test", labels=labels["MELD"], dimension="emotion", with_clips=True)
    (root / "MELD" / "video").mkdir(parents=True)
    shutil.copy(split.path, root / "MELD" / "test.tsv")
    broken = {}
    for n, row in enumerate(split.documents):
        assert row["clip"] is not None
        path = root / "MELD" / "video" / f"MELD_{row['id']}.mp4"
        shutil.copy(row["clip"]["path"], path)
        if n % every == every - 1:
            fault = list(WAYS)[n // every % len(WAYS)]
            WAYS[fault](path)
            broken[row["id"]] = fault
    return broken


def without(root: Path, ids: set[str], to: Path) -> Path:
    """The same data without some rows."""
    shutil.copytree(root, to)
    table = to / "MELD" / "test.tsv"
    head, *lines = table.read_text(encoding="utf-8").splitlines()
    at = head.split("\t").index("id")
    kept = [line for line in lines if line.split("\t")[at].strip('"') not in ids]
    table.write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    return to
