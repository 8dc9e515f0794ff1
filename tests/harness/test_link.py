"""`mmla link` and `unlink`, on a copy of the installed lm-eval: a crashed test leaves the environment clean."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness_ext.catalogue import yaml_folder
from harness_ext.cli.link import MARKER, link, unlink
from mmla_tasks.errors import UsageError

ROOT = Path(__file__).parents[2]
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder that holds a copy of lm-eval."""
    found = find_spec("lm_eval")
    assert found and found.submodule_search_locations
    shutil.copytree(found.submodule_search_locations[0], tmp_path / "copied" / "lm_eval", symlinks=True)
    return tmp_path / "copied"


def command(verb: str, where: Path, *options: str) -> Ran:
    """Run a verb where the lm-eval in the folder `where` is the one that is installed."""
    environment = {**os.environ, "PYTHONPATH": f"{where}{os.pathsep}{ROOT}"}
    arguments = [sys.executable, *options, "-m", "harness_ext.cli", verb]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=where)


def content(folder: Path) -> dict[str, tuple[int, str]]:
    """Path of everything below a folder -> mode, and digest or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = os.readlink(path) if path.is_symlink() else ""
        what = what or (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder")
        found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, what)
    return found


def test_unlink_leaves_everything_as_it_was(copied: Path) -> None:
    before = content(copied)
    assert "38 task files are linked" in command("link", copied).stdout
    linked = content(copied)
    assert "38 task files are linked" in command("link", copied).stdout  # twice is fine
    assert content(copied) == linked
    made = linked.keys() - before.keys()
    assert all(name.startswith("lm_eval/tasks/mmla") for name in made)
    assert sum(name.endswith(".yaml") for name in made) == len(list(yaml_folder().rglob("*.yaml"))) == 38
    done = command("unlink", copied)
    assert (done.returncode, done.stdout[:22]) == (0, "38 links are gone from")
    assert content(copied) == before
    again = command("unlink", copied)
    assert (again.returncode, again.stdout[:17]) == (0, "nothing is linked")


def test_linked_files_are_found_with_what_they_include(tmp_path: Path) -> None:
    from lm_eval.tasks._index import TaskIndex

    folder = tmp_path / "mmla"
    link(folder)
    direct, linked = TaskIndex.build([yaml_folder()]), TaskIndex.build([folder])
    assert linked.keys() == direct.keys()
    assert len(linked) == 38
    for name, entry in direct.items():
        assert linked[name].cfg == entry.cfg
        assert linked[name].kind == entry.kind


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "mmla"
    link(folder)
    (folder / "emotion" / "mine.yaml").write_text("task: mine\n")
    (folder / "mmla.yaml").unlink()
    (folder / "mmla.yaml").write_text("group: mine\n")
    count, stays = unlink(folder)
    assert count == 37
    assert [path.name for path in stays] == ["mine.yaml", "mmla.yaml"]
    assert sorted(path.name for path in folder.rglob("*")) == ["emotion", "mine.yaml", "mmla.yaml"]


def test_a_link_of_an_older_version_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "mmla"
    folder.mkdir()
    (folder / "gone.yaml").symlink_to(tmp_path / "older" / "gone.yaml")
    (folder / MARKER).write_text(f'{{"gone.yaml": "{tmp_path}/older/gone.yaml"}}')
    assert link(folder) == 38
    assert not (folder / "gone.yaml").is_symlink()


@pytest.mark.parametrize("marker", [None, "{"])
def test_a_folder_of_others_is_refused(marker: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "lm_eval" / "tasks" / "mmla"
    folder.mkdir(parents=True)
    (tmp_path / "lm_eval" / "__init__.py").touch()
    (folder / "theirs.yaml").write_text("task: theirs\n")
    if marker is not None:
        (folder / MARKER).write_text(marker)
    before = content(tmp_path / "lm_eval")
    for verb in ("link", "unlink"):
        done = command(verb, tmp_path)
        assert done.returncode == 2
        assert f"{folder} was not made by mmla link" in done.stderr
        assert "it is left as it is" in done.stderr
    assert content(tmp_path / "lm_eval") == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mmla").mkdir()
    assert link(tmp_path / "mmla") == 38


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("a file where a folder must be")
    with pytest.raises(UsageError, match=r"mmla can't be written(.|\n)*--include_path"):
        link(tmp_path / "tasks" / "mmla")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"Permission denied(.|\n)*--include_path"):
        link(tmp_path / "mmla")


def test_without_lm_eval(tmp_path: Path) -> None:
    for verb in ("link", "unlink"):
        done = command(verb, tmp_path, "-S")  # no installed packages
        assert (done.returncode, "needs the package `lm_eval`" in done.stderr) == (2, True), done.stderr
