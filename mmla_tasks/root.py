"""The data root: a folder in the Hub layout, the embedded sample, or the Hub dataset itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from mmla_tasks.documents import Dataset
from mmla_tasks.errors import DataError, MmlaError, UsageError
from mmla_tasks.places import download_folder
from mmla_tasks.received import Received
from mmla_tasks.sources import HUB_REPOSITORY, SOURCES, SPLITS

DATA_DIR_VARIABLE = "MMLA_DATA_DIR"
SAMPLE_NOTE = "sample data, not a benchmark score"

Kind = Literal["folder", "sample", "hub"]


@dataclass(frozen=True)
class DataRoot:
    """Where texts and clips come from."""

    kind: Kind
    given: str
    """What the user wrote: a path (its ``~`` written out), ``sample``, ``sample:N``, or the Hub repository."""
    origin: str
    """Who said so: ``--data_dir``, ``MMLA_DATA_DIR`` or ``default``."""
    revision: str | None = None
    """Hub only: the revision asked for; `commit` is what it resolved to."""

    @classmethod
    def choose(cls, data_dir: str | os.PathLike[str] | None = None, revision: str | None = None) -> DataRoot:
        """``--data_dir``, else ``MMLA_DATA_DIR``, else the Hub dataset, as far as `mmla data download` fetched it.

        Raises:
            DataError: a folder that is not there.
        """
        given, origin = (
            (str(data_dir), "--data_dir") if data_dir else (os.environ.get(DATA_DIR_VARIABLE, ""), DATA_DIR_VARIABLE)
        )
        given = os.path.expanduser(given)  # the shell leaves the ~ of --data_dir=~/data, and of a variable in quotes
        if revision and given:
            raise UsageError(
                f"--data_revision {revision} is for the Hub dataset, and the data root is {given}",
                given_by=origin,
                next="leave one of them out",
            )
        if not given:
            return cls("hub", HUB_REPOSITORY, "default", revision)
        if given == "sample" or given.startswith("sample:"):
            from mmla_tasks.sample.rows import rows_asked_for

            rows_asked_for(given)
            return cls("sample", given, origin)
        if not Path(given).is_dir():
            raise DataError(
                f"the data root {given} is not a folder",
                given_by=origin,
                next="name a folder with MIntRec/test.tsv, MELD/test.tsv, ... or try --data_dir sample",
            )
        return cls("folder", given, origin)

    @property
    def is_sample(self) -> bool:
        """Whether this is the embedded sample, whose scores mean nothing."""
        return self.kind == "sample"

    def dataset(
        self,
        name: str,
        *,
        labels_of: Callable[[], Mapping[str, Sequence[str]]],
        with_clips: bool,
        splits: Sequence[str] = ("test",),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Dataset:
        """Find one dataset under this root; makes the sample, or fetches the texts, when that is needed.

        Args:
            name: Folder name, such as ``MELD``.
            labels_of: Gives the label list of every MMLA dataset; called for the sample only.
            with_clips: Whether clips are needed too.
            splits: Splits whose clips are needed (sample only).
            on_progress: Called with clips drawn and clips to draw (sample only).
        """
        match self.kind:
            case "sample":
                folder = _sample_folder(self.given, labels_of(), name if with_clips else None, splits, on_progress)
                return Dataset.in_root(folder, name)
            case "hub":
                return Dataset.in_root(self._downloaded(name) or _hub_folder(name, self.revision), name)
            case "folder":
                return Dataset.in_root(Path(self.given), name)

    def commit(self, name: str) -> str | None:
        """The Hub commit that the dataset's files came from; None where nothing tells."""
        if self.kind == "hub" and self._downloaded(name) is None:
            return _hub_folder(name, self.revision).name
        folder = download_folder() if self.kind == "hub" else Path(self.given)
        received = None if self.is_sample else Received.read(folder, name)
        return received.commit if received else None

    def holds(self, name: str) -> bool:
        """Whether the dataset is on this machine, or can be made without network."""
        return self.kind != "hub" or self._downloaded(name) is not None

    def _downloaded(self, name: str) -> Path | None:
        """The download folder, when it holds this dataset.

        Raises:
            DataError: It holds another revision than the one asked for.
        """
        folder = download_folder()
        received = Received.read(folder, name)
        if received is None or not (folder / name).is_dir():
            return None
        if self.revision and self.revision != received.revision and not received.commit.startswith(self.revision):
            raise DataError(
                f"{name} was downloaded from another commit than --data_revision {self.revision}",
                folder=folder / name,
                commit=received.commit,
                next=f"mmla data download {name} --data_revision {self.revision}; a --data_dir of its own keeps both",
            )
        return folder


def _sample_folder(
    spec: str,
    labels: Mapping[str, Sequence[str]],
    clips_of: str | None,
    splits: Sequence[str],
    on_progress: Callable[[int, int], None] | None,
) -> Path:
    from mmla_tasks.sample import sample_root

    return sample_root(
        spec,
        datasets=labels,
        prefixes={name: SOURCES[name].clip_prefix for name in labels},
        with_clips=clips_of is not None,
        splits=splits,
        clips_of=None if clips_of is None else (clips_of,),
        on_progress=on_progress,
    )


@lru_cache(maxsize=64)
def _hub_folder(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"{name}/{split}.tsv" for split in SPLITS]
    try:
        return Path(snapshot_download(HUB_REPOSITORY, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except MmlaError:
        raise
    except Exception as error:  # the hub client raises a dozen unrelated types when the network is down
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            "no data root: the texts are neither on this machine nor could they be fetched from the Hub",
            dataset=f"{HUB_REPOSITORY} {name}" + (f" @ {revision}" if revision else ""),
            why=f"{type(error).__name__}: {reason[:200]}",
            next=f"mmla data download {name}, where there is a network      or name a folder in the Hub layout with "
            "--data_dir or MMLA_DATA_DIR, or try --data_dir sample",
        ) from None
