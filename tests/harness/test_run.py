"""A run from names to numbers, with the scripted backend on the road of real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate

from ..clips import clip_bytes

TASK = "mmla_emotion_meld_text"


def echo(root: Path, **options: Any) -> dict[str, Any]:
    options = {"model_args": {"rule": "gold", "error_rate": 0.4}, **options}
    return evaluate("mmla-echo", options.pop("tasks", TASK), data_dir=str(root), **options)


def test_results_hold_lm_evals_schema_and_the_mmla_block(meld_root: Path) -> None:
    results = echo(meld_root, tasks="mmla_emotion_meld_text")
    assert {
        "results",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
        "mmla",
    } <= results.keys()
    scores = results["results"][TASK]
    for name in ("acc", "macro_f1", "macro_precision", "macro_recall", "weighted_f1", "weighted_precision", "unparsed"):
        assert 0 <= scores[f"{name},none"] <= 1
    assert scores["acc,none"] == scores["acc_mean,none"]
    block = results["mmla"]["tasks"][TASK]
    assert block["counts"]["asked"] == 42 and block["counts"]["unparsed"] == 0
    low, high = block["intervals"]["acc"]
    assert low < scores["acc,none"] < high
    assert block["baselines"]["majority"]["accuracy"] == pytest.approx(1 / 7)
    assert sum(map(sum, block["confusion"]["counts"])) == 42
    assert block["per_class"]["joy"]["support"] == 6
    assert block["data"]["difference"] == "42 rows where the released file has 2,610"
    assert f"{TASK}: 42 rows where the released file has 2,610" in results["mmla"]["notes"]


def test_group_averages_weigh_rows_and_datasets(data_root: Callable[..., Path]) -> None:
    root = data_root(
        MELD=[(str(n), "a", "joy") for n in range(30)],
        IEMOCAP=[(str(n), "a", "Happy" if n else "Sad") for n in range(10)],
    )
    results = echo(root, tasks="mmla_emotion_text", model_args={"script": "emotion: happy"})
    group = results["results"]["mmla_emotion_text"]
    assert group["acc,none"] == pytest.approx(9 / 40)
    assert group["acc_mean,none"] == pytest.approx((0 + 0.9) / 2)


def test_equal_commands_give_equal_bytes(meld_root: Path, tmp_path: Path, mmla: Callable[..., Any]) -> None:
    for name in ("a", "b", "a"):  # the third goes on from the first one's journal
        command = [
            "run",
            "--model",
            "mmla-echo",
            "--tasks",
            TASK,
            "--data_dir",
            meld_root,
            "--run_dir",
            tmp_path / name,
        ]
        assert mmla(*command).status == 0
    files = sorted(
        p.relative_to(tmp_path / "a")
        for p in (tmp_path / "a").rglob("*")
        if p.is_file() and p.suffix in (".json", ".jsonl", ".md")
    )
    assert {"results.json", "scorecard.md", "run.json"} <= {str(f) for f in files}
    for file in files:
        first, second = (tmp_path / run / file for run in "ab")
        if file.name == "results.json":
            assert without_clock(first) == without_clock(second)
        else:
            assert first.read_bytes() == second.read_bytes(), file


def without_clock(path: Path) -> str:
    results = json.loads(path.read_text())
    del results["date"], results["timings"]
    return json.dumps(results)


def test_the_journal_is_not_asked_twice(meld_root: Path, tmp_path: Path) -> None:
    from harness_ext.run import RunOptions, run

    def options(limit: int | None) -> RunOptions:
        return RunOptions(
            model="mmla-echo", tasks=[TASK], data_dir=str(meld_root), run_dir=tmp_path / "run", limit=limit
        )

    assert run(options(10)).found == 0
    journal = tmp_path / "run" / "journal" / "answers.jsonl"
    with journal.open("a") as file:
        file.write('{"key": "torn')  # killed in the middle of a line
    resumed = run(options(None))
    assert resumed.found == 10
    lines = journal.read_text().splitlines()
    assert len(lines) == 42 + 1 and len({json.loads(line)["key"] for line in lines if "torn" not in line}) == 42


def test_a_changed_prompt_is_asked_anew(meld_root: Path, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    from harness_ext.run import RunOptions, run

    options = RunOptions(model="mmla-echo", tasks=[TASK], data_dir=str(meld_root), run_dir=tmp_path / "run")
    run(options)
    text = (meld_root / "MELD" / "test.tsv").read_text()
    (meld_root / "MELD" / "test.tsv").write_text(text.replace("Sentence number 3.", "Another sentence."))
    assert run(options).found == 41


def test_fewer_rows_later_do_not_lose_earlier_results(meld_root: Path, tmp_path: Path) -> None:
    echo(meld_root, run_dir=tmp_path)
    echo(meld_root, run_dir=tmp_path, limit=5)
    earlier = tmp_path / "earlier-1"
    assert json.loads((earlier / "results.json").read_text())["n-samples"][TASK]["effective"] == 42
    assert {p.name for p in earlier.iterdir()} == {"results.json", "samples", "scorecard.md"}
    assert json.loads((tmp_path / "results.json").read_text())["n-samples"][TASK]["effective"] == 5


def test_a_folder_keeps_to_one_run(meld_root: Path, tmp_path: Path, mmla: Callable[..., Any]) -> None:
    command = ["run", "--model", "mmla-echo", "--tasks", TASK, "--data_dir", meld_root, "--run_dir", tmp_path / "run"]
    assert mmla(*command, "--model_args", "seed=1").status == 0
    other = mmla(*command, "--model_args", "seed=2", "--answer", "rank")
    assert other.status == 2
    assert "belongs to a run that differs" in other.err
    assert 'answer: "generate" there, "rank" now' in other.err and "model_args.seed: 1 there, 2 now" in other.err
    assert "answers are safe" not in other.err  # the same command would not go on from there


def test_a_second_process_in_the_folder_is_turned_away(
    meld_root: Path, tmp_path: Path, mmla: Callable[..., Any]
) -> None:
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        ran = mmla(
            "run", "--model", "mmla-echo", "--tasks", TASK, "--data_dir", meld_root, "--run_dir", tmp_path / "run"
        )
    assert ran.status == 2 and "another process is at work" in ran.err


def test_samples_keep_raw_parsed_and_verdict_apart(meld_root: Path, tmp_path: Path) -> None:
    echo(meld_root, run_dir=tmp_path, model_args={"script": ["**Joy!**", "no idea", "joy or anger"]}, limit=3)
    rows = [json.loads(line) for line in (tmp_path / "samples" / f"{TASK}.jsonl").read_text().splitlines()]
    assert [r["resps"][0][0] for r in rows] == ["**Joy!**", "no idea", "joy or anger"]
    assert [r["filtered_resps"][0] for r in rows] == ["joy", "unknown", "multi"]
    assert [r["answer"]["outcome"] for r in rows] == ["matched", "none", "several"]
    assert [r["acc"] for r in rows] == [0.0, 0.0, 0.0]
    assert [r["doc_id"] for r in rows] == [0, 1, 2]


def test_rank_records_probabilities_and_the_length_normalised_choice(meld_root: Path) -> None:
    results = echo(meld_root, answer="rank", limit=2)
    sample = results["samples"][TASK][0]
    assert sum(sample["probabilities"].values()) == pytest.approx(1)
    assert max(sample["probabilities"], key=sample["probabilities"].get) == sample["filtered_resps"][0]
    assert "acc_length_normalised" in results["mmla"]["tasks"][TASK]


def test_echo_scores_are_never_shown_without_saying_so(
    meld_root: Path, mmla: Callable[..., Any], tmp_path: Path
) -> None:
    ran = mmla(
        "run",
        "--model",
        "mmla-echo",
        "--tasks",
        TASK,
        "--data_dir",
        meld_root,
        "--limit",
        4,
        "--run_dir",
        tmp_path / "r",
    )
    for text in (ran.out, (tmp_path / "r" / "scorecard.md").read_text()):
        assert "answers by the echo rule `random`, not by a model: scores mean nothing" in text
        assert "a partial set: 4 of 42 rows (--limit 4)" in text


def test_echo_draws_do_not_depend_on_order_or_limit(meld_root: Path) -> None:
    whole = echo(meld_root, model_args={"rule": "random"})["samples"][TASK]
    some = echo(meld_root, model_args={"rule": "random"}, samples={TASK: [7, 3, 20]})["samples"][TASK]
    assert {r["doc"]["id"]: r["filtered_resps"] for r in some}.items() <= {
        r["doc"]["id"]: r["filtered_resps"] for r in whole
    }.items()


def test_fewshot_prompts_do_not_depend_on_limit_samples_or_processes(meld_root: Path) -> None:
    def prompts(**options: Any) -> dict[str, str]:
        rows = echo(meld_root, num_fewshot=3, **options)["samples"][TASK]
        return {row["doc"]["id"]: row["arguments"][0][0] for row in rows}

    whole = prompts()
    assert all(prompt.count("emotion: ") >= 3 and "Training " in prompt for prompt in whole.values())
    assert len({p.rsplit("\n\n", 1)[0] for p in whole.values()}) > 30  # drawn per document, not once
    assert prompts(limit=5).items() <= whole.items()
    assert prompts(samples={TASK: [30, 2]}).items() <= whole.items()
    assert prompts(seed=(0, 1234, 1234, 99)) != whole
    assert {**split_prompts(meld_root, 0), **split_prompts(meld_root, 1)} == whole


def split_prompts(root: Path, rank: int) -> dict[str, str]:
    """The prompts that one of two processes builds."""
    from harness_ext.run import RunOptions, load_tasks

    task = load_tasks([TASK], RunOptions(model="mmla-echo", tasks=[TASK], data_dir=str(root)))["tasks"][TASK]
    task.set_config("num_fewshot", 3)
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=rank, world_size=2)
    return {instance.request.id: instance.request.prompt for instance in task.instances}


def test_fewshot_without_train_says_who_asked(data_root: Callable[..., Path]) -> None:
    from mmla_tasks.errors import DataError

    root = data_root(MELD=[("1", "a", "joy"), ("2", "b", "anger")])
    with pytest.raises(DataError, match=r"dataset MELD has no train split, which --num_fewshot 2 needs"):
        echo(root, num_fewshot=2)


def test_no_torch_is_imported_even_where_it_is_installed(meld_root: Path) -> None:
    code = (
        "import sys; from harness_ext.cli import main; "
        f"status = main(['run', '--model', 'mmla-echo', '--tasks', '{TASK}', '--data_dir', {str(meld_root)!r}]); "
        "print('status', status, 'heavy', [m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip().endswith("status 0 heavy []"), ran.stdout + ran.stderr


def test_all_real_texts_are_scored(real_texts: Path) -> None:
    results = evaluate("mmla-echo", "mmla_text", data_dir=str(real_texts), model_args={"rule": "gold"})
    assert results["results"]["mmla_text"]["acc,none"] == 1.0
    assert sum(n["effective"] for n in results["n-samples"].values()) == 15_710
    assert results["mmla"]["notes"] == ["answers by the echo rule `gold`, not by a model: scores mean nothing"]
    for name, block in results["mmla"]["tasks"].items():
        assert block["counts"]["unparsed"] == 0, name


def test_decoding_says_what_really_happens() -> None:
    from harness_ext.decoding import DECODING, decoding
    from mmla_tasks.errors import UsageError

    assert decoding() == DECODING
    assert decoding({"max_new_tokens": 8})["max_gen_toks"] == 8
    assert decoding({"temperature": 0.7}) == {**DECODING, "temperature": 0.7, "do_sample": True}
    assert decoding({"do_sample": True})["temperature"] == 1.0
    assert decoding({"until": "\n"})["until"] == ["\n"]
    for wrong in ({"temperature": 0.7, "do_sample": False}, {"max_gen_toks": 0}, {"temperature": "hot"}):
        with pytest.raises(UsageError):
            decoding(wrong)


def test_the_journal_key_holds_what_an_answer_depends_on() -> None:
    from dataclasses import replace

    from harness_ext.journal import request_key
    from harness_ext.requests import Request

    request = Request("t", "1", "prompt", ("a", "b"), "x:", {"do_sample": False})

    def key(r: Request = request, seed: int = 0, clip: str | None = None, **model: str) -> str:
        return request_key(r, model=model, clip_digest=clip, seed=seed)

    for changed in (
        {"version": 2},
        {"chat": True},
        {"prompt": "p"},
        {"labels": ("b", "a")},
        {"id": "2"},
        {"task": "u"},
    ):
        assert key(replace(request, **changed)) != key(), changed
    assert key(clip="digest") != key() != key(peft="adapter")
    assert key(seed=1) == key(seed=0)  # greedy
    sampled = replace(request, gen_kwargs={"do_sample": True})
    assert key(sampled, seed=1) != key(sampled, seed=0)
    assert key(replace(request, fallback="without video", gold="a")) == key()


def test_the_leaderboard_is_named_only_over_its_own_twelve_tasks(real_texts: Path, tmp_path: Path) -> None:
    from harness_ext.reports.table import averages, rows

    whole = echo(real_texts, tasks="mmla_text")
    assert [a.name for a in averages(whole)] == ["all rows (leaderboard)", "mean of datasets"]
    assert all(row.published for row in rows(whole))
    (tmp_path / "mine.yaml").write_text(
        "task: mine\nclass: !function harness_ext.task.LabelTask\ndataset: MUStARD\ndimension: style\n"
        "labels: [sarcastic, sincere]\nmodality: text\n"
    )
    more = echo(real_texts, tasks=["mmla_text", "mine"], include_path=tmp_path)
    assert [a.name for a in averages(more)] == ["all rows", "mean of datasets"]
    assert [bool(row.published) for row in rows(more)] == [True] * 12 + [False]  # another label list
    part = echo(real_texts, tasks="mmla_text", limit=50)
    assert averages(part)[0].name == "all rows" and not any(row.published for row in rows(part))


def test_questions_asked_as_text_keep_the_system_instruction_and_are_logged(meld_root: Path) -> None:
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    (clips / "MELD_0_0.mp4").write_bytes(clip_bytes())
    results = echo(
        meld_root,
        tasks="mmla_emotion_meld",
        on_bad_clip="text",
        limit=2,
        system_instruction="Be brief.",
        apply_chat_template=True,
    )
    shown, asked_as_text = (row["arguments"][0][0] for row in results["samples"]["mmla_emotion_meld"])
    assert shown.startswith("<system> Be brief.") and "<video>" in shown
    assert (
        asked_as_text.startswith("<system> Be brief.")
        and "The speaker says" in asked_as_text
        and "<video>" not in asked_as_text
    )


def test_every_output_on_the_sample_says_so(mmla: Callable[..., Any], tmp_path: Path) -> None:
    note = "sample data, not a benchmark score"
    ran = mmla("run", "--model", "mmla-echo", "--tasks", TASK, "--data_dir", "sample", "--run_dir", tmp_path)
    assert note in ran.out and note in mmla("ls", "--data_dir", "sample").out
    assert note in mmla("show", TASK, "--data_dir", "sample").out
    for file in tmp_path.rglob("*"):
        if file.suffix in (".md", ".json", ".jsonl") and file.name not in ("run.json", "answers.jsonl"):
            assert note in file.read_text(), file


def test_fewshot_of_the_yaml_stands_on_the_score_card(meld_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "t.yaml").write_text(
        "task: two_shots\nclass: !function harness_ext.task.LabelTask\ndataset: MELD\ndimension: emotion\n"
        "labels: [neutral, surprise, fear, sadness, joy, anger, disgust]\nmodality: text\nnum_fewshot: 2\n"
    )
    echo(meld_root, tasks="two_shots", include_path=folder, run_dir=tmp_path / "run", limit=3)
    assert "| few-shot examples | 2 |" in (tmp_path / "run" / "scorecard.md").read_text()
