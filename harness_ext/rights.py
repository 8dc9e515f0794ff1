"""Who may pass a dataset's texts on: nobody, of IEMOCAP and MOSI, without saying that they have the rights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SOURCES

FLAG = "--i_have_the_rights"


def require_rights(datasets: Iterable[str], what: str, granted: bool) -> None:
    """Refuse to pass restricted texts on, unless the user has said that they may.

    Args:
        datasets: Folders of the datasets whose samples or texts would leave the machine or enter a file to be shared.
            Other people's datasets are not ours to judge and pass.
        what: What would be done, such as ``sending samples to the Hub``.
        granted: Whether ``--i_have_the_rights`` was given.

    Raises:
        UsageError: a restricted dataset is among them; names it with its licence.
    """
    restricted = [SOURCES[name] for name in SOURCES if name in set(datasets) and SOURCES[name].restricted]
    if granted or not restricted:
        return
    names = ", ".join(source.folder for source in restricted)
    raise UsageError(
        f"{what} would pass on texts of {names}",
        {source.folder: source.licence for source in restricted},
        why="their owners hand them out themselves, to people who agree to their terms",
        next=f"leave these tasks out, or add {FLAG} if your agreement with the owners covers it",
    )


def datasets_of(facts: Mapping[str, Any]) -> set[str]:
    """Datasets whose texts a run's samples hold; none for the embedded sample, whose texts are made up.

    Args:
        facts: The `mmla` block of its results.
    """
    root = facts["data"]["root"]
    if root and root["kind"] == "sample":
        return set()
    return {block["dataset"] for block in facts["tasks"].values()}
