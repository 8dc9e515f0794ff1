"""The command: quick where it should be, complete where lm-eval is, and every verb on real files."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def best_of(times: int, *arguments: str) -> float:
    """Shortest wall time in seconds of the installed command: noise only adds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "harness_ext.cli", *arguments], check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return min(took)


def test_help_is_instant() -> None:
    assert best_of(5, "--help") <= 0.4


def test_ls_is_quick(real_texts: Path) -> None:
    assert best_of(3, "ls", "--data_dir", str(real_texts)) <= 1.5


def test_help_names_every_verb(mmla: Command) -> None:
    from harness_ext.cli import VERBS

    ran = mmla("--help")
    assert ran.status == 0 and all(f"\n  {verb} " in ran.out for verb in VERBS)
    for verb in VERBS:
        with pytest.raises(SystemExit) as done:
            mmla(verb, "--help")
        assert done.value.code == 0


def test_every_flag_of_lm_eval_is_known() -> None:
    from lm_eval._cli.run import Run

    from harness_ext.cli.run import _parser

    host = argparse.ArgumentParser()
    Run(host.add_subparsers())
    theirs = {
        name
        for action in Run(argparse.ArgumentParser().add_subparsers())._parser._actions
        for name in action.option_strings
    }
    ours = {name for action in _parser()._actions for name in action.option_strings}
    assert theirs - ours == set()


def test_where_prints_the_yaml_folder(mmla: Command) -> None:
    folder = Path(mmla("where").out.strip())
    assert (folder / "mmla.yaml").is_file()


def test_ls_says_what_is_there_and_what_to_do(mmla: Command, real_texts: Path) -> None:
    out = mmla("ls", "--data_dir", real_texts).out
    assert (
        "12 tasks   15,710 test rows   texts 12/12   clips 0/12" in " ".join(out.split("  ")).replace("  ", " ")
        or "15,710 test rows   texts 12/12   clips 0/12" in out
    )
    assert "request IEMOCAP at sail.usc.edu/iemocap" in out
    rows = [json.loads(line) for line in mmla("ls", "--json", "--data_dir", real_texts).out.splitlines()]
    assert len(rows) == 12 and sum(row["rows"] for row in rows) == 15_710


def test_ls_of_a_difference(mmla: Command, meld_root: Path) -> None:
    out = mmla("ls", "mmla_emotion_meld", "--data_dir", meld_root).out
    assert "42 rows where the released file has 2,610" in out


def test_config_file_fills_what_no_flag_gave(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model: mmla-echo\ntasks: mmla_emotion_meld_text\ndata_dir: {meld_root}\nlimit: 3\n")
    ran = mmla("run", "--config", config, "--limit", 5)
    assert ran.status == 0 and "5 of 42 rows (--limit 5)" in ran.out
    config.write_text("modle: mmla-echo\n")
    ran = mmla("run", "--config", config)
    assert ran.status == 2 and "unknown keys: modle" in ran.err and "did you mean `model`" in ran.err


def test_show_prints_prompt_labels_and_answer_form(mmla: Command, meld_root: Path) -> None:
    ran = mmla("show", "mmla_emotion_meld", "--modality", "text", "--n", 2, "--data_dir", meld_root)
    assert ran.status == 0, ran.err
    assert "The speaker says: Sentence number 1. Based on the text" in ran.out
    assert "answer form: emotion: surprise" in ran.out and "labels (7): neutral, surprise" in ran.out


FAULTY = """\
task: mmla_intent_office
class: !function harness_ext.task.LabelTask
dataset: office.tsv
label: [agree, refuse]
dimension: intent
labels: [agree, ask, 3]
prompt_text: 'They say: {{ utterance }} {{ labels | join }}'
modality: speech
"""


def test_check_lists_all_faults_with_lines(mmla: Command, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    (tmp_path / "office.yaml").write_text(FAULTY)
    ran = mmla("check", tmp_path)
    assert ran.status == 2
    assert "task file has 4 faults" in ran.err and "0 of 1 task files are in order" in ran.out
    for line, what in {
        4: "unknown key `label`",
        6: "label 3 is not a text",
        7: "`prompt_text` uses {{ utterance }}",
        8: "modality `speech`",
    }.items():
        assert any(row.strip().startswith(f"line {line} ") and what in row for row in ran.err.splitlines()), (
            line,
            ran.err,
        )
    assert "did you mean `labels`" in ran.err and "columns: id, text, label, labels, dimension, clip" in ran.err


def test_check_reads_the_data_beside_the_yaml(mmla: Command, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    good = "task: office\nclass: !function harness_ext.task.LabelTask\ndataset: office.tsv\ndimension: intent\nlabels: [agree, ask]\n"
    (tmp_path / "office.yaml").write_text(good)
    tsv(tmp_path / "office.tsv", [("1", "a", "agree"), ("2", "b", "refuse"), ("2", "c", "ask")])
    ran = mmla("check", tmp_path)
    assert ran.status == 2
    assert 'data     label "refuse" in 1 row (first: row 2, line 3, id 2)' in ran.err.replace(
        "   label", "     label"
    ).replace("data       ", "data     ")
    assert "id '2' is given 2 times" in ran.err
    tsv(tmp_path / "office.tsv", [("1", "a", "agree"), ("2", "b", "ask")])
    assert mmla("check", tmp_path).status == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: [", "not YAML"),
        ("- a\n- b\n", "a task file is a mapping"),
        ("task: a\ntask: b\n", "`task` is given twice"),
        ("include: nowhere.yaml\ntask: a\n", "included file nowhere.yaml is not there"),
        ("include: x.yaml\ntask: a\n", "included file x.yaml is included twice"),
        ("task: a\nlabels: [yes, no]\n", "quote it: YAML reads yes, no, on, off and numbers as values"),
        ("task: a\nlabels: [ask_for, Ask-for]\n", "cannot be told apart"),
        ("group: g\ntask: [mmla_intnt]\n", "member `mmla_intnt` is no task"),
        ("task: a\ndataset: x\ndimension: y\nlabels: [a, b]\n", "`class` is not the label task"),
        ("task: a\nprompt: 'no place'\n", "has 0 places for <video>, not 1"),
        ("task: a\nprompt_text: '{{ text '\n", "is not a Jinja template"),
        ("task: a\ngeneration_kwargs: 5\n", "`generation_kwargs` is 5, not a mapping"),
        ("task: a\nnum_fewshot: three\n", "`num_fewshot` is 'three', not a whole number"),
        ("task: ../../evil\n", "the name `../../evil`"),
        ("task: a\ndataset: o.csv\n", "a TSV, or a folder with test.tsv"),
    ],
)
def test_check_names_what_lm_eval_would_drop_silently(mmla: Command, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    ran = mmla("check", tmp_path)
    assert ran.status == 2 and said in ran.err, ran.err


def test_packaged_tasks_are_in_order(mmla: Command, real_texts: Path) -> None:
    ran = mmla("check", "--data_dir", real_texts)
    assert (ran.status, ran.out) == (0, "38 of 38 task files are in order\n"), ran.err


MY_TASK = """\
task: my_office_talk
class: !function harness_ext.task.LabelTask
dataset: office.tsv
dimension: intent
labels: [agree, refuse, ask for help]
modality: text
"""


def test_a_dropped_yaml_of_a_few_lines_runs(mmla: Command, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    folder = tmp_path / "mine"
    tsv(
        folder / "office.tsv",
        [("1", "Sure.", "agree"), ("2", "No way.", "refuse"), ("3", "Could you?", "ask for help")],
    )
    (folder / "office.yaml").write_text(MY_TASK)
    assert len(MY_TASK.splitlines()) <= 12
    ran = mmla(
        "run",
        "--model",
        "mmla-echo",
        "--model_args",
        "rule=gold",
        "--include_path",
        folder,
        "--tasks",
        "my_office_talk",
    )
    assert ran.status == 0, ran.err
    assert "office.tsv  100.0" in ran.out
    assert "my_office_talk" in mmla("ls", "--include_path", folder, "--data_dir", folder).out


def test_a_dropped_yaml_with_faults_does_not_vanish(mmla: Command, tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(FAULTY)
    ran = mmla("run", "--model", "mmla-echo", "--include_path", tmp_path, "--tasks", "mmla_intent_office")
    assert ran.status == 2 and "task file has 4 faults" in ran.err


def test_a_config_file_takes_what_lm_eval_takes(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: mmla-echo\nmodel_args: rule=gold,error_rate=0.5\ntasks: [mmla_emotion_meld_text]\ndata_dir: {meld_root}\n"
        "seed: 42\nsamples: {mmla_emotion_meld_text: [1, 2]}\nprotocol: paper\ncheck_integrity: true\nlog_samples: false\n"
    )
    ran = mmla("run", "--config", config, "--protocol", "clean", "--model_args", "error_rate=0.0")
    assert ran.status == 0, ran.err
    assert "rule: gold" in ran.out and "protocol: clean" in ran.out and "2 of 42 rows" in ran.out


def test_patterns_and_tags_name_tasks(mmla: Command, meld_root: Path, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "include: "
        + str(Path(mmla("where").out.strip()) / "emotion" / "meld.yaml")
        + "\ntask: tagged\nmodality: text\ntag: mine\n"
    )
    for name in ("mmla_emotion_mel?_text", "mine"):
        ran = mmla("run", "--model", "mmla-echo", "--tasks", name, "--data_dir", meld_root, "--include_path", tmp_path)
        assert ran.status == 0 and "MELD" in ran.out, ran.err


def test_other_yaml_files_in_a_folder_are_left_alone(mmla: Command, tmp_path: Path, tsv: Callable[..., Path]) -> None:
    tsv(
        tmp_path / "office.tsv",
        [("1", "Sure.", "agree"), ("2", "No way.", "refuse"), ("3", "Could you?", "ask for help")],
    )
    (tmp_path / "office.yaml").write_text(MY_TASK)
    (tmp_path / "unrelated.yaml").write_text("- a\n- b\n")
    ran = mmla("run", "--model", "mmla-echo", "--include_path", tmp_path, "--tasks", "my_office_talk", "--write_out")
    assert ran.status == 0, ran.err
    only = mmla(
        "run",
        "--model",
        "mmla-echo",
        "--include_path",
        tmp_path,
        "--tasks",
        "my_office_talk",
        "--predict_only",
        "--run_dir",
        tmp_path / "run",
    )
    assert (
        only.status == 0
        and not (tmp_path / "run" / "results.json").exists()
        and (tmp_path / "run" / "samples").is_dir()
    )


def test_a_dataset_folder_beside_the_yaml(
    mmla: Command, tmp_path: Path, tsv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tsv(tmp_path / "mine" / "Office" / "test.tsv", [("1", "Sure.", "agree"), ("2", "No way.", "refuse")])
    tsv(tmp_path / "mine" / "Office" / "train.tsv", [("3", "Yes.", "agree"), ("4", "No.", "refuse")])
    (tmp_path / "mine" / "office.yaml").write_text(MY_TASK.replace("office.tsv", "Office"))
    monkeypatch.chdir(tmp_path)
    ran = mmla("run", "--model", "mmla-echo", "--include_path", "mine", "--tasks", "my_office_talk", "--num_fewshot", 2)
    assert ran.status == 0, ran.err
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path="mine", include_defaults=False).load(["my_office_talk"])
    assert len(loaded["tasks"]["my_office_talk"].eval_docs) == 2
