"""`mmla link`: put the task YAMLs where plain lm-eval finds them; `mmla unlink` takes them away again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import MissingExtraError, UsageError

MARKER = ".mmla-link.json"
"""Stands in the folder that `mmla link` makes, and lists what it made: relative path -> what the link points to."""
INSTEAD = 'without links: lm_eval --include_path "$(mmla where)" ...'


def main(arguments: list[str]) -> int:
    """Link every YAML into lm-eval's tasks folder."""
    parser = Parser(
        prog="mmla link",
        description="Link the task YAMLs into the installed lm-eval, so that it finds them without --include_path.",
        epilog="mmla unlink takes the links away again",
    )
    parser.parse_args(arguments)
    folder = link_folder()
    count = link(folder)
    print(f"{count} task files are linked in {folder}")
    print("next: lm_eval --tasks mmla_intent_text ...      mmla unlink takes them away again")
    return 0


def link_folder() -> Path:
    """Where the links go: a folder of our own in the tasks folder of the installed lm-eval.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    found = find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("lm_eval", extra="hf", purpose="mmla link")
    return Path(found.submodule_search_locations[0]).resolve() / "tasks" / "mmla"


def link(folder: Path) -> int:
    """Make `folder` hold a link to every packaged YAML and nothing else of ours; harmless when repeated.

    A real folder of file links, because lm-eval follows no link to a folder; it resolves a file's link before it
    looks for what the file includes.

    Returns:
        Number of links.

    Raises:
        UsageError: the folder is not ours, or cannot be written.
    """
    from harness_ext.catalogue import yaml_folder

    source = yaml_folder()
    links = {path.relative_to(source).as_posix(): str(path) for path in sorted(source.rglob("*.yaml"))}
    with _writing(folder):
        if folder.exists():
            unlink(folder)
        folder.mkdir(exist_ok=True)
        (folder / MARKER).write_text(json.dumps(links, indent=1) + "\n", encoding="utf-8")
        for name, target in links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)
    return len(links)


def unlink(folder: Path) -> tuple[int, list[Path]]:
    """Take away what `link` made; what others put there stays.

    Returns:
        Number of links taken away, and the files that stay.

    Raises:
        UsageError: the folder is not ours, or cannot be written.
    """
    links = _links_of(folder)
    with _writing(folder):
        gone = [folder / name for name, target in links.items() if _is_ours(folder / name, target)]
        for path in gone:
            path.unlink()
        (folder / MARKER).unlink(missing_ok=True)
        for path in sorted({folder, *(p.parent for p in gone)}, key=lambda p: len(p.parts), reverse=True):
            if not any(path.iterdir()):
                path.rmdir()
    return len(gone), sorted(path for path in folder.rglob("*") if not path.is_dir())


def _links_of(folder: Path) -> dict[str, str]:
    if folder.is_dir() and not any(folder.iterdir()):
        return {}  # as a link that was interrupted at once leaves it
    try:
        links: dict[str, str] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(
            f"{folder} was not made by mmla link",
            why=f"it has no readable {MARKER}; it is left as it is",
            next=f"rename or remove it, then mmla link again      {INSTEAD}",
        ) from None
    return links


def _is_ours(path: Path, target: str) -> bool:
    return path.is_symlink() and os.readlink(path) == target


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says how to do without links."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written",
            why=f"{error.strerror or error}: {error.filename}" if error.filename else str(error),
            next=INSTEAD,
        ) from None
