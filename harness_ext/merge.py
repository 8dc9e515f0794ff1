"""The shards of one run put together: their rows are scored again, as a whole run scores them, without the model.

The evaluation is the ordinary one with a stand-in for the model, which gives every row the response that a shard
recorded. So the results are those of a run that was never split, and nothing is averaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lm_eval.api.model import LM

from harness_ext.frame_policy import FramePolicy
from harness_ext.reports.run_files import SampleRow, read_rows
from harness_ext.requests import Request, Response
from harness_ext.run import RunOptions, RunOutcome, answered, binding_arguments, prepared, write
from harness_ext.run_folder import MANIFEST, RECORD, SAMPLES, SHARDS, RunFolder, differences, read_mapping
from harness_ext.session import Session, announce
from harness_ext.shards import SCHEMA, Shard, asked_of
from harness_ext.usage import Prices
from mmla_tasks.errors import DataError, ModelError, UsageError

_MAY_DIFFER = ("shard", "command", "batch_size")
"""Options in which the shards of one run may differ."""
_SHOWN = 5
"""Rows that an error lists before it counts the rest."""


@dataclass(frozen=True)
class FinishedShard:
    """What a shard left behind."""

    shard: Shard
    folder: Path
    record: Mapping[str, Any]

    @property
    def options(self) -> RunOptions:
        """Those of the whole run."""
        given = self.record["options"]
        return RunOptions(**{**given, "include_path": [Path(path) for path in given["include_path"]], "shard": None})

    @property
    def common(self) -> dict[str, Any]:
        """What all shards of one run have in common: options, and all that results say of the model."""
        options = {name: value for name, value in self.record["options"].items() if name not in _MAY_DIFFER}
        return {**options, "model_args": binding_arguments(self.options), **self.record["backend"]}

    def rows(self) -> Iterator[tuple[str, SampleRow]]:
        """Task and sample row, of every task it ran.

        Raises:
            RunFilesError: a samples file is gone or damaged.
        """
        for task in self.record["tasks"]:
            for row in read_rows(self.folder / SAMPLES / f"{task}.jsonl"):
                yield task, row


def merge(run_dir: Path, announce: Any = None) -> RunOutcome:
    """Write results, samples and score card of all shards into their run folder.

    Args:
        run_dir: The folder that the shards were given.
        announce: Called with (line: str) for what is about to be merged.

    Raises:
        UsageError: no shard has finished here.
        OtherRunError: a shard is still at work.
        DataError: rows are missing, the shards are not of one run, or tasks have changed since; all say which.
    """
    say = announce or (lambda line: None)
    manifest = read_mapping(run_dir / MANIFEST)
    if manifest is None:
        raise UsageError(f"{run_dir} is no run folder", next="mmla merge RUN_DIR      the --run_dir of the shards")
    with RunFolder(run_dir, manifest) as folder:
        shards = _finished(run_dir)
        _refuse_different(shards)
        options = shards[0].options
        replay = Replay(shards, options)
        say(f"{len(replay.rows):,} answers of {', '.join(str(part.shard) for part in shards)}")
        with prepared(options) as this:
            outcome = answered(this.ready(replay), this, Session(), say)
            _refuse_changed(shards, outcome.results)
            outcome.written = write(folder, outcome, this.options)
    return outcome


def _finished(run_dir: Path) -> list[FinishedShard]:
    """The shards that have results, in order.

    Raises:
        UsageError: there are none.
    """
    found = []
    for path in (run_dir / SHARDS).glob(f"*/{RECORD}"):
        record = read_mapping(path)
        if record is not None and record.get("schema") == SCHEMA:
            found.append(FinishedShard(Shard.read(record["options"]["shard"]), path.parent, record))
    if not found:
        raise UsageError(f"no shard has finished in {run_dir}", next=f"mmla run ... --shard 1/8 --run_dir {run_dir}")
    return sorted(found, key=lambda part: (part.shard.count, part.shard.index))


def _refuse_different(shards: Sequence[FinishedShard]) -> None:
    first = shards[0]
    for other in shards[1:]:
        listed = [
            *differences(first.common, other.common, f"in {first.shard}", f"in {other.shard}"),
            *_differing_tasks(first, other.record["tasks"], f"in {other.shard}"),
        ]
        if listed:
            raise DataError(
                f"{first.shard} and {other.shard} are not of one run",
                differs="\n".join(listed),
                next=f"run the shard again that is wrong, or remove {other.folder} if it belongs to another run",
            )


def _refuse_changed(shards: Sequence[FinishedShard], results: Mapping[str, Any]) -> None:
    """Texts and prompts may have changed since the shards were asked."""
    for part in shards:
        listed = list(_differing_tasks(part, asked_of(results), "now"))
        if listed:
            raise DataError(
                f"tasks are not what {part.shard} was asked",
                differs="\n".join(listed),
                next="bring texts and task files back, or run the shards again",
            )


def _differing_tasks(part: FinishedShard, asked: Mapping[str, Any], there: str) -> Iterator[str]:
    """How tasks differ from those of a shard, where it had rows of them."""
    for name in sorted(part.record["tasks"].keys() & asked.keys()):
        yield from differences(part.record["tasks"][name], asked[name], f"in {part.shard}", there, f"{name}.")


class Replay(LM):  # type: ignore[misc]
    """Stands in for the model of finished shards: gives their responses, and says of itself what they recorded.

    Args:
        shards: All of one run.
        options: Of the whole run.

    Attributes:
        rows: (repeat, task, id) -> sample row; of a row that two shards asked, the one read first.
    """

    def __init__(self, shards: Sequence[FinishedShard], options: RunOptions) -> None:
        super().__init__()
        announce(self)
        self.shards = shards
        self.options = options
        self.versions = _versions([part.record["versions"] for part in shards])
        self.about: Mapping[str, Any] = shards[0].record["backend"]
        self.rule = self.about["rule"]
        self.deterministic = self.about["deterministic"]
        self.MULTIMODAL = self.about["multimodal"]
        self.has_chat_template = self.about["has_chat_template"]
        self.model_config = SimpleNamespace(**self.about["model_config"])
        if self.about["prices"]:  # only a backend that is paid by the token has any
            self.prices = Prices(**self.about["prices"])
        policy = self.about["frame_policy"]
        self.frame_policy = FramePolicy(**policy) if policy else None
        self._repeat = count()
        self.rows: dict[tuple[int, str, str], SampleRow] = {}
        for part in shards:
            for task, row in part.rows():
                self.rows.setdefault((row.get("repeat", 0), task, row["doc"]["id"]), row)

    def prepare(self, tasks: Mapping[str, Any], asked: Mapping[str, list[str]]) -> None:
        """See that every row of the whole run is there.

        Raises:
            DataError: rows are missing.
        """
        missing = {
            name: [i for i in ids if any((r, name, i) not in self.rows for r in range(self.options.repeats))]
            for name, ids in asked.items()
        }
        absent = [shard for shard in _whole_set(self.shards) if shard not in {part.shard for part in self.shards}]
        if any(missing.values()):
            raise DataError(
                f"{sum(map(len, missing.values())):,} rows have no answer yet",
                {name: _listed(ids) for name, ids in missing.items() if ids},
                not_finished=", ".join(map(str, absent)) or None,
                next=self._next(absent),
            )

    def _next(self, absent: Sequence[Shard]) -> str:
        shard = f" --shard {absent[0].index}/{absent[0].count}" if absent else ""
        command = self.options.command or "mmla run ..."
        return f"{command}{shard} --run_dir {self.shards[0].folder.parents[1]}"

    def generate_until(self, requests: list[Any]) -> list[Response]:
        """Give the responses of the next repeat; lm-eval asks for all tasks of a repeat at once."""
        repeat = next(self._repeat)
        return [self._response(repeat, instance.request) for instance in requests]

    def _response(self, repeat: int, request: Request) -> Response:
        row = self.rows[repeat, request.task, request.id]
        recorded = Response.from_dict({**row["response"], "response": row["resps"][0][0]})
        scores = recorded.label_scores  # sample rows are sorted by key; sums and ties go by the order of the labels
        ordered = {label: scores[label] for label in request.labels} if scores else None
        return recorded.with_(prompt=row["arguments"][0][0], label_scores=ordered)

    def identity(self) -> dict[str, Any]:
        """That of the model."""
        return dict(self.about["identity"])

    def trainings(self, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """How model and adapters were trained, as the shards recorded it; a shard names the tasks that it had."""
        blocks: dict[str, dict[str, Any]] = {}
        for block in (block for part in self.shards for block in part.record.get("training", ())):
            training = json.dumps({**block, "tasks": None}, sort_keys=True)
            known = blocks.setdefault(training, {**block, "tasks": []})
            known["tasks"] = [task for task in tasks if task in {*known["tasks"], *block["tasks"]}]
        return list(blocks.values())

    def checkpoint_decoding(self) -> dict[str, Any]:
        """The checkpoint's own generation settings."""
        return dict(self.about["own_decoding"])

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text."""
        return self.about["chat_template"] if chat_template else ""

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Something in the place of the prompt that was sent, which the response brings."""
        return "\n".join(str(message["content"]) for message in chat_history)

    @property
    def tokenizer_name(self) -> str:
        """Asked by lm-eval when a chat template is applied."""
        return self.options.model

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """No task of ours asks for it."""
        raise ModelError("mmla merge knows tasks of the kind generate_until only")

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """No task of ours asks for it."""
        raise ModelError("mmla merge knows tasks of the kind generate_until only")


def _whole_set(shards: Sequence[FinishedShard]) -> list[Shard]:
    """All shards of the splits that the finished ones are of."""
    return [Shard(i, n) for n in sorted({part.shard.count for part in shards}) for i in range(1, n + 1)]


def _versions(shards: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Package -> its version, or all that shards had, where they differ."""
    names = dict.fromkeys(name for versions in shards for name in versions)
    return {name: ", ".join(dict.fromkeys(v[name] for v in shards if name in v)) for name in names}


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and {len(ids) - _SHOWN:,} more"
