"""`mmla verify`: honest runs and their bundles pass; every planted tampering is found, one test each."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate
from harness_ext.reports.bundle import write_bundle
from harness_ext.reports.run_files import read_run
from tests.harness.loopback import Loopback

from ..clips import clip_bytes

TASK = "mmla_emotion_meld_text"
GROUP = "mmla_emotion_text"
LABELS = ["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"]
IEMOCAP = ["angry", "happy", "sad", "neutral", "frustrated", "excited"]
ERRORS = {"rule": "gold", "error_rate": 0.3, "unparsed_rate": 0.1}


def write_data(root: Path) -> Path:
    for name, labels in (("MELD", LABELS), ("IEMOCAP", IEMOCAP)):
        for split, count in (("test", 42), ("train", 20)):
            rows = [
                f"{split[0]}{n // 10}_{n % 10}\tSentence {n} of {split}.\t{labels[n % len(labels)]}"
                for n in range(count)
            ]
            path = root / name / f"{split}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(["id\ttext\tlabel", *rows]) + "\n", encoding="utf-8")
    clips = root / "MELD" / "video"
    clips.mkdir()
    for n in range(42):
        (clips / f"MELD_t{n // 10}_{n % 10}.mp4").write_bytes(clip_bytes() if n else b"")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Callable[..., Path]:
    """Run folders by options, each made once."""
    folder, kept = tmp_path_factory.mktemp("runs"), {}

    def make(tasks: str = GROUP, **options: Any) -> Path:
        key = json.dumps([tasks, options], default=str)
        if key not in kept:
            kept[key] = folder / str(len(kept))
            given = {"model_args": ERRORS, "data_dir": str(data), **options}
            evaluate("mmla-echo", tasks, run_dir=kept[key], **given)
        return kept[key]

    return make


class Tampered:
    """A copy of a run folder to plant faults in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self, change: Callable[[Any], Any]) -> None:
        file = self.path / "results.json"
        results = json.loads(file.read_text())
        change(results)
        file.write_text(json.dumps(results))

    def rows(self, change: Callable[[list[Any]], Any], task: str = TASK) -> None:
        file = self.path / "samples" / f"{task}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Tampered]:
    def copied(run: Path) -> Tampered:
        return Tampered(Path(shutil.copytree(run, tmp_path / "copy")))

    return copied


@pytest.fixture
def run(made: Callable[..., Path], copy: Callable[[Path], Tampered]) -> Tampered:
    return copy(made())


@pytest.fixture
def deviations(mmla: Callable[..., Any]) -> Callable[..., str]:
    """What `mmla verify` says about a run that does not hold."""

    def said(run: Tampered, *arguments: object) -> str:
        ran = mmla("verify", run.path, *arguments)
        assert ran.status == 1, ran.out + ran.err
        return str(ran.out.split("\ndeviations\n")[1])

    return said


# ------------------------------------------------------------------------------------------------------- honest runs

HONEST = {
    "as usual": {},
    "limit": {"limit": 5},
    "limit as a share": {"limit": 0.3},
    "samples": {"samples": {TASK: [1, 4, 9], "mmla_emotion_iemocap_text": [0, 2]}},
    "repeats": {"repeats": 3, "label_order": "shuffled:7"},
    "shuffled": {"label_order": "shuffled:7"},
    "rank": {"answer": "rank"},
    "ranked repeats": {"answer": "rank", "repeats": 2, "label_order": "shuffled:1"},
    "paper": {"protocol": "paper"},
    "paper of a family": {"protocol": "paper", "released_family": "minicpm-v"},
    "chat template": {"apply_chat_template": True},
    "few-shot": {"num_fewshot": 2},
    "few-shot chat": {"num_fewshot": 2, "apply_chat_template": True, "system_instruction": "Be brief."},
    "system prompt": {"system_instruction": "Be brief."},
    "skipped clips": {"tasks": "mmla_emotion_meld", "on_bad_clip": "skip"},
    "clips as text": {"tasks": "mmla_emotion_meld", "on_bad_clip": "text"},
    "clips left out": {"tasks": "mmla_emotion", "on_bad_clip": "skip"},
    "video alone": {"tasks": "mmla_emotion_meld", "on_bad_clip": "text", "modality": "video"},
    "one row": {"limit": 1},
    "sample data": {"tasks": "mmla_text", "data_dir": "sample:12"},
    "thoughts": {
        "model_args": {"script": ["<think>joy", "<think>joy</think>anger", "", "Emotion: fear", "happy or sad"]}
    },
}


@pytest.mark.parametrize("options", HONEST.values(), ids=HONEST.keys())
def test_an_honest_run_and_its_bundle_hold(
    options: dict[str, Any], made: Callable[..., Path], mmla: Callable[..., Any], tmp_path: Path, data: Path
) -> None:
    path = made(**options)
    ran = mmla("verify", path)
    assert ran.status == 0, ran.out + ran.err
    assert "all hold" in ran.out and "not checked" not in ran.out
    bundle = write_bundle(read_run(path), tmp_path / "run.zip")
    ran = mmla("verify", bundle)
    assert ran.status == 0, ran.out + ran.err
    assert "texts and prompts are not in it" in ran.out


def test_shards_and_what_they_merge_to_hold(mmla: Callable[..., Any], tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "run"
    for part in ("1/2", "2/2"):
        evaluate("mmla-echo", GROUP, model_args=ERRORS, data_dir=str(data), limit=15, run_dir=folder, shard=part)
    assert mmla("merge", folder).status == 0
    for path in (folder, *sorted((folder / "shards").iterdir())):
        ran = mmla("verify", path)
        assert ran.status == 0, ran.out + ran.err


def test_without_data_it_says_what_was_not_checked(run: Tampered, mmla: Callable[..., Any], data: Path) -> None:
    run.results(lambda r: r["mmla"]["data"]["root"].update(given="nowhere"))
    bundle = write_bundle(read_run(run.path), run.path / "run.zip")
    ran = mmla("verify", bundle)
    assert ran.status == 1  # the score card names the other data root
    ran = mmla("verify", run.path)
    assert "data files: mmla_emotion_meld_text: no data at hand; --data_dir FOLDER names it" in ran.out
    assert "the question in 42 prompts" in mmla("verify", bundle).out
    assert "not checked" not in mmla("verify", bundle, "--data_dir", data).out


def test_a_task_of_ones_own(mmla: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "office.tsv").write_text("id\ttext\tlabel\n1\tHand me that.\task\n2\tNo.\trefuse\n")
    (folder / "office.yaml").write_text(
        "task: mmla_intent_office\nclass: !function harness_ext.task.LabelTask\ndataset: office.tsv\n"
        "dimension: intent\nmodality: text\nlabels: [ask, refuse]\n"
    )
    path = tmp_path / "run"
    evaluate("mmla-echo", "mmla_intent_office", include_path=folder, run_dir=path)
    ran = mmla("verify", path)
    assert ran.status == 0 and "mmla_intent_office is no installed task" in ran.out
    ran = mmla("verify", path, "--include_path", folder)
    assert ran.status == 0 and "not checked" not in ran.out


# --------------------------------------------------------------------------------------------------------- tampering


def test_one_raw_answer_changed(run: Tampered, deviations: Callable[..., str]) -> None:
    right = next(n for n, row in enumerate(json.loads(line) for line in samples(run)) if row["acc"] == 0)
    run.rows(lambda rows: rows[right].update(resps=[["emotion: " + rows[right]["doc"]["label"]]]))
    said = deviations(run)
    assert "answers: mmla_emotion_meld_text id" in said and "acc,none" in said


def samples(run: Tampered) -> list[str]:
    return (run.path / "samples" / f"{TASK}.jsonl").read_text().splitlines()


def test_a_row_removed(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows.pop(3))
    said = deviations(run)
    assert "rows: mmla_emotion_meld_text: the sample of row 3 is missing" in said and "41 samples" in said


def test_a_row_stands_twice(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows.append(rows[0]))
    assert "id 't0_0' stands in 2 samples" in deviations(run)


def test_an_answer_of_another_row_twice(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows.__setitem__(1, {**rows[0], "doc_id": 1}))
    assert "id 't0_0' stands in 2 samples" in deviations(run)


def test_a_gold_label_swapped(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows[0]["doc"].update(label="joy"))
    said = deviations(run)
    assert "gold labels: mmla_emotion_meld_text id t0_0: gold label 'joy', target 'emotion: neutral'" in said


def test_a_gold_label_swapped_with_its_target(run: Tampered, deviations: Callable[..., str]) -> None:
    def swap(rows: list[Any]) -> None:
        digest = hashlib.sha256(b"emotion: joy").hexdigest()
        rows[0]["doc"]["label"] = "joy"
        rows[0].update(target="emotion: joy", target_hash=digest)

    run.rows(swap)
    assert 'data files: mmla_emotion_meld_text id t0_0 label: "joy" recorded, "neutral" expected' in deviations(run)


def test_a_gold_label_that_is_not_declared(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows[0]["doc"].update(label="envy"))
    said = deviations(run)
    assert "gold label 'envy' is not declared" in said and "metrics: cannot be computed from the samples" in said


def test_right_where_it_was_wrong(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: [row.update(acc=1.0) for row in rows])
    assert "acc: 1.0 recorded, 0.0 expected" in deviations(run)


@pytest.mark.parametrize(
    "metric", ["acc", "acc_mean", "acc_stderr", "macro_f1", "weighted_f1", "released_f1", "unparsed"]
)
def test_a_metric_edited(run: Tampered, deviations: Callable[..., str], metric: str) -> None:
    run.results(lambda r: r["results"][TASK].update({f"{metric},none": 0.987}))
    assert f"metrics: {TASK} {metric},none: 0.987 recorded" in deviations(run)


def test_an_interval_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["intervals"].update(macro_f1=[0.8, 0.9]))
    assert f"intervals: {TASK} intervals macro_f1 [0]: 0.8 recorded" in deviations(run)


@pytest.mark.parametrize("section", ["results", "groups"])
def test_a_group_average_edited(run: Tampered, deviations: Callable[..., str], section: str) -> None:
    run.results(lambda r: r[section][GROUP].update({"acc_mean,none": 0.9}))
    assert "acc_mean,none: 0.9 recorded" in deviations(run)


def test_an_interval_of_a_group_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["groups"][GROUP]["intervals"].update(acc=[0.8, 0.9]))
    assert f"group averages: group {GROUP} intervals acc [0]: 0.8 recorded" in deviations(run)


def test_a_cell_of_the_confusion_matrix_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["confusion"]["counts"][0].__setitem__(0, 40))
    assert f"confusion: {TASK} confusion counts [0] [0]: 40 recorded" in deviations(run)


def test_a_score_of_one_class_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["per_class"]["fear"].update(recall=0.123))
    assert f"per class: {TASK} per_class fear recall: 0.123 recorded" in deviations(run)


def test_a_baseline_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["baselines"]["majority"].update(accuracy=0.01))
    assert f"baselines: {TASK} baselines majority accuracy: 0.01 recorded" in deviations(run)


def test_a_count_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["counts"].update(unparsed=0))
    assert f"counts: {TASK} counts unparsed: 0 recorded" in deviations(run)


def test_the_limit_hidden(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(limit=10))
    run.results(lambda r: (r["config"].update(limit=None), r["mmla"]["notes"].pop(1)))
    said = deviations(run)
    assert "notes: the note is missing: a partial set: 20 of 84 rows" in said
    assert "rows: mmla_emotion_meld_text: the sample of row 10 is missing" in said


def test_the_limit_hidden_thoroughly(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(limit=10))

    def hide(results: Any) -> None:
        results["config"]["limit"] = None
        results["mmla"]["notes"] = results["mmla"]["notes"][:1]
        for task, block in results["mmla"]["tasks"].items():
            block["data"].update(rows=10, known_rows=10, difference=None)
            results["n-samples"][task]["original"] = 10

    run.results(hide)
    said = deviations(run)
    assert f"rows: {TASK} known_rows: 10 recorded, 2610 expected" in said
    assert f"notes: the note is missing: {TASK}: 10 rows where the released file has 2,610" in said


def test_another_data_file(made: Callable[..., Path], tmp_path: Path, deviations: Callable[..., str]) -> None:
    other = write_data(tmp_path / "other")
    file = other / "MELD" / "test.tsv"
    file.write_text(file.read_text().replace("Sentence 5 of", "Another 5 of"))
    said = deviations(Tampered(made()), "--data_dir", other)
    assert f"data files: {TASK} sha256 of test.tsv" in said and "Another 5 of test." in said
    assert "prompts: mmla_emotion_meld_text id t0_5: the prompt is not what the installed task asks" in said


def test_a_data_digest_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK]["data"].update(sha256="0" * 64))
    assert f"data files: {TASK} sha256 of test.tsv: " in deviations(run)


def test_another_prompt(run: Tampered, deviations: Callable[..., str]) -> None:
    def ask(rows: list[Any]) -> None:
        prompt = rows[0]["arguments"][0][0] + " The answer is neutral."
        rows[0]["arguments"][0][0] = prompt
        rows[0]["prompt_hash"] = hashlib.sha256(prompt.encode()).hexdigest()

    run.rows(ask)
    said = deviations(run)
    assert "prompts: mmla_emotion_meld_text id t0_0: the prompt is not what the installed task asks" in said
    assert f"prompts: {TASK} prompts_sha256" in said


def test_another_prompt_under_a_chat_template(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(apply_chat_template=True))

    def ask(rows: list[Any]) -> None:
        rows[0]["arguments"][0][0] = rows[0]["arguments"][0][0].replace("candidate", "likely")

    run.rows(ask)
    said = deviations(run)
    assert "the prompt has not the hash beside it" in said
    assert "the prompt does not hold what the installed task asks" in said


def test_another_prompt_in_a_bundle(run: Tampered, mmla: Callable[..., Any], tmp_path: Path) -> None:
    run.rows(lambda rows: rows[0].update(prompt_hash="ab" * 32))
    ran = mmla("verify", write_bundle(read_run(run.path), tmp_path / "run.zip"))
    assert ran.status == 1 and "id t0_0: the prompt is not what the installed task asks" in ran.out


def test_the_wording_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["configs"][TASK].update(prompt="What does {{ text }} mean?"))
    assert f"tasks: {TASK} wording" in deviations(run)


def test_a_label_list_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"]["tasks"][TASK].update(labels=LABELS[:-1]))
    assert f"tasks: {TASK} labels" in deviations(run)


def test_a_task_dropped(run: Tampered, deviations: Callable[..., str]) -> None:
    def drop(results: Any) -> None:
        del results["mmla"]["tasks"]["mmla_emotion_iemocap_text"]
        results["mmla"]["groups"][GROUP]["tasks"] = [TASK]

    run.results(drop)
    assert f"tasks: group {GROUP} tasks: 1 values recorded, 2 expected" in deviations(run)


@pytest.mark.parametrize(
    ("key", "value"), [("outcome", "several"), ("rule", "mention"), ("released", "multi"), ("truncated", True)]
)
def test_evidence_of_an_answer_edited(run: Tampered, deviations: Callable[..., str], key: str, value: Any) -> None:
    run.rows(lambda rows: rows[0]["answer"].update({key: value}))
    assert f"answers: mmla_emotion_meld_text id t0_0 {key}: {json.dumps(value)} recorded" in deviations(run)


def test_a_parsed_label_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: rows[0]["answer"].update(label="fear"))
    assert 'answers: mmla_emotion_meld_text id t0_0 label: "fear" recorded' in deviations(run)


def test_a_probability_edited(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(answer="rank"))
    run.rows(lambda rows: rows[0]["probabilities"].update(joy=0.99))
    assert "label probabilities: mmla_emotion_meld_text id t0_0 probabilities joy: 0.99 recorded" in deviations(run)


def test_label_scores_edited(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(answer="rank"))

    def edit(rows: list[Any]) -> None:
        rows[0]["response"]["label_scores"]["disgust"] = -0.001
        del rows[1]["response"]["label_scores"]["joy"]
        del rows[2]["response"]["label_scores"]

    run.rows(edit)
    said = deviations(run)
    assert "id t0_0: the answer is not the label with the highest score" in said
    assert "id t0_1: label scores of neutral, surprise" in said
    assert "id t0_2: label scores of no label" in said


def test_a_note_taken_away(run: Tampered, deviations: Callable[..., str]) -> None:
    run.results(lambda r: r["mmla"].update(notes=[]))
    assert "notes: the note is missing: answers by the echo rule" in deviations(run)


def test_skipped_rows_hidden(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made("mmla_emotion_meld", on_bad_clip="skip"))
    run.results(lambda r: r["mmla"].update(notes=[n for n in r["mmla"]["notes"] if "skipped" not in n]))
    assert "the note is missing: mmla_emotion_meld: 1 rows skipped because of bad clips" in deviations(run)


def test_spread_over_repeats_edited(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(repeats=3, label_order="shuffled:7"))
    run.results(lambda r: r["mmla"]["repeats"]["tasks"][TASK]["metrics"]["acc"].update(sd=0.001))
    assert f"repeats: spread: tasks {TASK} metrics acc sd: 0.001 recorded" in deviations(run)


def test_the_best_repeat_alone(
    made: Callable[..., Path], copy: Callable[..., Tampered], deviations: Callable[..., str]
) -> None:
    run = copy(made(repeats=3, label_order="shuffled:7"))
    run.results(lambda r: r["mmla"].pop("repeats"))
    assert "repeats: results of 1, and samples of 3" in deviations(run)


def test_a_score_card_edited(run: Tampered, deviations: Callable[..., str]) -> None:
    file = run.path / "scorecard.md"
    file.write_text(file.read_text().replace("| MELD | 42 |", "| MELD | 2,610 |"))
    assert "score card: scorecard.md line" in deviations(run)
    file.unlink()
    assert "score card: scorecard.md is missing" in deviations(run)


def test_all_deviations_are_listed_at_once(run: Tampered, deviations: Callable[..., str]) -> None:
    run.rows(lambda rows: [row["answer"].update(outcome="several") for row in rows])
    run.results(lambda r: r["results"][TASK].update({"acc,none": 0.99}))
    said = deviations(run)
    assert "answers: and 22 more; --all lists them" in said and "metrics: mmla_emotion_meld_text acc,none" in said
    said = deviations(run, "--all")
    assert said.count("outcome: ") == 42 and "more" not in said


# --------------------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_verified_is_exit_2(run: Tampered, mmla: Callable[..., Any], tmp_path: Path) -> None:
    assert mmla("verify", tmp_path / "nowhere").status == 2
    run.rows(lambda rows: rows[0].pop("doc"))
    ran = mmla("verify", run.path)
    assert ran.status == 2 and "cannot be verified: its files lack what a run writes" in ran.err
    (run.path / "samples" / f"{TASK}.jsonl").unlink()
    ran = mmla("verify", run.path)
    assert ran.status == 2 and "cannot be read" in ran.err


def test_runs_on_a_server_hold(mmla: Callable[..., Any], tmp_path: Path) -> None:
    """Their prompts are messages as JSON, with newlines and quotes escaped."""
    with Loopback().serving() as server:
        ran = mmla(
            "run", "--model", "mmla-api", "--model_args", f"model=m,base_url={server},num_frames=2", "--tasks",
            "mmla_intent_mintrec_text,mmla_speaking_style_mustard", "--data_dir", "sample:3", "--run_dir", tmp_path / "run",
        )  # fmt: skip
    assert ran.status == 0, ran.err
    verified = mmla("verify", tmp_path / "run")
    assert verified.status == 0, verified.out
