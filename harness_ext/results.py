"""From lm-eval's evaluation to results that can be checked: its own schema plus one `mmla` block.

Everything here is a function of answers, tasks and options; two equal commands give equal bytes but for `date` and
`timings`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness_ext.frame_policy import FramePolicy
from harness_ext.label_order import LabelOrder
from harness_ext.masking import masked
from harness_ext.plugin import backend_class
from harness_ext.released import COMMON, family_named
from harness_ext.training import method_of, sentences
from harness_ext.usage import Prices, usage_of
from mmla_tasks.records import Answer
from mmla_tasks.root import SAMPLE_NOTE, DataRoot
from mmla_tasks.scorers import confusion_matrix, outcome_counts, per_class
from mmla_tasks.statistics import majority_baseline, metric_intervals, prior_baseline, wilson_interval

if TYPE_CHECKING:
    from harness_ext.run import RunOptions

SCHEMA = 1
"""Version of the `mmla` block; raised when a reader of older results would misread it."""

_PACKAGES = ("mmla-eval", "lm_eval", "numpy", "scikit-learn", "jinja2")


@dataclass(frozen=True)
class LeftOut:
    """A task that was asked for and not run."""

    task: str
    dataset: str
    why: str
    next_step: str


def build_results(
    evaluated: Mapping[str, Any],
    loaded: Mapping[str, Any],
    backend: Any,
    options: RunOptions,
    *,
    left_out: Sequence[LeftOut],
    root: DataRoot | None,
) -> dict[str, Any]:
    """Put results together.

    Args:
        evaluated: What ``lm_eval.evaluator.evaluate`` returned, samples included.
        loaded: Its ``tasks`` and ``groups``.
        backend: The model that answered.
        options: The run's options.
        left_out: Tasks that had no clips.
        root: Where the data came from; None when every task brought its own file.
    """
    tasks = loaded["tasks"]
    trained = backend.trainings(list(tasks)) if hasattr(backend, "trainings") else []
    schema = {k: v for k, v in evaluated.items() if k != "samples"}
    return {
        **schema,
        "results": {name: _without_nan(values) for name, values in schema["results"].items()},
        "config": _config(backend, options),
        "mmla": {
            "schema": SCHEMA,
            "notes": [*_notes(tasks, evaluated, options, left_out, root, backend), *sentences(trained)],
            "model": model_identity(backend),
            **_training(trained),
            "answer": options.answer_mode,
            "protocol": options.protocol,
            **({"released_family": options.released_family} if options.released_family else {}),
            "modality": options.modality or "as the tasks say",
            **_label_order(options),
            "chat_template": _chat_template(backend, options),
            "frame_policy": _frame_policy(backend, tasks),
            "decoding": {name: dict(task.config.generation_kwargs) for name, task in tasks.items()},
            "on_bad_clip": options.on_bad_clip,
            "versions": _versions(backend),
            "data": {"root": asdict(root) if root else None},
            "tasks": {name: _task_block(task, evaluated["samples"][name]) for name, task in tasks.items()},
            "groups": {
                name: group_block([task.task_name for task in group.get_all_tasks()], evaluated["samples"])
                for name, group in loaded["groups"].items()
            },
            "left_out": [asdict(item) for item in left_out],
            **_usage(tasks, options),
        },
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "timings": {},
    }


def sample_rows(rows: Sequence[Mapping[str, Any]], note: str | None = None) -> Iterator[dict[str, Any]]:
    """One row per document for the samples file: lm-eval's keys, what was said, and what it means.

    Args:
        rows: lm-eval's logged samples of one task.
        note: What must stand beside every row.

    The pairs that every corpus metric reduces are left out: gold and answer already say them.
    """
    for row in rows:
        response, answer = row["resps"][0][0], row["filtered_resps"][0]
        prompt = response.prompt or row["arguments"][0][0]
        yield {
            **({"note": note} if note else {}),
            "doc_id": row["doc_id"],
            "doc": _portable(row["doc"]),
            "target": row["target"],
            "arguments": [[prompt, row["arguments"][0][1]]],
            "resps": [[str(response)]],
            "filtered_resps": [str(answer)],
            "answer": answer_evidence(answer),
            "response": {k: v for k, v in response.to_dict().items() if k not in ("response", "prompt")},
            **label_probabilities(response),
            "filter": row["filter"],
            **({"acc": row["acc"]} if "acc" in row else {}),
            "doc_hash": row["doc_hash"],
            "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
            "target_hash": row["target_hash"],
        }


def answer_evidence(answer: Answer) -> dict[str, Any]:
    """What was read in a raw answer, and how."""
    return {
        "label": str(answer),
        "outcome": answer.outcome,
        "rule": answer.rule,
        "released": answer.released,
        "truncated": answer.truncated,
    }


def _portable(document: Mapping[str, Any]) -> dict[str, Any]:
    clip = document["clip"]
    return {**document, "clip": {k: v for k, v in clip.items() if k != "mtime_ns"} if clip else None}


def probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """Label probabilities: softmax of the labels' log-probabilities."""
    top = max(scores.values())
    weights = {label: math.exp(score - top) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def length_normalised(scores: Mapping[str, float], tokens: Mapping[str, int] | None) -> str:
    """The label with the highest log-probability per token (the first one on a tie)."""
    counts = tokens or {}
    return max(scores, key=lambda label: scores[label] / max(counts.get(label, 1), 1))


def label_probabilities(response: Any) -> dict[str, Any]:
    """What follows from the label scores of a ranked answer; nothing for other answers."""
    if not response.label_scores:
        return {}
    return {
        "probabilities": probabilities(response.label_scores),
        "length_normalised": length_normalised(response.label_scores, response.label_tokens),
    }


def _task_block(task: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything about one task that lm-eval's schema has no place for."""
    return {
        "dataset": task.spec.dataset,
        "dimension": task.spec.dimension,
        "modality": task.modality,
        "labels": list(task.spec.labels),
        **({"prompt_labels": list(task.prompt_labels)} if task.choices.label_order else {}),
        "data": _data_block(task),
        **scores_block(rows, task.spec.labels),
        "prompts_sha256": _prompts_digest(rows),
    }


def scores_block(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Everything about one task's scores that follows from its answers alone.

    Args:
        rows: lm-eval's logged samples.
        labels: The declared labels.
    """
    responses = [row["resps"][0][0] for row in rows]
    answers = [row["filtered_resps"][0] for row in rows]
    scored = [(row["doc"]["label"], str(row["filtered_resps"][0])) for row in rows if "acc" in row]
    released = [(row["doc"]["label"], row["filtered_resps"][0].released) for row in rows if "acc" in row]
    golds = [gold for gold, _ in scored]
    bad_clips = bad_clips_block(rows)
    return {
        "counts": _counts(responses, answers),
        **bad_clips,
        "intervals": {**metric_intervals(scored, released, labels), **_interval_of_all_rows(bad_clips, rows)},
        "baselines": {"majority": majority_baseline(golds, labels), "prior": prior_baseline(golds, labels)},
        "per_class": per_class(scored, labels),
        "confusion": confusion_matrix(scored, labels),
        **_rank_block(rows),
    }


def bad_clips_block(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which rows were not shown their clip, and the accuracies that follow beside `acc`; nothing where all were.

    `acc` is over the answered rows. `acc_all_rows` is over all, a skipped one counted as wrong; `acc_with_video` over
    those that were asked with their clip, None where there is none.

    Args:
        rows: lm-eval's logged samples.
    """
    faults = {row["doc"]["id"]: fault for row in rows if (fault := row["resps"][0][0].clip_fault)}
    if not faults:
        return {}
    shown = [row["acc"] for row in rows if "acc" in row and not row["resps"][0][0].as_text]
    return {
        "bad_clips": faults,
        "acc_all_rows": _correct(rows) / len(rows),
        "acc_with_video": sum(shown) / len(shown) if shown else None,
    }


def _interval_of_all_rows(bad_clips: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"acc_all_rows": wilson_interval(_correct(rows), len(rows))} if bad_clips else {}


def _correct(rows: Sequence[Mapping[str, Any]]) -> int:
    return int(sum(row.get("acc", 0) for row in rows))


def _usage(tasks: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """Tokens and cost, for a backend that is paid by the token; merged shards have no backend, only its options."""
    backend = backend_class(options.model)
    if not getattr(backend, "PAID_BY_TOKEN", False):
        return {}
    asked = [(instance.request, instance.resps[0]) for task in tasks.values() for instance in task.instances]
    return {"usage": usage_of(asked, Prices.of(options.model_args), deterministic=backend.deterministic)}


def _data_block(task: Any) -> dict[str, Any]:
    split = task.split("test")
    return {
        "file": split.path.name,
        "sha256": split.sha256,
        "rows": len(split.documents),
        "known_rows": split.known_rows,
        "difference": split.difference,
        "commit": task.root.commit(task.spec.dataset) if task.root else None,
    }


def _counts(responses: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any]:
    outcomes = outcome_counts(answers)
    answered = len(answers) - outcomes["skipped"]
    return {
        "rows": len(answers),
        "asked": answered,
        "skipped": outcomes["skipped"],
        "as_text": sum(response.as_text for response in responses),
        "unparsed": answered - outcomes["matched"],
        "truncated": sum(answer.truncated for answer in answers),
        "outcomes": outcomes,
    }


def _rank_block(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy by log-probability per token, beside the one by summed log-probability that `acc` is."""
    scored = [(row["doc"]["label"], row["resps"][0][0]) for row in rows]
    ranked = [(gold, response) for gold, response in scored if response.label_scores]
    if not ranked:
        return {}
    hits = sum(length_normalised(r.label_scores, r.label_tokens) == gold for gold, r in ranked)
    return {"acc_length_normalised": hits / len(ranked)}


def group_block(tasks: Sequence[str], samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Everything about one group that lm-eval's schema has no place for.

    Args:
        tasks: Its leaf tasks.
        samples: Leaf name -> lm-eval's logged samples.
    """
    rows = [row for task in tasks for row in samples[task]]
    scored = [row for row in rows if "acc" in row]
    bad_clips = bad_clips_block(rows)
    return {
        "tasks": list(tasks),
        "rows": len(scored),
        **{name: value for name, value in bad_clips.items() if name != "bad_clips"},  # ids are those of the tasks
        "intervals": {
            "acc": wilson_interval(_correct(scored), len(scored)),
            **_interval_of_all_rows(bad_clips, rows),
        },
    }


def _notes(
    tasks: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    options: RunOptions,
    left_out: Sequence[LeftOut],
    root: DataRoot | None,
    backend: Any,
) -> Iterator[str]:
    """What must stand beside every score of this run."""
    if root is not None and root.is_sample:
        yield SAMPLE_NOTE
    if options.model == "mmla-echo":
        yield f"answers by the echo rule `{backend.rule}`, not by a model: scores mean nothing"
    yield from _repeat_notes(options)
    asked = sum(len(rows) for rows in evaluated["samples"].values())
    there = sum(len(task.eval_docs) for task in tasks.values())
    if options.part:
        yield f"{options.part}: a partial set, {asked:,} of {there:,} rows"
    elif asked < there:
        how = f"--limit {options.limit:g}" if options.limit is not None else "--samples"
        yield f"a partial set: {asked:,} of {there:,} rows ({how})"
    yield from _unreleased(backend, options)
    if left_out:
        names = ", ".join(item.dataset for item in left_out)
        total = len(left_out) + len(tasks)
        yield f"not asked: {names} (no clips): this is {len(tasks)} of {total} tasks, not the benchmark average"
    for name, task in tasks.items():
        split = task.split("test")
        if split.difference and not (root is not None and root.is_sample):
            yield f"{name}: {split.difference}"
        skipped = sum("acc" not in row for row in evaluated["samples"][name])
        if skipped:
            yield f"{name}: {skipped:,} rows skipped because of bad clips; scores are over the rest"
        as_text = sum(row["resps"][0][0].as_text for row in evaluated["samples"][name])
        if as_text:
            yield f"{name}: {as_text:,} rows asked without their video because of bad clips"


def _unreleased(backend: Any, options: RunOptions) -> Iterator[str]:
    """What ``--protocol paper`` could not reproduce, or was told not to."""
    if options.protocol != "paper" or options.released_family is None:
        return
    family = family_named(options.released_family)
    if family is COMMON:
        yield "no released settings are known for this model: released wording and parsing, clean frames and decoding"
    policy = getattr(backend, "frame_policy", None)
    if policy is not None and family.frames:
        released = FramePolicy.from_args(**family.frames, video_reader=policy.reader)
        if policy != released:
            yield f"frames differ from the released ones of {family.name} ({released.describe()})"
    if options.gen_kwargs:
        yield f"decoding differs from the released one: --gen_kwargs {dict(options.gen_kwargs)}"


def _repeat_notes(options: RunOptions) -> Iterator[str]:
    order = LabelOrder.read(options.label_order)
    last = options.repeats - 1
    if options.repeats == 1:
        if order.is_shuffled:
            yield f"labels {order}: the prompt lists them in a drawn order"
        return
    to = f"labels {order} to {order.later(last)}" if order.is_shuffled else "labels as declared"
    seeds = "" if options.seed[2] is None else f", torch seeds {options.seed[2]} to {options.seed[2] + last}"
    yield f"mean ± standard deviation of {options.repeats} repeats: {to}{seeds}; intervals span all repeats"


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: (None if isinstance(value, float) and math.isnan(value) else value) for key, value in values.items()}


def _config(backend: Any, options: RunOptions) -> dict[str, Any]:
    """lm-eval's ``config`` block."""
    return {
        "model": options.model,
        "model_args": masked(options.model_args),
        "batch_size": options.batch_size,
        "limit": options.limit,
        "samples": dict(options.samples) if options.samples is not None else None,
        **({"shard": options.shard} if options.shard else {}),
        "gen_kwargs": dict(options.gen_kwargs) or None,
        "num_fewshot": options.num_fewshot,
        **_label_order(options),
        "system_instruction": options.system_instruction,
        **dict(zip(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), options.seed, strict=False)),
        "command": options.command,
    }


def _label_order(options: RunOptions) -> dict[str, str]:
    """The order of the labels in the prompt, where it is not the declared one."""
    order = LabelOrder.read(options.label_order)
    return {"label_order": str(order)} if order.is_shuffled else {}


def model_identity(backend: Any) -> dict[str, Any]:
    """What the answers of a run depend on as far as the model goes, the adapters of all tasks included."""
    adapters = getattr(backend, "adapters", None)
    identity = dict(backend.identity()) if hasattr(backend, "identity") else {}
    return {**identity, "peft": adapters.identity} if adapters is not None else identity


def _training(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the model or its adapters were trained; nothing for a model as its makers published it."""
    return {"method": method_of(blocks), "training": list(blocks)} if blocks else {}


def _chat_template(backend: Any, options: RunOptions) -> dict[str, Any]:
    from harness_ext.run import chat_template_applied

    applied = chat_template_applied(backend, options)
    text = (
        backend.chat_template(options.apply_chat_template or True)
        if applied and hasattr(backend, "chat_template")
        else None
    )
    return {"applied": applied, "sha256": hashlib.sha256(text.encode()).hexdigest() if text else None}


def _frame_policy(backend: Any, tasks: Mapping[str, Any]) -> dict[str, Any] | None:
    policy = getattr(backend, "frame_policy", None)
    if policy is None or not any(task.has_video for task in tasks.values()):
        return None
    return dict(policy.to_dict())


def _versions(backend: Any) -> dict[str, str]:
    """Those that the answers were made with."""
    if hasattr(backend, "versions"):
        return dict(backend.versions)
    names = (*_PACKAGES, *getattr(backend, "PACKAGES", ()))
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _prompts_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        prompt = row["resps"][0][0].prompt or row["arguments"][0][0]
        digest.update(hashlib.sha256(prompt.encode()).digest())
    return digest.hexdigest()
