"""Reading finished runs back: results and samples of a run folder, for reports, comparisons and verification."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness_ext.results import SCHEMA
from harness_ext.run_folder import JOURNAL, RESULTS, SAMPLES
from mmla_tasks.errors import RunFilesError

SampleRow = Mapping[str, Any]
"""One line of a samples file, as `harness_ext.results.sample_rows` makes it."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    results: Mapping[str, Any]
    """The content of results.json."""
    bundle: Path | None = None
    """The file that `path` was unpacked from; None for a run folder."""

    @property
    def where(self) -> Path:
        """What the user named: the folder, or the bundle."""
        return self.bundle or self.path

    @property
    def facts(self) -> Mapping[str, Any]:
        """The `mmla` block."""
        facts: Mapping[str, Any] = self.results["mmla"]
        return facts

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Leaf name -> its block, in the order of the run."""
        tasks: Mapping[str, Mapping[str, Any]] = self.facts["tasks"]
        return tasks

    @property
    def model(self) -> str:
        """What the run is called in tables: the model's name, without the folders that it lies in."""
        args = self.results["config"]["model_args"] or {}
        named = args.get("pretrained") or args.get("model") or self.facts["model"].get("name")
        name = str(named or self.results["config"]["model"])
        return Path(name).name if name.startswith(("/", ".", "~")) else name

    @cached_property
    def samples(self) -> dict[str, list[SampleRow]]:
        """Leaf name -> its rows in file order.

        Raises:
            RunFilesError: A samples file is missing or damaged.
        """
        return {task: list(read_rows(self.path / SAMPLES / f"{task}.jsonl")) for task in self.tasks}


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RunFilesError: It is no run folder, its run has not finished, or its results are damaged or of a newer schema.
    """
    file = path / RESULTS
    if not file.is_file():
        raise _no_results(path)
    results = _results(file)
    schema = results.get("mmla", {}).get("schema")
    if not isinstance(schema, int):
        raise RunFilesError(
            f"{file} holds no results of mmla", next="name a folder that `mmla run --run_dir FOLDER` made"
        )
    if schema > SCHEMA:
        raise RunFilesError(
            f"{path} was written by a newer mmla",
            schema=f"{schema}, and this version reads up to {SCHEMA}",
            next="pip install -U mmla-eval",
        )
    return Run(path, results)


def _no_results(path: Path) -> RunFilesError:
    if not path.exists():
        return RunFilesError(f"there is no folder {path}", next="name the --run_dir of a finished run")
    if (path / JOURNAL).is_dir():
        answered = any(file.stat().st_size for file in (path / JOURNAL).iterdir())
        there = "there are answers and no results" if answered else "nothing was answered yet"
        return RunFilesError(
            f"the run in {path} has not finished: {there}",
            next="repeat the command that made it; it goes on where it stopped",
        )
    inside = [child.name for child in sorted(path.iterdir()) if (child / RESULTS).is_file()] if path.is_dir() else []
    return RunFilesError(
        f"{path} is no run folder: {RESULTS} is not there",
        inside=", ".join(inside) or None,
        next="name a folder that `mmla run --run_dir FOLDER` made",
    )


def _results(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFilesError("the results cannot be read", file=file, why=error) from None
    if not isinstance(value, dict):
        raise RunFilesError("the results are no JSON object", file=file)
    return value


def read_rows(file: Path) -> Iterator[SampleRow]:
    """The rows of a samples file.

    Raises:
        RunFilesError: It is missing or damaged.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: texts hold other line separators
    except OSError as error:
        raise RunFilesError("the samples of a task cannot be read", file=file, why=error.strerror or error) from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunFilesError(f"line {number} of the samples is damaged", file=file, why=error) from None
        yield row
