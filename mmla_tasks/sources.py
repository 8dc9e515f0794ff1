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
    clusters: str = ""
    """What an id names up to its last underscore, such as ``dialogue``; empty where ids show nothing of that kind."""
    archive: str = ""
    """Name of the video archive without ``_video.tar.gz``; spelling is uneven: case and punctuation do not count."""
    recordings: str = ""
    """Folder of the dataset whose clips these are; where two datasets share it, equal ids name the same clip."""

    @property
    def restricted(self) -> bool:
        """Whether the owners hand the data out themselves, to people who agree to their terms."""
        return not self.videos_published

    @property
    def next_step_for_videos(self) -> str:
        """What to type, or where to go, to have the clips."""
        return self.how_to_get_videos or f"mmla data download {self.folder}"

    def cluster_of(self, id: str) -> str:
        """Name of the dialogue, video or the like that a row belongs to; the row itself where `clusters` is empty."""
        return id.rpartition("_")[0] if self.clusters else id


_MOSI = "get CMU-MOSI through the CMU-MultimodalSDK, then: mmla data import mosi PATH"
_IEMOCAP = "request IEMOCAP at sail.usc.edu/iemocap, then: mmla data import iemocap PATH"


def _source(
    folder: str,
    train: int | None,
    dev: int,
    test: int,
    *,
    prefix: str | None = None,
    licence: str = "not stated",
    videos: str = "",
    clusters: str = "",
    archive: str = "",
    recordings: str = "",
) -> Source:
    rows = {"train": train, "dev": dev, "test": test}
    return Source(
        folder,
        prefix or folder,
        rows,
        licence,
        videos_published=not videos,
        how_to_get_videos=videos,
        clusters=clusters,
        archive=archive or folder,
        recordings=recordings or folder,
    )


def _iemocap(folder: str, train: int, dev: int, test: int) -> Source:
    return _source(
        folder,
        train,
        dev,
        test,
        licence="IEMOCAP release form",
        videos=_IEMOCAP,
        clusters="dialogue",
        recordings="IEMOCAP",
    )


SOURCES: dict[str, Source] = {
    s.folder: s
    for s in (
        _source("MIntRec", 1334, 445, 445, clusters="episode"),  # S06_E04_70
        _source("MIntRec2.0", 6165, 1106, 2033, licence="CC-BY-NC-SA-4.0", clusters="dialogue"),  # 9_1
        _source("MELD", 9989, 1109, 2610, clusters="dialogue"),  # 1153_0
        _iemocap("IEMOCAP", 5237, 521, 1622),  # Ses05F_impro01_F000
        _source("MELD-DA", 6992, 999, 1998, clusters="dialogue", recordings="MELD"),
        _iemocap("IEMOCAP-DA", 6590, 942, 1884),
        _source(  # c7UH_rxdZv4$_$24
            "MOSI", 1284, 229, 686, licence="restricted (CMU-MultimodalSDK)", videos=_MOSI, clusters="video"
        ),
        _source(  # video_0001_0003
            "CH-SIMSv2.0", 2713, 644, 1031, prefix="Ch-sims", archive="Ch-simsv2", clusters="video"
        ),
        _source("UR-FUNNY-v2", None, 980, 994, prefix="UR-FUNNY"),  # 408: a running number
        _source("MUStARD", 414, 138, 138, licence="MIT"),  # 1_162: one of two collections and a number
        _source("AnnoMi-client", 3123, 461, 1129, clusters="conversation"),  # 116_163
        _source("AnnoMi-therapist", 3161, 472, 1140, clusters="conversation"),
    )
}
"""All twelve, in the order of the paper's table."""
