"""The Hub dataset in miniature: twelve folders with the archive names of the real one, uneven as they are."""

from __future__ import annotations

import io
import random
import tarfile

from harness_ext.catalogue import packaged_labels
from mmla_tasks.sources import SOURCES

ARCHIVES = {
    "MIntRec": "MIntRec_video.tar.gz",
    "MIntRec2.0": "MIntRec2.0_video.tar.gz",
    "MELD": "MELD_video.tar.gz",
    "MELD-DA": "MELD-DA_video.tar.gz",
    "CH-SIMSv2.0": "Ch-simsv2_video.tar.gz",
    "UR-FUNNY-v2": "UR-FUNNYv2_video.tar.gz",
    "MUStARD": "MUStARD_video.tar.gz",
    "AnnoMi-client": "AnnoMI-client_video.tar.gz",
    "AnnoMi-therapist": "AnnoMI-therapist_video.tar.gz",
}
"""Four spellings were seen on the Hub; the other names follow the plain pattern."""


def miniature_hub(clip_bytes: int = 40_000, rows: int = 2, seed: int = 0) -> dict[str, bytes]:
    """Path in the repository -> content; clips are noise behind an MP4 header, since nothing here decodes them."""
    noise, files = random.Random(seed), {"README.md": b"miniature\n"}
    for folder, labels in packaged_labels().items():
        clips = {}
        for split in ("train", "dev", "test"):
            ids = [f"{split}_{n}" for n in range(rows)]
            lines = ["id\ttext\tlabel", *(f"{id}\tText {id}.\t{labels[n % len(labels)]}" for n, id in enumerate(ids))]
            files[f"{folder}/{split}.tsv"] = ("\n".join(lines) + "\n").encode()
            for id in ids:
                name = f"{folder}_video/{split}/{SOURCES[folder].clip_prefix}_{id}.mp4"
                clips[name] = b"\0\0\0\x18ftypmp42" + noise.randbytes(clip_bytes)
        if folder in ARCHIVES:
            files[f"{folder}/{ARCHIVES[folder]}"] = packed(clips)
    return files


def packed(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
