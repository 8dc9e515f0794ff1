"""`mmla-predictions`: scores answers that were made elsewhere.

The answers file is JSONL with rows ``{"task": leaf task name, "id": document id, "response": raw text}``; a row may add
``"truncated": true`` when the answer was cut at a token limit. Nothing else of a row is read. Or it is a CSV with the
columns Video, Task, Pred, Label, as the released code writes one for each dataset, or a folder of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from harness_ext.released_csv import comparable, is_released_csv, read_released_csv, released_files
from harness_ext.requests import Request, Response
from harness_ext.session import announce, answer_all
from mmla_tasks.errors import DataError, ModelError, suggest

_SHOWN = 10
"""Ids that an error lists before it counts the rest."""


class PredictionsLM(LM):  # type: ignore[misc]
    """Gives the answers of a file.

    Args:
        answers: Path of the JSONL file, of a CSV of the released code, or of a folder of such CSVs.
        name: What the results call the model; the file's name unless given.

    Raises:
        ModelError: no file is named, or an unknown argument.
        DataError: the file is not there, has faulty rows, or answers a document twice.
    """

    MULTIMODAL = True
    answer_mode = "generate"
    deterministic = False  # answers belong to documents, not to questions
    REPEATABLE = False  # the file says the same each time
    OPENS_CLIPS = False

    def __init__(
        self,
        answers: str | None = None,
        name: str | None = None,
        answer: str = "generate",
        on_bad_clip: str = "error",
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        announce(self)
        if unknown:
            wrong = next(iter(unknown))
            raise ModelError(
                f"mmla-predictions has no argument `{wrong}`",
                hint=suggest(wrong, ("answers", "name")),
                arguments="answers, name",
            )
        if answers is None:
            raise ModelError("mmla-predictions needs a file", next="--model_args answers=FILE.jsonl")
        if answer != "generate":
            raise ModelError(f"mmla-predictions has free answers only, not `{answer}`", next="leave --answer out")
        self.path = Path(answers)
        self.name = name or self.path.stem
        self.rows = _read_answers(self.path)

    def identity(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "backend": "mmla-predictions",
            "name": self.name,
            "answers_sha256": _digest(_files(self.path)),
        }

    def describe(self) -> str:
        """One line for the screen."""
        return f"mmla-predictions  {self.name}  {len(self.rows):,} answers from {self.path}"

    def prepare(self, tasks: Mapping[str, Any], asked: Mapping[str, list[str]]) -> None:
        """Compare the file with the documents before anything is scored.

        Args:
            tasks: Leaf name -> task of this run. Rows of tasks that are not run are left alone.
            asked: Leaf name -> ids of the documents that will be asked.

        Raises:
            DataError: missing or unknown ids, or other gold labels than the data's, listed per task.
        """
        faults: dict[str, str] = {}
        for name, task in tasks.items():
            answered = {doc_id for task_name, doc_id in self.rows if task_name == name}
            known = {document["id"]: document["label"] for document in task.eval_docs}
            missing = [doc_id for doc_id in asked[name] if doc_id not in answered]
            unknown = sorted(answered - known.keys())
            other_gold = list(self._other_gold(name, known))
            if missing:
                faults[f"{name}: {len(missing):,} missing"] = _listed(missing)
            if unknown:
                faults[f"{name}: {len(unknown):,} unknown"] = _listed(unknown)
            if other_gold:
                faults[f"{name}: {len(other_gold):,} with another gold label"] = _listed(other_gold)
        if faults:
            raise DataError("the answers file does not fit the documents", {"file": self.path, **faults})

    def _other_gold(self, task: str, known: Mapping[str, str]) -> Iterator[str]:
        """Ids whose gold label in the file is not that of the data."""
        for doc_id, label in known.items():
            told = self.rows.get((task, doc_id), {}).get("gold")
            if told and told != comparable(label):
                yield f"{doc_id} ({told} in the file, {label} in the data)"

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Look every answer up.

        Raises:
            DataError: an answer is missing.
        """
        for n, request in enumerate(requests):
            row = self.rows.get((request.task, request.id))
            if row is None:
                raise DataError(f"the answers file has no answer for {request.task} id {request.id}", file=self.path)
            yield n, Response(row["response"], truncated=row.get("truncated", False))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Response]:
        """Answer lm-eval's instances."""
        return answer_all(self, requests)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not offered: a file holds answers."""
        raise ModelError("mmla-predictions has no log-likelihoods")

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Not offered: a file holds answers."""
        raise ModelError("mmla-predictions has no log-likelihoods")


def _files(path: Path) -> list[Path]:
    return released_files(path) if path.is_dir() else [path]


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read_answers(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Every row of the file, or of the folder's files; all faults at once."""
    files = _files(path)
    if path.is_dir() and not files:
        raise DataError("the answers folder holds no CSV", folder=path, next="name the folder of the released results")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    faults: list[str] = []
    duplicates: list[str] = []
    for file in files:
        before = f"{file.name} " if len(files) > 1 else ""
        for number, found in _rows_of(file):
            if isinstance(found, str):
                faults.append(f"{before}line {number}: {found}")
                continue
            keys = [(task, str(found["id"])) for task in found["tasks"]]
            if keys[0] in rows:
                duplicates.append(f"{keys[0][0]} id {keys[0][1]} ({before}line {number})")
            rows.update(dict.fromkeys(keys, found))
    if faults or duplicates:
        raise DataError(
            "the answers file has faulty rows",
            file=path,
            rows="\n".join(faults[:_SHOWN]) or None,
            more=f"{len(faults) - _SHOWN} more" if len(faults) > _SHOWN else None,
            answered_twice=_listed(duplicates) if duplicates else None,
            next='each line: {"task": "mmla_intent_mintrec_text", "id": "...", "response": "..."}',
            or_a_csv="Video,Task,Pred,Label, as the released code writes it",
        )
    return rows


def _rows_of(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line, a row with the tasks that it answers, or what is wrong with it)."""
    text = _text(file)
    if is_released_csv(text):
        for number, answer in read_released_csv(text):
            yield number, answer if isinstance(answer, str) else asdict(answer)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            fault, row = _read_row(line)
            yield number, fault if row is None else {**row, "tasks": [row["task"]]}


def _text(file: Path) -> str:
    if not file.is_file():
        raise DataError("the answers file is not there", file=file)
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the answers file is not UTF-8", file=file, why=error.reason, next="save it as UTF-8") from None


def _read_row(line: str) -> tuple[str, dict[str, Any] | None]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}", None
    if not isinstance(row, dict):
        return "not an object", None
    absent = [key for key in ("task", "id", "response") if key not in row]
    if absent:
        return f"lacks {', '.join(absent)}", None
    for key, kinds in (("task", (str,)), ("id", (str, int)), ("response", (str,)), ("truncated", (bool,))):
        if key in row and not isinstance(row[key], kinds):
            return f"{key} is {row[key]!r}, not a {'truth value' if kinds == (bool,) else 'text'}", None
    return "", row


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
