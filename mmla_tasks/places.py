"""The two folders of this machine's user: what was downloaded, and caches that may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MMLA_CACHE_DIR"


def download_folder() -> Path:
    """Where `mmla data download` puts data that nobody gave another place; it may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_data_dir("mmla-eval", appauthor=False)) / "data"


def cache_folder() -> Path:
    """``MMLA_CACHE_DIR``, else the user's cache folder; it may not exist yet. What is in it: docs/data.md, caches."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mmla-eval", appauthor=False))
