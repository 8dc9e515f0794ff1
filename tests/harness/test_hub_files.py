"""Hub files load back through huggingface_hub, say what was measured, and leave out what was not."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness_ext import evaluate
from harness_ext.reports.hub_files import add_arguments, eval_results, handle, push_hub_files, write_hub_files
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import MmlaError, UsageError
from mmla_tasks.published import leaderboard_average, published

from .loopback_hub import TOKEN, Hub
from .whole_runs import grown, without, write_run

MELD = "mmla_emotion_meld_text"
Results = dict[str, Any]


@pytest.fixture
def whole(small: Results) -> Results:
    """A run that scores what Qwen2-7B is published with."""
    return grown(small, "Qwen2-7B", {d: acc / 100 for d, acc in published("zero_shot")["Qwen2-7B"].items()})


def entries(folder: Path, tmp_path: Path) -> list[Any]:
    write_hub_files(read_run(folder), tmp_path / "hub")
    files = list((tmp_path / "hub" / "model" / ".eval_results").iterdir())
    return parse_eval_result_entries(yaml.safe_load(files[0].read_text(encoding="utf-8")))


def test_entries_load_back(whole: Results, tmp_path: Path) -> None:
    average, *tasks = entries(write_run(tmp_path / "run", whole), tmp_path)
    assert (average.dataset_id, average.task_id) == ("THUIAR/MMLA-Datasets", "mmla")
    assert average.value == pytest.approx(leaderboard_average("zero_shot")["Qwen2-7B"], abs=0.03)
    assert len(tasks) == 12 and {e.task_id for e in tasks} >= {"mmla_emotion_meld", "mmla_sentiment_mosi"}
    meld = next(e for e in tasks if e.task_id == "mmla_emotion_meld")
    assert meld.value == pytest.approx(55.7, abs=0.03) and meld.dataset_revision == "c" * 40
    assert meld.date.startswith(whole["date"][:19]) and meld.date.endswith("+00:00")
    for told in ("answer mode: generate", "protocol: clean", "modality: text", "zero-shot", "2,610 test rows", "95 %"):
        assert told in meld.notes


def test_variants_have_files_of_their_own(whole: Results, tmp_path: Path) -> None:
    ranked = {**whole, "mmla": {**whole["mmla"], "answer": "rank", "method": "sft"}}
    names = [
        name
        for n, results in enumerate((whole, ranked))
        for name in eval_results(read_run(write_run(tmp_path / str(n), results)))
    ]
    assert names == [
        ".eval_results/mmla_zero_shot_text_generate_clean.yaml",
        ".eval_results/mmla_sft_text_rank_clean.yaml",
    ]


def test_notes_say_how_an_adapter_was_trained(whole: Results, tmp_path: Path) -> None:
    block = {"tasks": [], "adapter": {"path": "/somewhere/a"}, "rank": 8, "method": "it", "selection": {"step": 3}}
    whole["mmla"] |= {"method": "it", "training": [block]}
    for entry in entries(write_run(tmp_path / "run", whole), tmp_path):
        assert entry.notes.startswith("it; ") and "IT, LoRA rank 8, selected at step 3" in entry.notes


def test_the_card_form_loads_back(whole: Results, tmp_path: Path) -> None:
    write_hub_files(read_run(write_run(tmp_path / "run", whole)), tmp_path / "hub")
    metadata = (tmp_path / "hub" / "model" / "model_index.yaml").read_text(encoding="utf-8")
    data = ModelCard(f"---\n{metadata}---\n# A model\n").data
    assert data.model_name == "Qwen2-7B" and len(data.eval_results) == 2 + 3 * 12
    meld = {r.metric_name: r.metric_value for r in data.eval_results if r.dataset_config == "MELD"}
    assert meld["accuracy"] == pytest.approx(55.7, abs=0.03) and set(meld) == {"accuracy", "weighted F1", "macro F1"}


def test_the_dataset_file_names_every_task_id(whole: Results, tmp_path: Path) -> None:
    told = {entry.task_id for entry in entries(write_run(tmp_path / "run", whole), tmp_path)}
    proposal = yaml.safe_load((tmp_path / "hub" / "dataset" / "eval.yaml").read_text(encoding="utf-8"))
    assert set(proposal) == {"name", "description", "evaluation_framework", "tasks"}
    assert {task["id"] for task in proposal["tasks"]} == told and len(told) == 13
    assert all(set(task) == {"id", "config", "split"} for task in proposal["tasks"])


def test_a_run_of_some_tasks_has_no_average(whole: Results, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", without(whole, "mmla_sentiment_mosi_text"))
    assert {e.task_id for e in entries(folder, tmp_path)}.isdisjoint({"mmla", "mmla_sentiment_mosi"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"counts": {"asked": 100}}, "a partial set: 100 of 2,610"),
        ({"counts": {"skipped": 3}}, "3 rows skipped"),
        ({"counts": {"as_text": 4}}, "4 rows asked without"),
        ({"data": {"rows": 2609, "known_rows": 2609}, "counts": {"asked": 2609}}, "the data have 2,609 rows"),
        ({"labels": ["neutral", "joy"]}, "another dataset or label list"),
        ({"dataset": "MELD2"}, "another dataset or label list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_task_that_is_not_whole_is_left_out(whole: Results, tmp_path: Path, change: Any, why: str) -> None:
    block = whole["mmla"]["tasks"][MELD]
    for key, value in change.items():
        block[key] = {**block[key], **value} if isinstance(value, dict) else value
    folder = write_run(tmp_path / "run", whole)
    assert {e.task_id for e in entries(folder, tmp_path)}.isdisjoint({"mmla", "mmla_emotion_meld"})
    others = [leaf for leaf in whole["mmla"]["tasks"] if leaf != MELD]
    with pytest.raises(UsageError, match="holds no whole task") as caught:
        eval_results(read_run(write_run(tmp_path / "alone", without(whole, *others))))
    assert why in str(caught.value)


def test_what_is_no_score_is_refused(whole: Results, tmp_path: Path) -> None:
    def refused(**config: Any) -> str:
        results = {**whole, "config": {**whole["config"], **config}}
        with pytest.raises(UsageError) as caught:
            write_hub_files(read_run(write_run(tmp_path / "run", results)), tmp_path / "hub")
        assert not (tmp_path / "hub").exists()
        return str(caught.value)

    assert "echo rule" in refused(model="mmla-echo")
    assert "mmla merge" in refused(shard="1/8")
    whole["mmla"]["data"]["root"].update(kind="sample", given="sample")
    assert "sample data, not a benchmark score" in refused()


def test_the_sample_and_a_limited_run_are_refused_as_they_come(tmp_path: Path) -> None:
    evaluate("mmla-echo", MELD, data_dir="sample", limit=2, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="no benchmark scores") as caught:
        eval_results(read_run(tmp_path / "run"))
    assert "sample data" in str(caught.value)


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_flags(whole: Results, tmp_path: Path) -> None:
    run, said = read_run(write_run(tmp_path / "run", whole)), []
    handle(command(), [run, run], said.append)
    assert not said
    handle(command("--hub_files", str(tmp_path / "hub")), [run], said.append)
    assert len(said) == 3 and all(Path(line.removeprefix("wrote ")).is_file() for line in said)
    with pytest.raises(UsageError, match="--push needs the files"):
        handle(command("--push", "me/model"), [run], said.append)
    with pytest.raises(UsageError, match="describes one run"):
        handle(command("--hub_files", str(tmp_path / "hub")), [run, run], said.append)


def test_a_folder_that_cannot_be_written_is_said(whole: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MmlaError, match="cannot be written"):
        write_hub_files(read_run(write_run(tmp_path / "run", whole)), tmp_path / "file")


# ------------------------------------------------------------------------------------------------------------ pushing

PUSH = """
import argparse, sys
from pathlib import Path
from harness_ext.reports.hub_files import add_arguments, handle
from harness_ext.reports.run_files import read_run
from mmla_tasks.errors import MmlaError

parser = argparse.ArgumentParser()
parser.add_argument("run", type=Path)
add_arguments(parser)
args = parser.parse_args()
try:
    handle(args, [read_run(args.run)], print)
except MmlaError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture
def push(hub: Hub, whole: Results, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Push in a process of its own: the Hub's address is read when its client is imported."""
    run = write_run(tmp_path / "run", whole)

    def call(repository: str, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", PUSH, str(run), "--hub_files", str(tmp_path / "hub"), "--push", repository]
        env = {**os.environ, **hub.environment, **environment}
        return subprocess.run(arguments, env=env, capture_output=True, text=True)

    return call


def test_a_push_opens_a_pull_request(hub: Hub, push: Any, tmp_path: Path) -> None:
    hub.repositories.add("models/me/model")
    done = push("me/model")
    assert done.returncode == 0, done.stderr
    assert f"proposed {hub.endpoint}/me/model/discussions/1" in done.stdout
    (commit,) = hub.commits
    assert commit.pull_request and commit.repository == "models/me/model"
    (path, text), *rest = commit.files.items()
    assert not rest and (tmp_path / "hub" / "model" / path).read_text(encoding="utf-8") == text
    assert len(parse_eval_result_entries(yaml.safe_load(text))) == 13
    assert "12 of 12 tasks" in commit.description
    assert TOKEN not in done.stdout + done.stderr + json.dumps(commit.files) + commit.description
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "hub").rglob("*.yaml")]
    assert written and not any(TOKEN in text for text in written)


def test_a_push_that_fails_is_said(hub: Hub, push: Any) -> None:
    absent = push("me/elsewhere")
    assert absent.returncode == 2 and "me/elsewhere" in absent.stderr and "RepositoryNotFound" in absent.stderr
    denied = push("me/model", HF_TOKEN="hf_another_secret")
    assert denied.returncode == 2 and "the Hub did not take the pull request" in denied.stderr
    assert "hf_another_secret" not in denied.stdout + denied.stderr
    offline = push("me/model", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "OfflineMode" in offline.stderr
    assert not hub.commits


def test_a_push_takes_its_token_from_the_environment_alone(
    whole: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="--push needs a token"):
        push_hub_files(read_run(write_run(tmp_path / "run", whole)), "me/model")
