"""Shards of one run, and what `mmla merge` makes of them: the run that was never split."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from harness_ext.shards import Shard

from ..clips import clip_bytes
from ..folders import written
from .loopback import Loopback, question_of

TASK = "mmla_emotion_meld_text"
Command = Callable[..., Any]


@pytest.fixture
def root(data_root: Callable[..., Path], meld_root: Path) -> Path:
    """MELD with 42 rows, IEMOCAP with 10, MUStARD with 2."""
    return data_root(
        IEMOCAP=[(str(n), f"Line {n}.", "Happy" if n % 3 else "Sad") for n in range(10)],
        MUStARD=[("1", "Sure.", "sarcastic"), ("2", "Thanks.", "sincere")],
    )


def command(root: Path, *more: object, tasks: Sequence[str] = ("mmla_emotion_text", "mmla_speaking_style_mustard_text")) -> list[object]:  # fmt: skip
    return ["run", "--model", "mmla-echo", "--tasks", ",".join(tasks), "--data_dir", root, *more]


def split(mmla: Command, root: Path, folder: Path, count: int, *more: object, **how: Any) -> None:
    for i in reversed(range(1, count + 1)):
        ran = mmla(*command(root, *more, **how), "--run_dir", folder, "--shard", f"{i}/{count}")
        assert ran.status == 0, ran.err


def refused(ran: Any, *parts: str) -> None:
    assert ran.status == 2 and "Traceback" not in ran.err, ran
    for part in parts:
        assert part in ran.err, ran.err


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--answer", "rank"),
        ("--limit", 7),
        ("--num_fewshot", 2),
        ("--apply_chat_template", "--system_instruction", "Be brief."),
        ("--model_args", "script=joy,rule=first"),
        ("--label_order", "shuffled:1", "--repeats", 3, "--answer", "rank"),
        ("--model_args", "unparsed_rate=0.3,seed=4", "--batch_size", 8),
        ("--predict_only",),
    ],
)
def test_merged_shards_are_the_run_that_was_never_split(
    mmla: Command, root: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    how = {"tasks": [TASK]} if "--num_fewshot" in more else {}
    assert mmla(*command(root, *more, **how), "--run_dir", tmp_path / "whole").status == 0
    split(mmla, root, tmp_path / "parts", 3, *more, **how)
    ran = mmla("merge", tmp_path / "parts")
    assert ran.status == 0, ran.err
    if "--predict_only" in more:
        assert not (tmp_path / "parts" / "results.json").exists()
        for file in (tmp_path / "whole" / "samples").iterdir():
            assert (tmp_path / "parts" / "samples" / file.name).read_bytes() == file.read_bytes()
        return
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_bad_clips_are_merged_as_they_were_asked(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    for n in range(5):
        (clips / f"MELD_0_{n}.mp4").write_bytes(clip_bytes())
    for policy in ("skip", "text"):
        options = ("--on_bad_clip", policy, "--limit", 9, "--apply_chat_template")
        how = {"tasks": ["mmla_emotion_meld"]}
        whole, parts = tmp_path / f"whole-{policy}", tmp_path / f"parts-{policy}"
        assert mmla(*command(meld_root, *options, **how), "--run_dir", whole).status == 0
        split(mmla, meld_root, parts, 2, *options, **how)
        assert mmla("merge", parts).status == 0
        assert written(parts) == written(whole)


def test_the_released_protocol_is_merged_too(mmla: Command, root: Path, tmp_path: Path) -> None:
    more = ("--protocol", "paper", "--released_family", "llava")
    assert mmla(*command(root, *more), "--run_dir", tmp_path / "whole").status == 0
    split(mmla, root, tmp_path / "parts", 2, *more)
    assert mmla("merge", tmp_path / "parts").status == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_tokens_and_cost_of_a_server_are_merged(
    mmla: Command, data_root: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    root = data_root(MELD=[(f"{n}_0", f"Sentence {n % 5}.", "joy") for n in range(20)])
    server = Loopback(answer_of=lambda body: "emotion: " + ("joy" if "2" in question_of(body) else "fear"))
    with server.serving() as url:
        model = f"model=m,base_url={url},price_in=2,price_out=8"
        api = ["run", "--model", "mmla-api", "--model_args", model, "--tasks", TASK, "--data_dir", root]
        assert mmla(*api, "--run_dir", tmp_path / "whole").status == 0
        for shard in ("1/2", "2/2"):
            assert mmla(*api, "--run_dir", tmp_path / "parts", "--shard", shard).status == 0
    assert mmla("merge", tmp_path / "parts").status == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_a_shard_says_that_it_is_a_part(mmla: Command, root: Path, tmp_path: Path) -> None:
    ran = mmla(*command(root), "--run_dir", tmp_path, "--shard", "2/3")
    note = "shard 2 of 3: a partial set, 18 of 54 rows"
    assert ran.status == 0 and "shard 2 of 3: a part of the rows" in ran.out and note in ran.out
    assert note in (tmp_path / "shards" / "2-of-3" / "scorecard.md").read_text()
    assert note in (tmp_path / "shards" / "2-of-3" / "results.json").read_text()
    assert not (tmp_path / "results.json").exists()


def test_more_shards_than_rows(mmla: Command, root: Path, tmp_path: Path) -> None:
    two_rows = command(root, tasks=["mmla_speaking_style_mustard_text"])
    assert mmla(*two_rows, "--run_dir", tmp_path / "whole").status == 0
    for i in (1, 2):
        assert mmla(*two_rows, "--run_dir", tmp_path / "parts", "--shard", f"{i}/3").status == 0
    third = mmla(*two_rows, "--run_dir", tmp_path / "parts", "--shard", "3/3")
    refused(third, "no row is left for shard 3 of 3", "fewer shards")
    assert mmla("merge", tmp_path / "parts").status == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_answers_of_an_interrupted_whole_run_are_not_asked_again(mmla: Command, root: Path, tmp_path: Path) -> None:
    log = tmp_path / "asked.log"
    args = ("--model_args", f"history_file={log}")
    assert mmla(*command(root, *args), "--run_dir", tmp_path / "whole").status == 0
    log.unlink()
    assert mmla(*command(root, *args), "--limit", 5, "--run_dir", tmp_path / "parts").status == 0
    split(mmla, root, tmp_path / "parts", 2, *args)
    split(mmla, root, tmp_path / "parts", 2, *args)  # all of it is there
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 54
    assert mmla("merge", tmp_path / "parts").status == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")
    whole = mmla(*command(root, *args), "--run_dir", tmp_path / "parts")
    assert whole.status == 0 and len(log.read_text().splitlines()) == 54


def test_another_split_of_the_same_run_may_fill_in(mmla: Command, root: Path, tmp_path: Path) -> None:
    """Two jobs were too few: the run goes on with three, and what the first split finished counts."""
    assert mmla(*command(root), "--run_dir", tmp_path / "whole").status == 0
    for shard in ("1/2", "1/3", "2/3", "3/3"):
        assert mmla(*command(root), "--run_dir", tmp_path / "parts", "--shard", shard).status == 0
    assert mmla("merge", tmp_path / "parts").status == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_missing_rows_are_named_with_what_to_run(mmla: Command, root: Path, tmp_path: Path) -> None:
    for i in (1, 3, 4):
        assert mmla(*command(root), "--run_dir", tmp_path, "--shard", f"{i}/4").status == 0
    ran = mmla("merge", tmp_path)
    refused(ran, "15 rows have no answer yet", f"{TASK}", "not finished", "shard 2 of 4")
    assert f"--data_dir {root} --shard 2/4 --run_dir {tmp_path}" in ran.err
    assert not (tmp_path / "results.json").exists()


def test_arguments_that_change_no_answer_may_differ(mmla: Command, root: Path, tmp_path: Path) -> None:
    assert mmla(*command(root), "--model_args", "delay_ms=0", "--run_dir", tmp_path, "--shard", "1/2").status == 0
    assert mmla(*command(root), "--model_args", "delay_ms=0.01", "--run_dir", tmp_path, "--shard", "2/2").status == 0
    assert mmla("merge", tmp_path).status == 0


def test_shards_of_other_runs_are_told_apart(mmla: Command, root: Path, tmp_path: Path) -> None:
    assert mmla(*command(root), "--limit", 8, "--run_dir", tmp_path, "--shard", "1/2").status == 0
    assert mmla(*command(root), "--limit", 9, "--run_dir", tmp_path, "--shard", "2/2").status == 0
    refused(
        mmla("merge", tmp_path),
        "shard 1 of 2 and shard 2 of 2 are not of one run",
        "limit: 8.0 in shard 1 of 2, 9.0 in shard 2 of 2",
    )
    assert mmla(*command(root), "--limit", 9, "--run_dir", tmp_path, "--shard", "1/2").status == 0
    assert mmla("merge", tmp_path).status == 0


def test_texts_that_changed_between_shards_or_since(mmla: Command, root: Path, tmp_path: Path) -> None:
    file = root / "MELD" / "test.tsv"
    before = file.read_text()
    assert mmla(*command(root), "--run_dir", tmp_path / "p", "--shard", "1/2").status == 0
    file.write_text(before.replace("number 3.", "number three."))
    assert mmla(*command(root), "--run_dir", tmp_path / "p", "--shard", "2/2").status == 0
    refused(mmla("merge", tmp_path / "p"), "not of one run", f"{TASK}.data.sha256")
    assert mmla(*command(root), "--run_dir", tmp_path / "p", "--shard", "1/2").status == 0
    file.write_text(before)
    refused(mmla("merge", tmp_path / "p"), "tasks are not what shard 1 of 2 was asked", f"{TASK}.data.sha256")


def test_a_task_file_that_changed_since(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    def own_task(prompt: str) -> Path:
        (tmp_path / "own.yaml").write_text(
            "task: own\nclass: !function harness_ext.task.LabelTask\ndataset: MELD\ndimension: emotion\n"
            f"labels: [neutral, surprise, fear, sadness, joy, anger, disgust]\nmodality: text\nprompt_text: '{prompt}'\n"
        )
        return tmp_path

    how = {"tasks": ["own"]}
    split(mmla, meld_root, tmp_path / "run", 2, "--include_path", own_task("Which? {{ text }}"), **how)
    own_task("Whatever? {{ text }}")
    refused(mmla("merge", tmp_path / "run"), "tasks are not what shard 1 of 2 was asked", "own.prompt", "Whatever?")
    assert not (tmp_path / "run" / "results.json").exists()
    own_task("Which? {{ text }}")
    assert mmla("merge", tmp_path / "run").status == 0


def test_versions_that_differ_are_all_told(mmla: Command, root: Path, tmp_path: Path) -> None:
    split(mmla, root, tmp_path, 2)
    record = tmp_path / "shards" / "2-of-2" / "shard.json"
    changed = json.loads(record.read_text())
    changed["versions"]["numpy"] = "1.0"
    record.write_text(json.dumps(changed))
    assert mmla("merge", tmp_path).status == 0
    assert json.loads((tmp_path / "results.json").read_text())["mmla"]["versions"]["numpy"].endswith(", 1.0")


def test_nothing_to_merge(mmla: Command, root: Path, tmp_path: Path) -> None:
    refused(mmla("merge", tmp_path / "nowhere"), "is no run folder")
    assert not (tmp_path / "nowhere").exists()
    assert mmla(*command(root), "--run_dir", tmp_path / "run").status == 0
    refused(mmla("merge", tmp_path / "run"), "no shard has finished")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_what_is_no_shard(mmla: Command, root: Path, tmp_path: Path, text: str) -> None:
    refused(mmla(*command(root), "--run_dir", tmp_path, f"--shard={text}"), f"--shard {text} is no shard", "1/8")


def test_a_shard_needs_a_folder(mmla: Command, root: Path) -> None:
    refused(mmla(*command(root), "--shard", "1/2"), "needs a folder that all shards share", "--run_dir FOLDER")


def test_merge_loads_no_torch(mmla: Command, root: Path, tmp_path: Path) -> None:
    split(mmla, root, tmp_path, 2)
    code = (
        "import sys; from harness_ext.cli import main; "
        f"status = main(['merge', {str(tmp_path)!r}]); "
        "print('status', status, 'heavy', [m for m in ('torch', 'transformers', 'accelerate') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip().endswith("status 0 heavy []"), ran.stdout + ran.stderr


# ---------------------------------------------------------------------------------------------------------- locks


def test_a_shard_at_work_stops_its_like_a_whole_run_and_a_merge(mmla: Command, root: Path, tmp_path: Path) -> None:
    assert mmla(*command(root), "--run_dir", tmp_path, "--shard", "2/2").status == 0
    with FileLock(tmp_path / ".lock-2-of-2"):
        refused(mmla(*command(root), "--run_dir", tmp_path, "--shard", "2/2"), "another process with shard 2 of 2", "is at work in")  # fmt: skip
        refused(mmla(*command(root), "--run_dir", tmp_path), "a process with shard 2 of 2 is at work in")
        refused(mmla("merge", tmp_path), "a process with shard 2 of 2 is at work in")
        assert mmla(*command(root), "--run_dir", tmp_path, "--shard", "1/2").status == 0
    assert mmla("merge", tmp_path).status == 0


def test_a_whole_run_at_work_stops_shards(
    mmla: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness_ext.run_folder._MOMENT_SECONDS", 0.1)
    with FileLock(tmp_path / ".lock"):
        refused(mmla(*command(root), "--run_dir", tmp_path, "--shard", "1/2"), "another process is at work in")


def test_a_shard_of_another_model_is_turned_away(mmla: Command, root: Path, tmp_path: Path) -> None:
    assert mmla(*command(root), "--run_dir", tmp_path, "--shard", "1/2").status == 0
    other = mmla(*command(root), "--model_args", "seed=5", "--run_dir", tmp_path, "--shard", "2/2")
    refused(other, "belongs to a run that differs", "model_args.seed: nothing there, 5 now")


def test_rows_are_dealt_out_once() -> None:
    rows = list(range(11))
    parts = [Shard(i, 4).of(rows) for i in range(1, 5)]
    assert sorted(row for part in parts for row in part) == rows and [len(part) for part in parts] == [3, 3, 3, 2]
    assert Shard.read("2/4") == Shard(2, 4) and Shard(2, 4).name == "2-of-4"


def test_samples_that_are_gone_or_damaged(mmla: Command, root: Path, tmp_path: Path) -> None:
    split(mmla, root, tmp_path, 2)
    file = tmp_path / "shards" / "2-of-2" / "samples" / f"{TASK}.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    refused(mmla("merge", tmp_path), "of the samples is damaged", str(file))
    file.unlink()
    refused(mmla("merge", tmp_path), "the samples of a task cannot be read", str(file))
