"""Bad input gets a message that says what, which one, where and what next; exit status 2; nothing computed is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..clips import clip_bytes

Command = Callable[..., Any]
TASK = "mmla_emotion_meld_text"
ECHO = ("run", "--model", "mmla-echo")


def said(ran: Any, *parts: str) -> None:
    assert ran.status == 2, ran
    assert ran.err.startswith("error: "), ran.err
    assert "Traceback" not in ran.err
    for part in parts:
        assert part in ran.err, ran.err


def test_no_data_root(mmla: Command) -> None:
    said(mmla(*ECHO, "--tasks", TASK), "no data root", "THUIAR/MMLA-Datasets MELD", "--data_dir sample")


def test_data_root_that_is_no_folder(mmla: Command, tmp_path: Path) -> None:
    said(
        mmla(*ECHO, "--tasks", TASK, "--data_dir", tmp_path / "nowhere"),
        "is not a folder",
        "given by",
        "--data_dir sample",
    )


def test_dataset_folder_without_test_split(mmla: Command, tmp_path: Path) -> None:
    (tmp_path / "MELD").mkdir()
    (tmp_path / "MELD" / "dev.tsv").write_text("id\ttext\tlabel\n")
    ran = mmla(*ECHO, "--tasks", TASK, "--data_dir", tmp_path)
    said(ran, f"dataset MELD has no test split, which {TASK} needs", "MELD/test.tsv (missing)", "dev.tsv")


def test_row_with_two_tabs_too_many(mmla: Command, data_root: Callable[..., Path]) -> None:
    root = data_root(MELD=[("1", "fine", "joy"), ("2", "a\tb\tc", "joy")])
    said(mmla(*ECHO, "--tasks", TASK, "--data_dir", root), "row 2 (line 3): 5 cells", "a tab inside a text")


def test_unknown_label_in_a_row(mmla: Command, data_root: Callable[..., Path]) -> None:
    root = data_root(MELD=[("1", "fine", "joy"), ("2_7", "fine", "glee")])
    said(
        mmla(*ECHO, "--tasks", TASK, "--data_dir", root),
        'label "glee" in 1 row (first: row 2, line 3, id 2_7)',
        "neutral, surprise",
    )


def test_duplicate_ids(mmla: Command, data_root: Callable[..., Path]) -> None:
    root = data_root(MELD=[("1", "a", "joy"), ("1", "b", "joy")])
    said(mmla(*ECHO, "--tasks", TASK, "--data_dir", root), "id '1' is given 2 times: row 1 (line 2), row 2 (line 3)")


def test_unknown_task_suggests(mmla: Command) -> None:
    said(
        mmla(*ECHO, "--tasks", "mmla_emotion_medl", "--data_dir", "sample"),
        "unknown task mmla_emotion_medl",
        "did you mean `mmla_emotion_meld`",
    )


def test_task_asked_for_twice_is_explained(mmla: Command) -> None:
    said(
        mmla(*ECHO, "--tasks", "mmla,mmla_intent", "--data_dir", "sample"),
        "task mmla_intent_mintrec is asked for twice",
        "mmla and mmla_intent",
    )


def test_no_tasks(mmla: Command) -> None:
    said(mmla(*ECHO), "no tasks are named", "mmla ls")


def test_unknown_backend_verb_flag_and_argument(mmla: Command, meld_root: Path) -> None:
    said(mmla("run", "--model", "mmla-eco", "--tasks", TASK), "`mmla-eco` is no backend", "did you mean `mmla-echo`")
    said(mmla("run", "--model", "hf", "--tasks", TASK), "lm_eval --include_path")
    said(mmla("rum"), "no verb `rum`", "did you mean `run`")
    said(mmla(*ECHO, "--task", TASK), "did you mean `--tasks`")
    said(
        mmla(*ECHO, "--tasks", TASK, "--data_dir", meld_root, "--model_args", "rul=gold"),
        "no argument `rul`",
        "did you mean `rule`",
    )


@pytest.mark.parametrize("flag", ["--use_cache", "--cache_requests", "--output_path"])
def test_refused_flags_point_to_the_journal_and_run_dir(mmla: Command, flag: str) -> None:
    said(mmla(*ECHO, "--tasks", TASK, flag, "true"), flag, "--run_dir")


def test_audio_is_reserved(mmla: Command) -> None:
    said(mmla(*ECHO, "--tasks", "mmla_intent", "--modality", "text+video+audio"), "no backend hears yet")


def test_video_of_a_text_task(mmla: Command, meld_root: Path) -> None:
    said(
        mmla(*ECHO, "--tasks", TASK, "--data_dir", meld_root, "--modality", "video"),
        "is a text task",
        "--tasks mmla_emotion_meld",
    )


def test_fewshot_with_video_names_the_text_task(mmla: Command, meld_root: Path) -> None:
    clips(meld_root, range(42))
    ran = mmla(*ECHO, "--tasks", "mmla_emotion_meld", "--data_dir", meld_root, "--num_fewshot", 2)
    said(ran, "is for text tasks", "--modality text")


def clips(root: Path, numbers: Any, data: bytes | None = None) -> None:
    (root / "MELD" / "video").mkdir(exist_ok=True)
    for n in numbers:
        (root / "MELD" / "video" / f"MELD_{n // 10}_{n % 10}.mp4").write_bytes(clip_bytes() if data is None else data)


def test_a_missing_clip_stops_before_the_model_is_loaded(mmla: Command, meld_root: Path) -> None:
    clips(meld_root, range(1, 40))
    ran = mmla(
        "run",
        "--model",
        "mmla-hf",
        "--model_args",
        "pretrained=/nowhere",
        "--tasks",
        "mmla_emotion_meld",
        "--data_dir",
        meld_root,
    )
    said(
        ran,
        "clip for mmla_emotion_meld id 0_0 is missing",
        "MELD_0_0.mp4 (missing)",
        "2 more clips",
        "mmla data download MELD --repair",
        "--on_bad_clip skip",
    )


def test_an_empty_clip_is_named(mmla: Command, meld_root: Path) -> None:
    clips(meld_root, range(42))
    clips(meld_root, [7], b"")
    ran = mmla(*ECHO, "--tasks", "mmla_emotion_meld", "--data_dir", meld_root)
    said(ran, "clip for mmla_emotion_meld id 0_7 can't be read", "MELD_0_7.mp4 (0 bytes)", "the file is empty")


def test_bad_clips_can_be_skipped_or_asked_as_text(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    clips(meld_root, range(2, 42))
    for policy, asked, key in (("skip", 40, "skipped"), ("text", 42, "as_text")):
        run_dir = tmp_path / policy
        command = (
            *ECHO,
            "--tasks",
            "mmla_emotion_meld",
            "--data_dir",
            meld_root,
            "--on_bad_clip",
            policy,
            "--run_dir",
            run_dir,
        )
        ran = mmla(*command)
        assert ran.status == 0, ran.err
        counts = json.loads((run_dir / "results.json").read_text())["mmla"]["tasks"]["mmla_emotion_meld"]["counts"]
        assert (counts["asked"], counts[key]) == (asked, 2)
        assert ("2 rows skipped because of bad clips" in ran.out) == (policy == "skip")


def test_tasks_without_any_clip_are_left_out_and_named(
    mmla: Command, meld_root: Path, data_root: Callable[..., Path]
) -> None:
    data_root(IEMOCAP=[("1", "a", "sad")])
    clips(meld_root, range(42))
    ran = mmla(*ECHO, "--tasks", "mmla_emotion", "--data_dir", meld_root)
    assert ran.status == 0, ran.err
    assert "left out mmla_emotion_iemocap: none of 1 clips is there; request IEMOCAP at sail.usc.edu/iemocap" in ran.out
    assert "not asked: IEMOCAP (no clips): this is 1 of 2 tasks, not the benchmark average" in ran.out
    said(
        mmla(*ECHO, "--tasks", "mmla_emotion", "--data_dir", meld_root, "--require_all"),
        "--require_all",
        "mmla_emotion_iemocap",
    )


def test_nothing_left_to_run(mmla: Command, meld_root: Path) -> None:
    ran = mmla(*ECHO, "--tasks", "mmla_emotion_meld", "--data_dir", meld_root)
    said(ran, "nothing left to run", "none of 42 clips is there", "--modality text")


def test_labels_that_are_part_of_one_another_simply_work(
    mmla: Command, data_root: Callable[..., Path], tmp_path: Path
) -> None:
    root = data_root(
        MELD__DA=[
            ("1", "a", "statement-opinion"),
            ("2", "b", "statement-non-opinion"),
            ("3", "c", "agreement"),
            ("4", "d", "disagreement"),
        ]
    )
    ran = mmla(
        *ECHO,
        "--tasks",
        "mmla_dialogue_act_meld_text",
        "--data_dir",
        root,
        "--model_args",
        "rule=gold",
        "--run_dir",
        tmp_path / "r",
    )
    assert ran.status == 0, ran.err
    assert (
        json.loads((tmp_path / "r" / "results.json").read_text())["results"]["mmla_dialogue_act_meld_text"]["acc,none"]
        == 1.0
    )


def test_predictions_list_missing_unknown_and_duplicate_ids(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"task": TASK, "id": f"{n // 10}_{n % 10}", "response": "joy"} for n in range(3, 42)]
    command = (
        "run",
        "--model",
        "mmla-predictions",
        "--model_args",
        f"answers={answers}",
        "--tasks",
        TASK,
        "--data_dir",
        meld_root,
    )
    answers.write_text("\n".join(map(json.dumps, [*rows, {"task": TASK, "id": "99_9", "response": "joy"}])))
    said(mmla(*command), f"{TASK}: 3 missing", "0_0, 0_1, 0_2", f"{TASK}: 1 unknown", "99_9")
    answers.write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    said(mmla(*command), "answered twice", f"{TASK} id 0_3 (line 40)")
    answers.write_text('{"task": "x"}\nnot json\n{"task": "x", "id": "1", "response": 3}')
    said(mmla(*command), "line 1: lacks id, response", "line 2: not JSON", "line 3: response is 3, not a text")
    answers.unlink()
    said(mmla(*command), "the answers file is not there", str(answers))


def test_without_torch_the_message_ends_in_the_pip_command(tmp_path: Path, meld_root: Path) -> None:
    """torch is hidden from a real process, as on a machine that never had it."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; from harness_ext.cli import main; "
        f"sys.exit(main(['run', '--model', 'mmla-hf', '--model_args', 'pretrained=x', '--tasks', '{TASK}', '--data_dir', {str(meld_root)!r}]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: mmla-hf needs the package `torch`, which is not installed"), ran.stderr
    assert "pip install 'mmla-eval[hf]'" in ran.stderr.strip().splitlines()[-1]


def test_a_run_folder_that_cannot_be_written_keeps_its_journal(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    command = (*ECHO, "--tasks", TASK, "--data_dir", meld_root, "--run_dir", tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("a file where a folder must be")
    ran = mmla(*command)
    said(ran, "the run folder cannot be written", "42 answers are safe in")
    (tmp_path / "run" / "samples").unlink()
    again = mmla(*command)
    assert again.status == 0 and "42 answers found" in again.out


def test_interruption_keeps_what_was_answered(
    meld_root: Path, tmp_path: Path, mmla: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_ext.backends.echo import EchoLM

    answer = EchoLM.answer

    def interrupted(self: Any, requests: Any) -> Any:
        for n, pair in enumerate(answer(self, requests)):
            if n == 17:
                raise KeyboardInterrupt
            yield pair

    command = (*ECHO, "--tasks", TASK, "--data_dir", meld_root, "--run_dir", tmp_path / "run")
    monkeypatch.setattr(EchoLM, "answer", interrupted)
    stopped = mmla(*command)
    assert stopped.status == 130 and "17 answers are safe" in stopped.err
    monkeypatch.setattr(EchoLM, "answer", answer)
    assert "17 answers found" in mmla(*command).out


@pytest.mark.parametrize("policy", ["skip", "text"])
def test_an_empty_clip_follows_the_policy_in_a_run_folder_too(
    mmla: Command, meld_root: Path, tmp_path: Path, policy: str
) -> None:
    clips(meld_root, range(42))
    clips(meld_root, [7], b"")
    command = (*ECHO, "--tasks", "mmla_emotion_meld", "--data_dir", meld_root, "--run_dir", tmp_path / "run")
    said(mmla(*command), "0_7")  # the advice of this error can be followed in the same folder:
    ran = mmla(*command, "--on_bad_clip", policy)
    assert ran.status == 0, ran.err
    said(mmla(*command), "0_7")


def test_a_failed_start_claims_no_folder_and_leaks_no_secret(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    command = (*ECHO, "--tasks", TASK, "--data_dir", meld_root, "--run_dir", tmp_path / "run")
    said(mmla(*command, "--model_args", "token=SECRET"), "no argument `token`")
    ran = mmla(*command, "--model_args", "seed=4", "--metadata", "api_key=SECRET2")
    assert ran.status == 0, ran.err
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            assert "SECRET" not in file.read_text(), file


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (
            ("--samples", '{"mmla_emotion_medl_text": [0]}'),
            ("which is not run", "did you mean `mmla_emotion_meld_text`"),
        ),
        (("--samples", f'{{"{TASK}": [0, 42]}}'), ("asks for row 42", "0 to 41")),
        (("--samples", f'{{"{TASK}": []}}'), ("asks for no row",)),
        (("--samples", "[1, 2]"), ("is no mapping of tasks to rows",)),
        (("--limit", 0), ("asks for no row",)),
        (("--limit", -3), ("asks for no row",)),
        (("--num_fewshot", -2), ("below 0",)),
        (("--decode_workers", 0), ("--decode_workers 0 decodes nothing", "at least 1")),
        (("--decode_workers", "all"), ("argument --decode_workers: invalid int value: 'all'",)),
        (("--decode_memory", "3Q"), ("--decode_memory 3Q is no size", "such as 512M or 2G")),
        (("--decode_memory", 0), ("--decode_memory 0 holds nothing",)),
        (("--seed", "x"), ("argument --seed: invalid _seeds value",)),
        (("--model_args", "error_rate=abc"), ("error_rate is 'abc'", "a number from 0 to 1")),
        (("--gen_kwargs", "temperature=0.7,do_sample=False"), ("has no effect",)),
        (("--data_revision", "abc"), ("is for the Hub dataset",)),
    ],
)
def test_values_that_cannot_be_meant(
    mmla: Command, meld_root: Path, flags: tuple[Any, ...], parts: tuple[str, ...]
) -> None:
    said(mmla(*ECHO, "--tasks", TASK, "--data_dir", meld_root, *flags), *parts)


def test_samples_take_the_names_of_the_command(mmla: Command, meld_root: Path) -> None:
    ran = mmla(
        *ECHO,
        "--tasks",
        "mmla_emotion_meld",
        "--modality",
        "text",
        "--samples",
        '{"mmla_emotion_meld": [0, 3]}',
        "--data_dir",
        meld_root,
    )
    assert ran.status == 0 and "a partial set: 2 of 42 rows (--samples)" in ran.out, ran.err


def test_an_answers_file_cannot_leave_rows_out_of_the_score(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"task": TASK, "id": f"{n // 10}_{n % 10}", "response": "joy", "skipped": n > 5} for n in range(42)]
    answers.write_text("\n".join(map(json.dumps, rows)))
    command = (
        "run",
        "--model",
        "mmla-predictions",
        "--model_args",
        f"answers={answers}",
        "--tasks",
        TASK,
        "--data_dir",
        meld_root,
    )
    ran = mmla(*command, "--run_dir", tmp_path / "run")
    assert ran.status == 0, ran.err
    block = json.loads((tmp_path / "run" / "results.json").read_text())["mmla"]["tasks"][TASK]
    assert block["counts"]["asked"] == 42 and block["counts"]["skipped"] == 0
    answers.write_text('{"task": ["x"], "id": "1", "response": "a"}')
    said(mmla(*command), "task is ['x'], not a text")
    answers.write_bytes(b"\xff\xfe")
    said(mmla(*command), "is not UTF-8")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "group: g\ntask: [mmla_intent_mintrec_txt]\n",
            ("member `mmla_intent_mintrec_txt` is no task", "did you mean"),
        ),
        ("group: g\ntask: mmla_intent_mintrec\n", ("`task` of a group is a list of names",)),
        ("group: g\ntask: [g]\n", ("group `g` holds itself",)),
    ],
)
def test_groups_with_a_bad_member(mmla: Command, tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "g.yaml").write_text(text)
    for command in ((*ECHO, "--tasks", "g", "--include_path", tmp_path), ("ls", "--include_path", tmp_path)):
        said(mmla(*command), *parts)


def test_a_disk_that_fills_up_keeps_every_answer_before(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    """A real write error in the middle of a line: the system refuses to let any file grow beyond 4 KiB."""
    folder = tmp_path / "run"
    command = [*ECHO, "--tasks", TASK, "--data_dir", str(meld_root), "--run_dir", str(folder)]
    limited = f"ulimit -f 4; exec {sys.executable} -m harness_ext.cli {' '.join(command)}"
    ran = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("error: the journal cannot be written"), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "free space or name another --run_dir" in ran.stderr
    whole = (folder / "journal" / "answers.jsonl").read_bytes().count(b"\n")
    assert f"{whole} answers are safe in" in ran.stderr
    assert 10 < whole < 42
    again = mmla(*command)
    assert again.status == 0 and f"{whole} answers found (1 torn line left aside)" in again.out
