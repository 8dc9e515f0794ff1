"""`mmla check`: validate task YAMLs strictly, all faults of every file at once, with file and line.

lm-eval drops a YAML that does not parse with a debug line, and `lm-eval validate` only looks whether names exist.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness_ext.catalogue import packaged_labels, static_faults, yaml_folder
from harness_ext.cli.parser import Parser
from harness_ext.taskfile import (
    TASK_CLASS,
    Fault,
    TaskFile,
    dataset_beside,
    faults_error,
    member_faults,
    read_task_file,
)
from mmla_tasks.documents import Dataset
from mmla_tasks.errors import DataError, TaskFileError, UsageError
from mmla_tasks.root import DataRoot


def main(arguments: list[str]) -> int:
    """Check folders or files; the packaged tasks when none is named."""
    parser = Parser(prog="mmla check", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="folders or YAML files (default: the packaged tasks)")
    parser.add_argument(
        "--data_dir", metavar="PATH", help="check the data as well; files beside a YAML are always checked"
    )
    args = parser.parse_args(arguments)
    paths = args.paths or [yaml_folder()]
    root = DataRoot.choose(args.data_dir) if args.data_dir else None
    checked, errors = _check(paths, root)
    for error in errors:
        print(f"error: {error}\n", file=sys.stderr)
    good = checked - len(errors)
    print(f"{good} of {checked} task files are in order")
    return 2 if errors else 0


def check_folders(paths: Iterable[Path]) -> None:
    """Raise the first file's faults; for ``mmla run --check_integrity``.

    Raises:
        TaskFileError: a file has faults.
    """
    _, errors = _check([yaml_folder(), *paths], None)
    if errors:
        raise errors[0]


def _check(paths: Iterable[Path], root: DataRoot | None) -> tuple[int, list[TaskFileError]]:
    errors: list[TaskFileError] = []
    files: list[TaskFile] = []
    count = 0
    for path in _yaml_files(paths):
        count += 1
        try:
            file = read_task_file(path)
        except TaskFileError as error:
            errors.append(error)
            continue
        files.append(file)
    names = Counter(file.name for file in files if file.config.get("group") or file.config.get("task"))
    known = {file.name for file in files} | {file.name for file in _packaged()}
    for file in files:
        faults = list(_faults(file, names, known, root))
        if faults:
            errors.append(faults_error(file.path, faults))
    return count, errors


def _yaml_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.yaml"))
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"{path} is neither a folder nor a file", next="name a folder of task YAMLs")


def _packaged() -> Iterator[TaskFile]:
    return (read_task_file(path) for path in sorted(yaml_folder().rglob("*.yaml")))


def _faults(file: TaskFile, names: Counter[str], known: set[str], root: DataRoot | None) -> Iterator[Fault]:
    yield from static_faults(file)
    if names[file.name] > 1:
        yield Fault(
            _line(file, "group" if file.is_group else "task"),
            f"the name `{file.name}` is given {names[file.name]} times",
        )
    own = {one.name: one.path.resolve() for one in _packaged()}
    if own.get(file.name, file.path.resolve()) != file.path.resolve():
        yield Fault(_line(file, "group" if file.is_group else "task"), f"the name `{file.name}` is a packaged one's")
    if file.is_group:
        yield from member_faults(file, known)
        return
    if file.config.get("class") != TASK_CLASS:
        yield Fault(_line(file, "class"), "`class` is not the label task", f"class: !function {TASK_CLASS}")
    if not static_faults(file):
        yield from _data_faults(file, root)


def _line(file: TaskFile, key: str) -> str:
    return f"line {file.lines[key]}" if key in file.lines else "line 1"


def _data_faults(file: TaskFile, root: DataRoot | None) -> Iterator[Fault]:
    try:
        dataset = _dataset(file, root)
        if file.config.get("num_fewshot") and dataset is not None and not dataset.has("train"):
            what = f"`num_fewshot` takes examples from the train split, which {dataset.name} lacks"
            yield Fault(_line(file, "num_fewshot"), what)
        for split in dataset.files if dataset is not None else ():
            assert dataset is not None
            if split == "test" or dataset.has(split):
                dataset.read(
                    split, labels=file.config["labels"], dimension=str(file.config["dimension"]), with_clips=False
                )
    except DataError as error:
        faults = [v for k, v in error.details.items() if k.startswith("fault ")] or [error.what]
        for fault in faults:
            yield Fault("data", fault)
        for row in error.details.get("rows", "").split("\n"):
            if row:
                yield Fault("data", row)


def _dataset(file: TaskFile, root: DataRoot | None) -> Dataset | None:
    name = str(file.config["dataset"])
    beside = dataset_beside(file.path, name)
    if beside is not None or root is None:
        return beside
    return root.dataset(name, labels_of=packaged_labels, with_clips=False)
