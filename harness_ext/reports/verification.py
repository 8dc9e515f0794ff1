"""Does a run hold? Every number made again from its samples, every answer parsed again, every digest looked up.

`verify` gives one `Check` per kind of claim. A check says how many claims it compared, each deviation, and what it
could not compare and why. The recomputation walks the same road as a run: lm-eval's rows are rebuilt from the samples
file and handed to the functions that made the results.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from harness_ext.catalogue import Catalogue, packaged_labels
from harness_ext.label_order import LabelOrder
from harness_ext.prompts import VIDEO
from harness_ext.released import COMMON, family_named
from harness_ext.repeats import over_repeats
from harness_ext.reports.bundle import is_bundle
from harness_ext.reports.run_files import Run, SampleRow
from harness_ext.reports.scorecard import score_card
from harness_ext.requests import Response
from harness_ext.results import (
    answer_evidence,
    group_block,
    label_probabilities,
    scores_block,
)
from harness_ext.run_folder import SCORE_CARD
from harness_ext.shards import Shard
from harness_ext.task import HIDDEN_METRIC, TASK_VERSION, LabelFilter, TaskSpec, Wording
from harness_ext.taskfile import TaskFile, dataset_beside
from harness_ext.training import method_of, sentences
from mmla_tasks.documents import Dataset, Split
from mmla_tasks.errors import DataError, RunFilesError
from mmla_tasks.root import SAMPLE_NOTE, DataRoot
from mmla_tasks.scorers import METRICS, score_document
from mmla_tasks.sources import SOURCES

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Leaf name -> rows."""


@dataclass
class Check:
    """One kind of claim."""

    name: str
    what: str
    """What is compared with what."""
    compared: int = 0
    deviations: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be compared, and why."""

    def claim(self, holds: bool, deviation: str) -> None:
        """Count one claim."""
        self.compared += 1
        if not holds:
            self.deviations.append(deviation)

    def same(self, where: str, recorded: Any, expected: Any) -> None:
        """Compare nested values, number by number; keys beyond the expected ones are ignored."""
        if isinstance(expected, Mapping):
            block = recorded if isinstance(recorded, Mapping) else {}
            for key, value in expected.items():
                self.same(f"{where} {key}", block.get(key), value)
        elif isinstance(expected, (list, tuple)):
            given = recorded if isinstance(recorded, list) else []
            self.claim(len(given) == len(expected), f"{where}: {len(given)} values recorded, {len(expected)} expected")
            for n, (theirs, ours) in enumerate(zip(given, expected, strict=False)):
                self.same(f"{where} [{n}]", theirs, ours)
        else:
            self.claim(_equal(recorded, expected), f"{where}: {_shown(recorded)} recorded, {_shown(expected)} expected")


CheckFunction = Callable[[Check, "_Evidence"], None]


def verify(run: Run, root: DataRoot | None, include: Sequence[Path] = ()) -> list[Check]:
    """Check everything that a run claims.

    Args:
        run: A run folder or an unpacked bundle.
        root: Where the data files are; None when they are not at hand.
        include: Folders of task YAMLs beside the packaged ones.

    Raises:
        RunFilesError: Results or samples lack what every run has, so that nothing can be compared.
    """
    try:
        evidence = _Evidence(run, root, Catalogue.load(include))
        return [_checked(name, what, function, evidence) for name, what, function in CHECKS]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunFilesError(
            f"{run.where} cannot be verified: its files lack what a run writes",
            why=f"{type(error).__name__}: {error}",
        ) from error


def _checked(name: str, what: str, function: CheckFunction, evidence: _Evidence) -> Check:
    check = Check(name, what)
    try:
        function(check, evidence)
    except ValueError as error:  # scorers refuse labels that are not declared
        check.claim(False, f"cannot be computed from the samples: {error}")
    return check


class _Evidence:
    """A run with all that its claims are held against."""

    def __init__(self, run: Run, root: DataRoot | None, catalogue: Catalogue) -> None:
        self.run = run
        self.root = root
        self.catalogue = catalogue
        self.repeats = self._by_repeat()
        self.split = cache(self._split)
        self.wording = cache(self._wording)

    def _by_repeat(self) -> list[dict[str, list[SampleRow]]]:
        numbers = sorted({row.get("repeat", 0) for rows in self.run.samples.values() for row in rows}) or [0]
        return [
            {task: [row for row in rows if row.get("repeat", 0) == n] for task, rows in self.run.samples.items()}
            for n in numbers
        ]

    def installed(self, task: str) -> TaskFile | None:
        """The task's YAML; None where no such task is installed."""
        file = self.catalogue.files.get(task)
        return None if file is None or file.is_group else file

    def _split(self, task: str) -> Split | str:
        """The test split of the data at hand, or why there is none."""
        file, block = self.installed(task), self.run.tasks[task]
        try:
            beside = dataset_beside(file.path, str(file.config["dataset"])) if file else None
            if beside is None and self.root is None:
                return "no data at hand; --data_dir FOLDER names it"
            return (beside or self._dataset(block["dataset"])).read(
                "test", labels=block["labels"], dimension=block["dimension"], with_clips=False
            )
        except DataError as error:
            return error.what

    def _dataset(self, name: str) -> Dataset:
        assert self.root is not None
        return self.root.dataset(name, labels_of=packaged_labels, with_clips=False)

    def document(self, task: str, row: SampleRow) -> Mapping[str, Any] | None:
        """The row's document with its text, from the data at hand, else from the samples; None for neither."""
        split = self.split(task)
        if isinstance(split, Split) and row["doc_id"] < len(split.documents):
            return split.documents[row["doc_id"]]
        return row["doc"] if "text" in row["doc"] else None

    def _wording(self, task: str, repeat: int) -> Wording | None:
        """How the installed task would ask; None where it is not installed."""
        file, facts = self.installed(task), self.run.facts
        if file is None:
            return None
        return Wording(
            spec=TaskSpec.from_config(file.config),
            modality=self.run.tasks[task]["modality"],
            protocol=facts["protocol"],
            family=family_named(facts.get("released_family") or COMMON.name),
            label_order=str(LabelOrder.read(facts.get("label_order")).later(repeat)),
        )

    @cached_property
    def rebuilt(self) -> list[dict[str, list[dict[str, Any]]]]:
        """Of each repeat: leaf name -> lm-eval's rows, answers parsed again."""
        return [{task: self._rows(task, rows) for task, rows in repeat.items()} for repeat in self.repeats]

    def _rows(self, task: str, rows: Sequence[SampleRow]) -> list[dict[str, Any]]:
        block = self.run.tasks[task]
        rule = "released" if self.run.facts["protocol"] == "paper" else "clean"
        parse = LabelFilter(block["labels"], block["dimension"], rule=rule).parse
        return [_rebuilt(row, parse, block["labels"]) for row in rows]

    @cached_property
    def expected(self) -> dict[str, Any]:
        """Results as they follow from the samples."""
        parts = [self._results(n, rows) for n, rows in enumerate(self.rebuilt)]
        samples = [
            {
                task: [{"answer": answer_evidence(row["filtered_resps"][0])} for row in rows]
                for task, rows in part.items()
            }
            for part in self.rebuilt
        ]
        return json.loads(json.dumps(over_repeats(parts, samples)))  # type: ignore[no-any-return]

    def _results(self, number: int, rows: Rows) -> dict[str, Any]:
        tasks = {task: _scores(rows[task], self.run.tasks[task]["labels"]) for task in rows}
        groups = {
            name: _group_scores(block["tasks"], tasks, self.weighted(name))
            for name, block in self.run.facts["groups"].items()
        }
        order = LabelOrder.read(self.run.facts.get("label_order")).later(number)
        seed = self.run.results["config"]["torch_seed"]
        blocks = {}
        for task in rows:
            wording = self.wording(task, number)
            shown = {"prompt_labels": list(wording.prompt_labels)} if wording else {}
            labels = self.run.tasks[task]["labels"]
            blocks[task] = {
                **scores_block(rows[task], labels),
                "labels": labels,
                **(shown if order.is_shuffled else {}),
            }
        return {
            "results": {**tasks, **groups},
            "groups": groups,
            "config": {"torch_seed": None if seed is None else seed + number},
            "mmla": {
                **({"label_order": str(order)} if order.is_shuffled else {}),
                "tasks": blocks,
                "groups": {name: group_block(b["tasks"], rows) for name, b in self.run.facts["groups"].items()},
            },
        }

    def weighted(self, group: str) -> dict[str, bool]:
        """Metric -> whether the group's average weighs rows (else tasks), by its installed YAML."""
        file = self.catalogue.files.get(group)
        rules = (file.config.get("aggregate_metric_list") or []) if file else []
        return {rule["metric"]: rule.get("weight_by_size", True) for rule in rules}


def _rebuilt(row: SampleRow, parse: Any, labels: Sequence[str]) -> dict[str, Any]:
    """A sample row as lm-eval logged it, its answer parsed again."""
    known = dict(row["response"])
    if "label_scores" in known:  # JSON has lost their order, which decides ties
        given = known["label_scores"]
        known["label_scores"] = {label: given[label] for label in labels if label in given}
    response = Response.from_dict({**known, "response": row["resps"][0][0]})
    answer = parse(response)
    scored = {"acc": float(answer == row["doc"]["label"])} if answer.outcome != "skipped" else {}
    return {**row, **{"resps": [[response]], "filtered_resps": [answer]}, **scored}


def _scores(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """lm-eval's block of one task."""
    from lm_eval.api.metrics import mean_stderr

    scored = [row for row in rows if "acc" in row]
    scores: dict[str, Any] = {"sample_len": len(scored)}
    for name, metric in METRICS.items():
        pairs = [
            score_document(row["doc"]["label"], row["filtered_resps"][0], released=metric.released) for row in scored
        ]
        value = metric(pairs, labels)
        scores[f"{name},none"] = None if math.isnan(value) else value
    scores[f"{HIDDEN_METRIC},none"] = scores["acc,none"]
    hits = [row["acc"] for row in scored]
    for name in ("acc", HIDDEN_METRIC):
        scores[f"{name}_stderr,none"] = mean_stderr(hits) if len(hits) > 1 else "N/A"
    return scores if scored else {"sample_len": 0}


def _group_scores(leaves: Sequence[str], tasks: Mapping[str, Any], weighted: Mapping[str, bool]) -> dict[str, Any]:
    """lm-eval's block of one group, its averages and their standard errors."""
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr

    scores: dict[str, Any] = {"sample_len": sum(tasks[task]["sample_len"] for task in leaves)}
    for metric, by_rows in weighted.items():
        having = [tasks[task] for task in leaves if f"{metric},none" in tasks[task]]
        if not having:
            continue
        sizes = [task["sample_len"] for task in having]
        errors = [task.get(f"{metric}_stderr,none", "N/A") for task in having]
        scores[f"{metric},none"] = aggregate_subtask_metrics([t[f"{metric},none"] for t in having], sizes, by_rows)
        scores[f"{metric}_stderr,none"] = (
            "N/A"
            if "N/A" in errors
            else float(pooled_sample_stderr(errors, sizes) if by_rows else unweighted_mean_stderr(errors))
        )
    return scores


# ------------------------------------------------------------------------------------------------------- the checks


def _check_rows(check: Check, evidence: _Evidence) -> None:
    run = evidence.run
    for task, block in run.tasks.items():
        data, counts = block["data"], block["counts"]
        check.same(f"{task} known_rows", data["known_rows"], _known_rows(block["dataset"], data["known_rows"]))
        check.same(f"{task} difference", data["difference"], _difference(data["rows"], data["known_rows"]))
        check.same(f"{task} n-samples original", run.results["n-samples"][task]["original"], data["rows"])
        for r, repeat in enumerate(evidence.repeats):
            at = task if len(evidence.repeats) == 1 else f"{task} repeat {r}"
            rows = repeat[task]
            check.claim(len(rows) == counts["rows"], f"{at}: {len(rows):,} samples, {counts['rows']:,} rows recorded")
            for kind, key in (("id", lambda row: row["doc"]["id"]), ("doc_id", lambda row: row["doc_id"])):
                for name, count in Counter(map(key, rows)).items():
                    check.claim(count == 1, f"{at}: {kind} {name!r} stands in {count} samples")
            there = {row["doc_id"] for row in rows}
            asked = _asked(run, task)
            for n in sorted(there ^ asked):
                verb = "missing" if n in asked else "there, and was not asked for"
                check.claim(False, f"{at}: the sample of row {n} is {verb}")


def _known_rows(dataset: str, recorded: Any) -> Any:
    return SOURCES[dataset].rows["test"] if dataset in SOURCES else recorded


def _difference(rows: int, known: int | None) -> str | None:
    return None if known is None or rows == known else f"{rows:,} rows where the released file has {known:,}"


def _asked(run: Run, task: str) -> set[int]:
    """Numbers of the rows that the run's own options ask for."""
    config, there = run.results["config"], run.tasks[task]["data"]["rows"]
    limit = config["limit"]
    if config["samples"] is not None:
        rows = sorted(set(config["samples"].get(task, ())))
    elif limit is None:
        rows = list(range(there))
    else:
        rows = list(range(min(there, math.ceil(there * limit) if limit < 1 else int(limit))))
    return set(Shard.read(config["shard"]).of(rows) if "shard" in config else rows)


def _check_data(check: Check, evidence: _Evidence) -> None:
    for task, block in evidence.run.tasks.items():
        split = evidence.split(task)
        if isinstance(split, str):
            check.unchecked.append(f"{task}: {split}")
            continue
        check.same(f"{task} sha256 of {split.path.name}", block["data"]["sha256"], split.sha256)
        check.same(f"{task} rows of {split.path.name}", block["data"]["rows"], len(split.documents))
        for row in evidence.repeats[0][task]:
            if row["doc_id"] >= len(split.documents):
                check.claim(False, f"{_at(task, row)}: the data file has no row {row['doc_id']}")
                continue
            document = split.documents[row["doc_id"]]
            for key in ("id", "label", "text"):
                if key in row["doc"]:
                    check.same(f"{_at(task, row)} {key}", row["doc"][key], document[key])  # type: ignore[literal-required]


def _check_tasks(check: Check, evidence: _Evidence) -> None:
    run = evidence.run
    gone = {item["task"] for item in run.facts["left_out"]}
    few = "shard" in run.results["config"]  # a task with fewer rows than shards is in none but the first ones
    for task, block in run.tasks.items():
        wording = evidence.wording(task, 0)
        if wording is None:
            check.unchecked.append(f"{task} is no installed task; --include_path FOLDER names its YAML")
            continue
        check.same(f"{task} labels", block["labels"], list(wording.spec.labels))
        check.same(f"{task} dataset", block["dataset"], wording.spec.dataset)
        check.same(f"{task} dimension", block["dimension"], wording.spec.dimension)
        check.same(f"{task} version", run.results["versions"][task], TASK_VERSION)
        template = wording.template(block["modality"] != "text")
        check.same(f"{task} wording", run.results["configs"][task]["prompt"], template)
    for name, block in run.facts["groups"].items():
        if name not in evidence.catalogue.files:
            check.unchecked.append(f"group {name} is not installed; --include_path FOLDER names its YAML")
            continue
        leaves = [
            leaf for leaf in evidence.catalogue.leaves(name) if leaf not in gone and not (few and leaf not in run.tasks)
        ]
        check.same(f"group {name} tasks", block["tasks"], leaves)


def _check_prompts(check: Check, evidence: _Evidence) -> None:
    run = evidence.run
    for task, block in run.tasks.items():
        digest = hashlib.sha256(b"".join(bytes.fromhex(row["prompt_hash"]) for row in evidence.repeats[0][task]))
        check.same(f"{task} prompts_sha256", block["prompts_sha256"], digest.hexdigest())
        skipped = Counter(
            why
            for r, rows in enumerate(evidence.repeats)
            for row in rows[task]
            if (why := _check_prompt(check, evidence, task, row, r))
        )
        check.unchecked += [f"{task}: the question in {count:,} prompts: {why}" for why, count in skipped.items()]


def _check_prompt(check: Check, evidence: _Evidence, task: str, row: SampleRow, repeat: int) -> str | None:
    """Check one prompt; say why where its question could not be looked for."""
    sent, at = row["arguments"][0][0], _at(task, row)
    if sent is not None:
        digest = hashlib.sha256(sent.encode()).hexdigest()
        check.claim(digest == row["prompt_hash"], f"{at}: the prompt has not the hash beside it")
    wording, document = evidence.wording(task, repeat), evidence.document(task, row)
    if wording is None:
        return "the task is not installed"
    if document is None:
        return "no texts in a bundle; --data_dir FOLDER names them"
    with_video = wording.modality != "text" and bool(row["doc"]["clip"]) and not row["response"].get("as_text")
    question = wording.question(document, with_video)
    if _is_question_alone(evidence.run, task):
        digest = hashlib.sha256(question.encode()).hexdigest()
        check.claim(digest == row["prompt_hash"], f"{at}: the prompt is not what the installed task asks")
    elif sent is None:
        return "a bundle holds no prompts, and with examples, system prompt or chat template they cannot be made again"
    else:
        check.claim(_holds(sent, question), f"{at}: the prompt does not hold what the installed task asks")
    return None


def _is_question_alone(run: Run, task: str) -> bool:
    examples = run.results["n-shot"].get(task, 0)
    return not (run.facts["chat_template"]["applied"] or examples or run.results["config"]["system_instruction"])


def _holds(sent: str, question: str) -> bool:
    """Whether a prompt holds the question; a chat template may put something else for the video, and trim."""
    at, words = 0, _words(sent)
    for part in question.split(VIDEO):
        found = words.find(part.strip(), at)
        if found < 0:
            return False
        at = found + len(part.strip())
    return True


def _words(sent: str) -> str:
    """The texts of a prompt that is a chat's messages as JSON, as servers get it; any other prompt as it is."""
    try:
        messages = json.loads(sent)
    except ValueError:
        return sent
    if not isinstance(messages, list) or not all(isinstance(one, dict) and "content" in one for one in messages):
        return sent
    return "\n".join(str(message["content"]) for message in messages)


def _check_answers(check: Check, evidence: _Evidence) -> None:
    for task, row, again in _all_rows(evidence):
        answer = answer_evidence(again["filtered_resps"][0])
        check.same(_at(task, row), row["answer"], answer)
        check.same(f"{_at(task, row)} filtered_resps", row["filtered_resps"], [answer["label"]])


def _check_golds(check: Check, evidence: _Evidence) -> None:
    for task, row, again in _all_rows(evidence):
        at, wording, block = _at(task, row), evidence.wording(task, 0), evidence.run.tasks[task]
        label = row["doc"]["label"]
        check.claim(label in block["labels"], f"{at}: gold label {label!r} is not declared")
        target = f"{wording.dimension if wording else block['dimension']}: {label}"
        check.claim(row["target"] == target, f"{at}: gold label {label!r}, target {row['target']!r}")
        digest = hashlib.sha256(row["target"].encode()).hexdigest()
        check.claim(row["target_hash"] == digest, f"{at}: the target has not the hash beside it")
        check.same(f"{at} acc", row.get("acc"), again.get("acc") if row["answer"]["outcome"] != "skipped" else None)


def _check_probabilities(check: Check, evidence: _Evidence) -> None:
    ranked = evidence.run.facts["answer"] == "rank"
    for task, row, again in _all_rows(evidence):
        at, response, labels = _at(task, row), again["resps"][0][0], evidence.run.tasks[task]["labels"]
        if response.skipped or not (ranked or response.label_scores):
            continue
        scores = response.label_scores or {}
        check.claim(list(scores) == labels, f"{at}: label scores of {', '.join(scores) or 'no label'}")
        if scores:
            check.same(at, row, label_probabilities(response))
            best = scores.get(str(again["filtered_resps"][0])) == max(scores.values())
            check.claim(best, f"{at}: the answer is not the label with the highest score")


def _check_metrics(check: Check, evidence: _Evidence) -> None:
    run, expected = evidence.run, evidence.expected
    for task in run.tasks:
        check.same(task, run.results["results"][task], expected["results"][task])
        scored = expected["results"][task]["sample_len"]
        check.same(f"{task} n-samples effective", run.results["n-samples"][task]["effective"], scored)


def _blocks(*keys: str) -> CheckFunction:
    """Check some keys of every task's block."""

    def check_blocks(check: Check, evidence: _Evidence) -> None:
        for task, block in evidence.run.tasks.items():
            ours = evidence.expected["mmla"]["tasks"][task]
            check.same(task, block, {key: ours[key] for key in keys if key in ours})

    return check_blocks


def _check_bad_clips(check: Check, evidence: _Evidence) -> None:
    for task, block in evidence.run.tasks.items():
        ours = evidence.expected["mmla"]["tasks"][task]
        for key in ("bad_clips", "acc_all_rows", "acc_with_video"):
            check.same(f"{task} {key}", block.get(key), ours.get(key))
        for name in block.get("bad_clips", {}).keys() - ours.get("bad_clips", {}).keys():
            check.claim(False, f"{task} id {name}: a bad clip is recorded, and the row was shown its clip")


def _check_groups(check: Check, evidence: _Evidence) -> None:
    run, expected = evidence.run, evidence.expected
    for name in run.facts["groups"]:
        check.same(f"group {name}", run.results["results"][name], expected["results"][name])
        check.same(f"group {name} in groups", run.results["groups"][name], expected["groups"][name])
        check.same(f"group {name}", run.facts["groups"][name], expected["mmla"]["groups"][name])


def _check_repeats(check: Check, evidence: _Evidence) -> None:
    recorded = evidence.run.facts.get("repeats", {})
    count, there = recorded.get("count", 1), len(evidence.repeats)
    check.claim(count == there, f"results of {count}, and samples of {there}")
    if block := evidence.expected["mmla"].get("repeats"):
        check.same("spread:", recorded, block)


def _check_notes(check: Check, evidence: _Evidence) -> None:
    notes = evidence.run.facts["notes"]
    for note in _due_notes(evidence):
        check.claim(any(n.startswith(note) for n in notes), f"the note is missing: {note}")
    if trained := evidence.run.facts.get("training"):
        check.same("method", evidence.run.facts.get("method"), method_of(trained))


def _due_notes(evidence: _Evidence) -> Iterator[str]:
    """Beginnings of the notes that the run must carry, by its samples and blocks."""
    yield from sentences(evidence.run.facts.get("training", ()))
    run = evidence.run
    facts, root = run.facts, run.facts["data"]["root"]
    is_sample = root is not None and root["kind"] == "sample"
    if is_sample or any(row.get("note") == SAMPLE_NOTE for _, row, _ in _all_rows(evidence)):
        yield SAMPLE_NOTE
    if "mmla-echo" in (run.results["config"]["model"], facts["model"].get("backend")):
        yield "answers by the echo rule"
    asked = sum(len(rows) for rows in evidence.repeats[0].values())
    there = sum(block["data"]["rows"] for block in run.tasks.values())
    if "shard" in run.results["config"]:
        yield f"{Shard.read(run.results['config']['shard'])}: a partial set, {asked:,} of {there:,} rows"
    elif asked < there:
        yield f"a partial set: {asked:,} of {there:,} rows"
    if facts["left_out"]:
        yield "not asked: "
    order = LabelOrder.read(facts.get("label_order"))
    if len(evidence.repeats) > 1:
        yield f"mean ± standard deviation of {len(evidence.repeats)} repeats"
    elif order.is_shuffled:
        yield f"labels {order}"
    for task, rows in evidence.rebuilt[0].items():
        data = run.tasks[task]["data"]
        difference = _difference(data["rows"], _known_rows(run.tasks[task]["dataset"], data["known_rows"]))
        if difference and not is_sample:
            yield f"{task}: {difference}"
        if skipped := sum("acc" not in row for row in rows):
            yield f"{task}: {skipped:,} rows skipped because of bad clips"
        if as_text := sum(row["resps"][0][0].as_text for row in rows):
            yield f"{task}: {as_text:,} rows asked without their video because of bad clips"


def _check_card(check: Check, evidence: _Evidence) -> None:
    file = evidence.run.path / SCORE_CARD
    if not file.is_file():
        check.claim(False, f"{SCORE_CARD} is missing")
        return
    recorded, expected = (
        text.splitlines() for text in (file.read_text(encoding="utf-8"), score_card(evidence.run.results))
    )
    check.claim(len(recorded) == len(expected), f"{SCORE_CARD}: {len(recorded)} lines, {len(expected)} expected")
    for n, (theirs, ours) in enumerate(zip(recorded, expected, strict=False), 1):
        check.claim(theirs == ours, f"{SCORE_CARD} line {n}: {_shown(theirs)} recorded, {_shown(ours)} expected")


CHECKS: tuple[tuple[str, str, CheckFunction], ...] = (
    ("rows", "every row there once, none missing, counts as known", _check_rows),
    ("data files", "SHA-256, ids, texts and labels of the data at hand", _check_data),
    ("tasks", "labels, wording and version of the installed tasks; members of groups", _check_tasks),
    ("prompts", "hashes, and the question as the installed task puts it", _check_prompts),
    ("answers", "every raw answer parsed again, by both rules", _check_answers),
    ("gold labels", "target, its hash, and whether the answer is right", _check_golds),
    ("label probabilities", "softmax of the label scores; the best label is the answer", _check_probabilities),
    ("metrics", "every metric of every task, from the parsed answers", _check_metrics),
    ("intervals", "Wilson's and the bootstrap's, drawn again", _blocks("intervals")),
    ("per class", "precision, recall, F1 and support of each label", _blocks("per_class")),
    ("confusion", "every cell of the confusion matrices", _blocks("confusion")),
    (
        "counts",
        "asked, skipped, unparsed, truncated, by outcome",
        _blocks("counts", "acc_length_normalised", "prompt_labels"),
    ),
    ("bad clips", "rows that were not shown theirs, why, and accuracy over all rows", _check_bad_clips),
    ("baselines", "always the majority label; guessing by label shares", _blocks("baselines")),
    ("group averages", "over rows and over datasets, with errors and intervals", _check_groups),
    ("repeats", "means, spreads and agreement over repeats", _check_repeats),
    ("notes", "what must stand beside the scores: limits, sample data, training, rows left out", _check_notes),
    ("score card", "its text, from the results", _check_card),
)
"""Name, what is compared with what, and how; in the order of a sample's life."""


def remarks(run: Run) -> list[str]:
    """What a reader of the checks must know besides."""
    lines = []
    for name in ("mmla-eval", "numpy", "lm_eval"):
        written, here = run.facts["versions"].get(name), importlib.metadata.version(name)
        if written != here:
            lines.append(f"written with {name} {written}, checked with {here}: a deviation may come from that")
    if is_bundle(run):
        lines.append("a bundle: texts and prompts are not in it")
    return lines


def _all_rows(evidence: _Evidence) -> Iterator[tuple[str, SampleRow, Mapping[str, Any]]]:
    """Task, recorded row and rebuilt row of every sample."""
    for repeat, rebuilt in zip(evidence.repeats, evidence.rebuilt, strict=True):
        for task, rows in repeat.items():
            yield from ((task, row, again) for row, again in zip(rows, rebuilt[task], strict=True))


def _at(task: str, row: SampleRow) -> str:
    repeat = f" repeat {row['repeat']}" if "repeat" in row else ""
    return f"{task} id {row['doc']['id']}{repeat}"


def _equal(recorded: Any, expected: Any) -> bool:
    if isinstance(recorded, float) and isinstance(expected, float):
        same_nan = math.isnan(recorded) and math.isnan(expected)
        return same_nan or math.isclose(recorded, expected, rel_tol=1e-9, abs_tol=1e-12)
    return type(recorded) is type(expected) and bool(recorded == expected)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:160]}…"
