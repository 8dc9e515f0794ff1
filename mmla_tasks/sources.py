"""The twelve datasets as published: folder, clip prefix, known row counts, licence, and how to get restricted videos.

Counts are those of the released text files (thuiar/MMLA @ 48efd63, Swift and LLaMA-Factory folders); where a train
file could not be read, the count of the dataset card stands instead, and where neither could, None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HUB_REPOSITORY = "THUIAR/MMLA-Datasets"
"""Dataset repository on the Hugging Face Hub: ``<Folder>/{train,dev,test}.tsv`` and one video archive per folder."""

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Source:
    """What is known about one dataset before any file is read."""

    folder: str
    """Folder under the data root, as on the Hub."""
    clip_prefix: str
    """Clips are ``video/<clip_prefix>_<id>.mp4``."""
    rows: Mapping[str, int | None]
    """Known rows per split; None where no source states them."""
    licence: str
    """Licence as far as it was seen; the texts are released with MMLA under cc-by-4.0."""
    videos_published: bool = True
    """Whether the Hub repository holds a video archive."""
    how_to_get_videos: str = ""
    """For datasets without a published archive: where the videos come from."""

    @property
    def restricted(self) -> bool:
        """Whether the owners hand the data out themselves, to people who agree to their terms."""
        return not self.videos_published

    @property
    def next_step_for_videos(self) -> str:
        """What to type, or where to go, to have the clips."""
        return self.how_to_get_videos or f"download {self.folder}'s archive from the Hub dataset {HUB_REPOSITORY}"


_IEMOCAP = "request IEMOCAP at sail.usc.edu/iemocap, then put the clips into {}/video"
_MOSI = "get CMU-MOSI through the CMU-MultimodalSDK, then put the clips into MOSI/video"


def _source(
    folder: str,
    train: int | None,
    dev: int,
    test: int,
    *,
    prefix: str | None = None,
    licence: str = "not stated",
    videos: str = "",
) -> Source:
    rows = {"train": train, "dev": dev, "test": test}
    return Source(folder, prefix or folder, rows, licence, videos_published=not videos, how_to_get_videos=videos)


SOURCES: dict[str, Source] = {
    s.folder: s
    for s in (
        _source("MIntRec", 1334, 445, 445),
        _source("MIntRec2.0", 6165, 1106, 2033, licence="CC-BY-NC-SA-4.0"),
        _source("MELD", 9989, 1109, 2610),
        _source("IEMOCAP", 5237, 521, 1622, licence="IEMOCAP release form", videos=_IEMOCAP.format("IEMOCAP")),
        _source("MELD-DA", 6992, 999, 1998),
        _source("IEMOCAP-DA", 6590, 942, 1884, licence="IEMOCAP release form", videos=_IEMOCAP.format("IEMOCAP-DA")),
        _source("MOSI", 1284, 229, 686, licence="restricted (CMU-MultimodalSDK)", videos=_MOSI),
        _source("CH-SIMSv2.0", 2713, 644, 1031, prefix="Ch-sims"),
        _source("UR-FUNNY-v2", None, 980, 994, prefix="UR-FUNNY"),
        _source("MUStARD", 414, 138, 138, licence="MIT"),
        _source("AnnoMi-client", 3123, 461, 1129),
        _source("AnnoMi-therapist", 3161, 472, 1140),
    )
}
"""All twelve, in the order of the paper's table."""
