"""A run as the Hub's evaluation files, written to a folder, and as a pull request on a model repository.

What the Hub documents and what is assumed here: docs/publishing.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness_ext.reports.benchmark import AVERAGE, Standing, settings_of, standings, task_ids, why_no_score
from harness_ext.reports.console import interval
from harness_ext.reports.run_files import Run
from harness_ext.reports.table import Row, method_of
from mmla_tasks.errors import MmlaError, UsageError
from mmla_tasks.sources import HUB_REPOSITORY, SOURCES

MODEL_FILES = "model"
"""Subfolder for the model repository; its ``.eval_results/`` is what `push_hub_files` proposes."""
DATASET_FILES = "dataset"
"""Subfolder for the dataset repository: the proposed ``eval.yaml``."""
FRAMEWORK = "mmla-eval"
"""Identifier of the evaluation framework in ``eval.yaml``."""
TOKEN_VARIABLE = "HF_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the Hub files to a command."""
    add = parser.add_argument_group("Hub files").add_argument
    add(
        "--hub_files",
        type=Path,
        metavar="FOLDER",
        help="write .eval_results/*.yaml and model_index.yaml for the model, and a proposed eval.yaml for the dataset",
    )
    add(
        "--push",
        metavar="OWNER/MODEL",
        help=f"propose .eval_results/ to this model repository as a pull request ({TOKEN_VARIABLE} is asked for)",
    )


def handle(args: argparse.Namespace, runs: Sequence[Run], say: Callable[[str], None]) -> None:
    """Do what the flags of `add_arguments` say; nothing without them.

    Raises:
        UsageError: ``--push`` without ``--hub_files``, several runs, or a run without benchmark scores.
        MmlaError: the Hub refused.
    """
    if args.hub_files is None:
        if args.push:
            raise UsageError("--push needs the files it pushes", next=f"--hub_files FOLDER --push {args.push}")
        return
    if len(runs) != 1:
        raise UsageError("--hub_files describes one run", given=len(runs), next="name one run folder")
    for path in write_hub_files(runs[0], args.hub_files):
        say(f"wrote {path}")
    if args.push:
        say(f"proposed {push_hub_files(runs[0], args.push)}")


# ------------------------------------------------------------------------------------------------------------ writing


def write_hub_files(run: Run, folder: Path) -> list[Path]:
    """Write the files of a run.

    Returns:
        The files: ``model/.eval_results/*.yaml``, one per modality, ``model/model_index.yaml``, ``dataset/eval.yaml``.

    Raises:
        UsageError: nothing in the run is a benchmark score.
        MmlaError: the folder cannot be written.
    """
    texts = {
        **{Path(MODEL_FILES, name): text for name, text in eval_results(run).items()},
        Path(MODEL_FILES, "model_index.yaml"): _yaml({"model-index": model_index(run)}),
        Path(DATASET_FILES, "eval.yaml"): dataset_eval_yaml(),
    }
    for name, text in texts.items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise MmlaError("a Hub file cannot be written", file=folder / name, why=error.strerror or error) from None
    return [folder / name for name in texts]


def eval_results(run: Run) -> dict[str, str]:
    """Path in the model repository -> content: one file per modality, since the Hub wants variants apart.

    Raises:
        UsageError: nothing in the run is a benchmark score.
    """
    from huggingface_hub import eval_result_entries_to_yaml

    return {
        f".eval_results/{_file_name(standing)}": _yaml(eval_result_entries_to_yaml(list(_entries(standing))))
        for standing in publishable(run)
    }


def publishable(run: Run) -> list[Standing]:
    """The parts of a run that hold benchmark scores.

    A part with some whole tasks counts with these and without the average.

    Raises:
        UsageError: there is none.
    """
    reason = why_no_score(run)
    if reason:
        raise UsageError(f"{run.path} holds no benchmark scores", why=reason, next="publish a run over the test sets")
    parts = standings(run)
    whole = [part for part in parts if part.tasks]
    if not whole:
        faults = {task: why for part in parts for task, why in part.faults.items() if why != "not asked"}
        raise UsageError(f"{run.path} holds no whole task", faults, next="run the tasks over all their test rows")
    return whole


def _entries(standing: Standing) -> Iterator[Any]:
    from huggingface_hub import EvalResultEntry

    settings, date = _notes(standing), _iso_date(standing.run)
    if standing.is_whole:
        over_rows, over_datasets = standing.averages()
        assert over_rows.low is not None and over_rows.high is not None
        rows = sum(row.rows for row in standing.rows().values())
        yield EvalResultEntry(
            dataset_id=HUB_REPOSITORY,
            task_id=AVERAGE,
            value=round(over_rows.acc, 2),
            dataset_revision=_revision(standing, list(standing.tasks)),
            date=date,
            notes=f"{settings}; accuracy over all {rows:,} test rows, 95 % interval "
            f"{interval(over_rows.low, over_rows.high)}; mean of datasets {over_datasets.acc:.2f}",
        )
    for task_id, row in standing.rows().items():
        yield EvalResultEntry(
            dataset_id=HUB_REPOSITORY,
            task_id=task_id,
            value=round(_accuracy(row), 2),
            dataset_revision=_revision(standing, [task_id]),
            date=date,
            notes=f"{settings}; accuracy over {row.rows:,} test rows, 95 % interval {interval(row.low, row.high)}",
        )


def model_index(run: Run) -> list[dict[str, Any]]:
    """The same in the form that model cards held before: the value of ``model-index`` in a card's metadata.

    Raises:
        UsageError: nothing in the run is a benchmark score.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = [result for standing in publishable(run) for result in _card_results(standing)]
    index: list[dict[str, Any]] = eval_results_to_model_index(run.model, results)
    return index


def _card_results(standing: Standing) -> Iterator[Any]:
    if standing.is_whole:
        over_rows, over_datasets = standing.averages()
        means = {"accuracy over all test rows": over_rows.acc, "mean accuracy of datasets": over_datasets.acc}
        yield from _card_metrics(standing, "MMLA", "default", list(standing.tasks), means)
    for task_id, row in standing.rows().items():
        told = {"accuracy": _accuracy(row), "weighted F1": row.weighted_f1, "macro F1": row.macro_f1}
        yield from _card_metrics(standing, f"MMLA {row.dataset}", row.dataset, [task_id], told)


def _card_metrics(
    standing: Standing, name: str, config: str, tasks: Sequence[str], metrics: Mapping[str, float | None]
) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    for metric, value in metrics.items():
        if value is not None:
            yield EvalResult(
                task_type="text-generation" if standing.modality == "text" else "video-text-to-text",
                task_name=_notes(standing),
                dataset_type=HUB_REPOSITORY,
                dataset_name=name,
                dataset_config=config,
                dataset_split="test",
                dataset_revision=_revision(standing, tasks),
                metric_type="accuracy" if "accuracy" in metric else "f1",
                metric_name=metric,
                metric_value=round(value, 2),
            )


def dataset_eval_yaml() -> str:
    """The benchmark registration that the dataset repository would need: a proposal to its owners."""
    rows = sum(source.rows["test"] or 0 for source in SOURCES.values())
    head = {
        "name": "MMLA",
        "description": (
            f"How well a model understands people on video: intent, emotion, dialogue act, sentiment, speaking style "
            f"and communication behavior, in twelve tasks with {rows:,} test utterances. The value is accuracy in "
            f"percent over the declared labels; `{AVERAGE}` is the accuracy over all test rows."
        ),
        "evaluation_framework": FRAMEWORK,
    }
    tasks = [
        {"id": AVERAGE, "config": "default", "split": "test"},
        *({"id": task_id, "config": dataset, "split": "test"} for task_id, dataset in task_ids().items()),
    ]
    return _yaml({**head, "tasks": tasks})


def _accuracy(row: Row) -> float:
    assert row.acc is not None  # a whole task has rows
    return row.acc


def _notes(standing: Standing) -> str:
    method = method_of(standing.run.results).replace("_", "-")
    return f"{method}; {settings_of(standing.run, standing.modality)}"


def _file_name(standing: Standing) -> str:
    facts = standing.run.facts
    parts = ("mmla", method_of(standing.run.results), standing.modality, facts["answer"], facts["protocol"])
    return "_".join(parts).replace("+", "_") + ".yaml"


def _revision(standing: Standing, tasks: Sequence[str]) -> str | None:
    """The dataset's commit, where the texts came from the Hub and all from one commit."""
    commits = {standing.run.tasks[standing.tasks[task]]["data"]["commit"] for task in tasks}
    return commits.pop() if len(commits) == 1 else None


def _iso_date(run: Run) -> str:
    return datetime.strptime(run.results["date"], "%Y-%m-%dT%H:%M:%S%z").isoformat()


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text


# ------------------------------------------------------------------------------------------------------------ pushing


def push_hub_files(run: Run, repository: str) -> str:
    """Open a pull request with the ``.eval_results/`` files on a model repository.

    Returns:
        Address of the pull request.

    Raises:
        UsageError: no token in the environment, a name that is no repository, or a run without benchmark scores.
        MmlaError: the Hub refused, or cannot be reached.
    """
    files = eval_results(run)
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise UsageError("--push needs a token", next=f"export {TOKEN_VARIABLE}=...; it is never written or printed")
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        commit = HfApi(token=token).create_commit(
            repository,
            [CommitOperationAdd(path, text.encode()) for path, text in files.items()],
            commit_message="Add MMLA evaluation results",
            commit_description=_description(run),
            create_pr=True,
        )
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise MmlaError(
            "the Hub did not take the pull request",
            repository=repository,
            why=f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}".replace(token, "***")[:300],
            next="check the name, and that the token may write; the files are in --hub_files",
        ) from None
    return str(commit.pr_url or f"nothing: these very files are there, {commit.commit_url}")


def _description(run: Run) -> str:
    versions, parts = run.facts["versions"], publishable(run)
    lines = [f"MMLA scores of {run.model}: mmla-eval {versions['mmla-eval']} on lm_eval {versions['lm_eval']}."]
    for part in parts:
        lines.append(f"\n- {_notes(part)}: {len(part.tasks)} of {len(task_ids())} tasks")
        lines.extend(f"  - without {task}: {why}" for task, why in part.faults.items())
    return "\n".join(lines)
