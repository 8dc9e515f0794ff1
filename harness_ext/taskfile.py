"""Task YAMLs, read strictly: every fault of a file at once, each with its line.

lm-eval drops a YAML that it cannot parse with a debug line, so nothing here relies on its reader. What is read
is small on purpose: `class: !function`, `include`, and the keys of `TASK_KEYS` and `GROUP_KEYS`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness_ext.decoding import decoding
from mmla_tasks.answers import label_faults
from mmla_tasks.documents import Dataset
from mmla_tasks.errors import TaskFileError, UsageError, suggest

TASK_CLASS = "harness_ext.task.LabelTask"

OWN_KEYS = frozenset(
    {
        "dataset",
        "dimension",
        "labels",
        "modality",
        "prompt",
        "prompt_text",
        "prompt_video",
        "released_prompt_labels",
    }
)
"""Keys that `LabelTask` adds to lm-eval's."""
TASK_KEYS = OWN_KEYS | {
    "task",
    "class",
    "include",
    "task_alias",
    "tag",
    "num_fewshot",
    "generation_kwargs",
    "description",
    "metadata",
}
GROUP_KEYS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include"})
MODALITIES = ("text+video", "text", "video")
PROMPT_COLUMNS = ("id", "text", "label", "labels", "dimension", "clip")
"""What a prompt template may use."""

# One parser for all: libyaml's where it is built in.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a task file."""

    where: str
    """``line 4`` or ``data``."""
    what: str
    hint: str = ""

    @property
    def line(self) -> int:
        """Line number for sorting; faults without one come last."""
        number = self.where.removeprefix("line ")
        return int(number) if number.isdigit() else 1 << 30


@dataclass(frozen=True)
class TaskFile:
    """One YAML: a task or a group, its keys merged over what it includes."""

    path: Path
    config: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key -> line on which it stands in this file (keys of included files are absent)."""

    @property
    def is_group(self) -> bool:
        """Whether the file is a group of tasks."""
        return "group" in self.config

    @property
    def name(self) -> str:
        """Task or group name."""
        return str(self.config.get("group") or self.config.get("task"))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of a group's tasks and groups, in order."""
        listed = self.config.get("task", ())
        if not isinstance(listed, list):
            return ()
        return tuple(str(m.get("task") or m.get("group")) if isinstance(m, Mapping) else str(m) for m in listed)

    @property
    def is_label_task(self) -> bool:
        """Whether `LabelTask` builds it; other lm-eval tasks in a folder are left to lm-eval."""
        return not self.is_group and self.config.get("class") == TASK_CLASS

    @property
    def modality(self) -> str:
        """What the model is shown, unless the run says otherwise."""
        return str(self.config.get("modality", MODALITIES[0]))


def read_task_file(path: Path) -> TaskFile:
    """Read one YAML with its includes.

    Raises:
        TaskFileError: it does not parse, is no mapping, repeats a key, or includes a file that is not there.
    """
    config, lines = _read_mapping(path)
    return TaskFile(path, _with_includes(path, config, lines, seen=[path.resolve()]), lines)


def faults_error(path: Path, faults: Iterable[Fault]) -> TaskFileError:
    """Make one error of all faults of a file, in the order of lines, as ``mmla check`` prints it."""
    ordered = sorted(faults, key=lambda f: f.line)
    count = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    error = TaskFileError(f"task file has {count}", file=path)
    width = max((len(f.where) for f in ordered), default=0)
    span = max((len(f.what) for f in ordered), default=0)
    body = [
        f"  {f.where:<{width}}   {f.what:<{span if f.hint else 0}}{'   ' + f.hint if f.hint else ''}" for f in ordered
    ]
    return _WithBody(error, body)


class _WithBody(TaskFileError):
    """A task file error whose faults form a table of their own."""

    def __init__(self, head: TaskFileError, body: list[str]) -> None:
        super().__init__(head.what, head.details)
        self.body = body

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.body])


class NoTaskFileError(_WithBody):
    """A YAML that is no mapping: not meant as a task file, or badly meant."""

    def __init__(self, path: Path) -> None:
        fault = "  line 1   a task file is a mapping of keys, such as `task: my_task`"
        super().__init__(TaskFileError("task file has 1 fault", file=path), [fault])


def key_faults(file: TaskFile) -> Iterator[Fault]:
    """Unknown keys, with the nearest known one; missing keys of a label task."""
    known = GROUP_KEYS if file.is_group else TASK_KEYS
    for key in file.config:
        if key not in known:
            yield Fault(_at(file, key), f"unknown key `{key}`", suggest(str(key), known) or "")
    required = ("task",) if file.is_group else ("task", "dataset", "dimension", "labels")
    for key in required:
        if key not in file.config:
            yield Fault("line 1", f"the key `{key}` is missing")


_KINDS: Mapping[str, tuple[type, str]] = {
    "generation_kwargs": (dict, "a mapping such as {max_gen_toks: 32}"),
    "metadata": (dict, "a mapping such as {version: 1}"),
    "num_fewshot": (int, "a whole number"),
    "description": (str, "a text"),
    "task_alias": (str, "a text"),
}
_NAME = re.compile(r"[\w.-]+")


def value_faults(file: TaskFile) -> Iterator[Fault]:
    """Labels, modality and other values that cannot be meant."""
    yield from _label_faults(file)
    yield from _decoding_faults(file)
    for key, (kind, wanted) in _KINDS.items():
        value = file.config.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            yield Fault(_at(file, key), f"`{key}` is {value!r}, not {wanted}")
    if isinstance(file.config.get("task"), str) and not _NAME.fullmatch(file.config["task"]):
        yield Fault(_at(file, "task"), f"the name `{file.config['task']}`", "letters, digits, `_`, `-` and `.` only")
    dataset = file.config.get("dataset")
    if isinstance(dataset, str) and Path(dataset).suffix.lower() in (".csv", ".json", ".jsonl", ".txt", ".parquet"):
        yield Fault(_at(file, "dataset"), f"dataset `{dataset}`", "a TSV, or a folder with test.tsv")
    modality = file.config.get("modality")
    if modality is not None and modality not in MODALITIES:
        yield Fault(_at(file, "modality"), f"modality `{modality}`", f"one of: {', '.join(MODALITIES)}")
    for key in ("task", "dataset", "dimension"):
        value = file.config.get(key)
        if key in file.config and not (isinstance(value, str) and value.strip()):
            yield Fault(_at(file, key), f"`{key}` must be a text, not {value!r}")


def _decoding_faults(file: TaskFile) -> Iterator[Fault]:
    given = file.config.get("generation_kwargs")
    if isinstance(given, Mapping):
        try:
            decoding(given)
        except UsageError as error:
            yield Fault(_at(file, "generation_kwargs"), error.what, str(error.details.get("next", "")))


def _label_faults(file: TaskFile) -> Iterator[Fault]:
    if "labels" not in file.config:
        return
    labels, where = file.config["labels"], _at(file, "labels")
    if not isinstance(labels, list) or len(labels) < 2:
        yield Fault(where, f"`labels` must be a list of at least two labels, not {labels!r}")
        return
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            hint = "quote it: YAML reads yes, no, on, off and numbers as values" if not isinstance(label, str) else ""
            yield Fault(where, f"label {label!r} is not a text", hint)
    texts = [label for label in labels if isinstance(label, str)]
    yield from (Fault(where, fault) for fault in (label_faults(texts) if texts else ()))
    for label in file.config.get("released_prompt_labels") or ():
        if label not in texts:
            yield Fault(_at(file, "released_prompt_labels"), f"`{label}` is not in `labels`")


def member_faults(file: TaskFile, known: Container[str]) -> Iterator[Fault]:
    """Members of a group that are no list or no tasks."""
    listed = file.config.get("task")
    if not isinstance(listed, list):
        yield Fault(_at(file, "task"), f"`task` of a group is a list of names, not {listed!r}")
        return
    for member in file.members:
        if member == file.name:
            yield Fault(_at(file, "task"), f"group `{member}` holds itself")
        elif member not in known:
            near = suggest(member, known) if isinstance(known, Iterable) else None
            yield Fault(_at(file, "task"), f"member `{member}` is no task", near or "")


def dataset_beside(yaml_path: Path, name: str) -> Dataset | None:
    """The data that a task brings along: a TSV or a folder beside its YAML; None when it is under the data root."""
    beside = yaml_path.resolve().parent / name
    if name.endswith(".tsv"):
        return Dataset.of_file(beside)
    return Dataset.in_folder(beside, name) if beside.is_dir() else None


def prompt_faults(file: TaskFile) -> Iterator[Fault]:
    """Templates that do not parse, use unknown columns, or lack their ``<video>`` place."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    for key in ("prompt", "prompt_text", "prompt_video"):
        template = file.config.get(key)
        if template is None:
            continue
        if not isinstance(template, str):
            yield Fault(_at(file, key), f"`{key}` must be a text, not {template!r}")
            continue
        try:
            used = meta.find_undeclared_variables(Environment().parse(template))
        except TemplateSyntaxError as error:
            yield Fault(_at(file, key), f"`{key}` is not a Jinja template: {error.message}")
            continue
        for name in sorted(used - set(PROMPT_COLUMNS)):
            yield Fault(_at(file, key), f"`{key}` uses {{{{ {name} }}}}", f"columns: {', '.join(PROMPT_COLUMNS)}")
        places, wanted = template.count("<video>"), 0 if key == "prompt_text" else 1
        if places != wanted:
            yield Fault(_at(file, key), f"`{key}` has {places} places for <video>, not {wanted}")


def _at(file: TaskFile, key: Any) -> str:
    line = file.lines.get(key)
    return f"line {line}" if line else "included"


class _FunctionLoader(_Loader):  # type: ignore[misc]
    """Safe loader that keeps ``!function a.b`` as the text ``a.b``."""


_FunctionLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def _read_mapping(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
        loader = _FunctionLoader(text)
        try:
            node = loader.get_single_node()
            value = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskFileError(f"task file {path.name} cannot be read", file=path, why=error) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "line 1"
        raise faults_error(path, [Fault(where, f"not YAML: {getattr(error, 'problem', error)}")]) from None
    if not isinstance(value, dict):
        raise NoTaskFileError(path)
    lines: dict[str, int] = {}
    repeated = []
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value in lines:
            repeated.append(
                Fault(f"line {line}", f"`{key_node.value}` is given twice", f"first on line {lines[key_node.value]}")
            )
        lines[key_node.value] = line
    if repeated:
        raise faults_error(path, repeated)
    return value, lines


def _with_includes(path: Path, config: dict[str, Any], lines: Mapping[str, int], seen: list[Path]) -> dict[str, Any]:
    included = config.pop("include", None)
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included] if included else []:
        target = (path.parent / str(name)).resolve()
        if target in seen or not target.is_file():
            why = "is included twice" if target in seen else "is not there"
            raise faults_error(path, [Fault(f"line {lines.get('include', 1)}", f"included file {name} {why}")])
        other, other_lines = _read_mapping(target)
        seen.append(target)
        merged |= _with_includes(target, other, other_lines, seen)
    return merged | config
