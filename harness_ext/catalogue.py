"""Which tasks and groups there are, read from the YAML files alone: quick, and without lm-eval."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from harness_ext.taskfile import (
    TASK_CLASS,
    Fault,
    NoTaskFileError,
    TaskFile,
    faults_error,
    key_faults,
    member_faults,
    prompt_faults,
    read_task_file,
    value_faults,
)
from mmla_tasks.errors import UsageError, suggest

TEXT_SUFFIX = "_text"


def yaml_folder() -> Path:
    """The folder of the packaged task YAMLs, for ``lm_eval --include_path``."""
    import yaml_tasks

    return Path(yaml_tasks.__file__).parent


@dataclass(frozen=True)
class Catalogue:
    """Every task and group by name."""

    files: Mapping[str, TaskFile]
    others: Mapping[str, Path] = field(default_factory=dict)
    """Files of further folders that name a task of another class than ours."""

    @classmethod
    def load(cls, include: Iterable[Path] = ()) -> Catalogue:
        """Read the packaged YAMLs and those of further folders.

        Raises:
            TaskFileError: a file with faults, all of them at once.
            UsageError: a folder that is not there, or two files with one name.
        """
        files = dict(_packaged())
        others: dict[str, Path] = {}
        for folder in include:
            if not folder.is_dir():
                raise UsageError(f"--include_path {folder} is not a folder", next="name the folder of your task YAMLs")
            ours, of_others = _read_folder(folder)
            others |= {file.name: file.path for file in of_others}
            for file in ours:
                if file.name in files and files[file.name].path.resolve() != file.path.resolve():
                    raise UsageError(
                        f"two task files are named {file.name}",
                        first=files[file.name].path,
                        second=file.path,
                        next="give one of them another `task:` name",
                    )
                files[file.name] = file
        for file in files.values():
            faults = list(member_faults(file, files)) if file.is_group else []
            if faults:
                raise faults_error(file.path, faults)
        return cls(files, others)

    def leaves(self, name: str) -> list[str]:
        """Names of the leaf tasks of a task or group, in order."""
        file = self.files[name]
        return [leaf for member in file.members for leaf in self.leaves(member)] if file.is_group else [name]

    def resolve(self, names: Sequence[str], modality: str | None = None) -> list[str]:
        """Check the names a user asked for and apply ``--modality text``.

        Args:
            names: Task and group names, tags, and patterns such as ``mmla_*_text``.
            modality: With ``text``, a name is replaced by its text-only twin where there is one.

        Returns:
            The names to load, groups kept as groups.

        Raises:
            UsageError: a name that is unknown (with suggestions), or tasks asked for twice.
        """
        if not names:
            raise UsageError("no tasks are named", next="--tasks mmla_intent      mmla ls shows all names")
        names = [match for name in names for match in self._matches(name)]
        unknown = [name for name in names if name not in self.files]
        if unknown:
            raise self._unknown(unknown)
        twin = {n: n + TEXT_SUFFIX for n in names if modality == "text" and n + TEXT_SUFFIX in self.files}
        resolved = [twin.get(name, name) for name in names]
        self._refuse_twice(resolved)
        return resolved

    def _matches(self, name: str) -> list[str]:
        """Names that a pattern or a tag stands for; any other name stands for itself."""
        if any(sign in name for sign in "*?["):
            return fnmatch.filter(self.files, name) or [name]
        tagged = [file.name for file in self.files.values() if not file.is_group and name in _tags(file)]
        return tagged if tagged and name not in self.files else [name]

    def _unknown(self, names: Sequence[str]) -> UsageError:
        hints = {name: self._hint(name) for name in names}
        what = f"unknown task {names[0]}" if len(names) == 1 else f"{len(names)} unknown tasks"
        hint = hints[names[0]] if len(names) == 1 else "\n".join(f"{n}: {h}" for n, h in hints.items())
        return UsageError(what, hint=hint, next="mmla ls shows all names; --include_path FOLDER adds yours")

    def _hint(self, name: str) -> str:
        if name in self.others:
            return f"{self.others[name]} names it, but its `class` is not `!function {TASK_CLASS}`; mmla check tells"
        return suggest(name, self.files) or "nothing is named like it"

    def _refuse_twice(self, names: Sequence[str]) -> None:
        holder: dict[str, str] = {}
        for name in names:
            for leaf in self.leaves(name):
                if leaf in holder:
                    raise UsageError(
                        f"task {leaf} is asked for twice",
                        by=f"{holder[leaf]} and {name}" if holder[leaf] != name else name,
                        next="name each task once, as itself or through one group",
                    )
                holder[leaf] = name


def _tags(file: TaskFile) -> list[str]:
    tags = file.config.get("tag") or []
    return [tags] if isinstance(tags, str) else list(tags)


def read_folder(folder: Path) -> list[TaskFile]:
    """Read every YAML below a folder; files that are neither our tasks nor groups are left to lm-eval.

    Raises:
        TaskFileError: a file with faults.
    """
    return _read_folder(folder)[0]


def _read_folder(folder: Path) -> tuple[list[TaskFile], list[TaskFile]]:
    """Our tasks and groups, and files that name tasks of other classes."""
    files, others = [], []
    for path in sorted(folder.rglob("*.yaml")):
        try:
            file = read_task_file(path)
        except NoTaskFileError:
            continue  # some other YAML; `mmla check` names it
        if file.is_group or file.is_label_task:
            refuse_faults(file)
            files.append(file)
        elif isinstance(file.config.get("task"), str):
            others.append(file)
    return files, others


def refuse_faults(file: TaskFile) -> None:
    """Raise a TaskFileError with all faults of a file that can be seen without its data."""
    faults = static_faults(file)
    if faults:
        raise faults_error(file.path, faults)


def static_faults(file: TaskFile) -> list[Fault]:
    """All faults of a file that can be seen without its data."""
    if file.is_group:
        return list(key_faults(file))
    return [*key_faults(file), *value_faults(file), *prompt_faults(file)]


@lru_cache(maxsize=1)
def _packaged() -> Mapping[str, TaskFile]:
    return {file.name: file for file in read_folder(yaml_folder())}


def packaged_labels() -> dict[str, list[str]]:
    """Label list of every MMLA dataset, from the packaged YAMLs (where each stands exactly once)."""
    tasks = (file.config for file in _packaged().values() if not file.is_group and file.modality != "text")
    return {str(config["dataset"]): list(config["labels"]) for config in tasks}
