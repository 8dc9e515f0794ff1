"""`--label_order` and `--repeats`: what they change in a prompt, and what they must not change elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_ext import evaluate
from harness_ext.label_order import LabelOrder
from mmla_tasks.errors import UsageError

MELD = "mmla_emotion_meld_text"
SCRIPT = {"script": ["joy", "anger", "emotion: joy", "no idea", "fear"]}


def echo(root: Path, **options: Any) -> dict[str, Any]:
    return evaluate("mmla-echo", options.pop("tasks", MELD), data_dir=str(root), **options)


def prompts(results: dict[str, Any], task: str = MELD) -> list[str]:
    return [row["arguments"][0][0] for row in results["samples"][task]]


def listed(prompt: str) -> list[str]:
    return prompt.rsplit("are: [", 1)[1].split("]", 1)[0].split(", ")


def without_clock(results: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in results.items() if k not in ("date", "timings")}, default=str)


@given(st.lists(st.text(min_size=1), unique=True, min_size=1), st.integers(0, 2**40), st.text())
def test_an_order_is_a_permutation_that_depends_on_seed_and_dataset_alone(
    labels: list[str], seed: int, dataset: str
) -> None:
    order = LabelOrder.read(f"shuffled:{seed}")
    assert sorted(order.arrange(labels, dataset)) == sorted(labels)
    assert order.arrange(labels, dataset) == LabelOrder(seed).arrange(labels, dataset)
    assert LabelOrder.read("declared").arrange(labels, dataset) == tuple(labels)
    assert LabelOrder.read(str(order)) == order and order.later(3).seed == seed + 3


def test_another_process_draws_the_same_order() -> None:
    code = "from harness_ext.label_order import LabelOrder; print(*LabelOrder(7).arrange('abcdefgh', 'MELD'), sep='')"
    drawn = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert drawn == {"".join(LabelOrder(7).arrange("abcdefgh", "MELD")) + "\n"}


@pytest.mark.parametrize("wrong", ["shuffled", "shuffled:", "shuffled:x", "shuffled:-1", "shuffled:1.5", "random", ""])
def test_a_wrong_order_names_the_form(wrong: str, mmla: Callable[..., Any]) -> None:
    ran = mmla("run", "--model", "mmla-echo", "--tasks", MELD, "--data_dir", "sample", "--label_order", wrong)
    assert ran.status == 2 and "declared, shuffled:SEED" in ran.err and "shuffled:7" in ran.err


def test_only_the_prompt_changes(meld_root: Path) -> None:
    """Declared labels, parsing, ranking, baselines and scores of answers that do not read the prompt stay equal."""
    plain, shuffled = (echo(meld_root, answer="rank", label_order=order) for order in (None, "shuffled:7"))
    declared = plain["mmla"]["tasks"][MELD]["labels"]
    assert {tuple(listed(prompt)) for prompt in prompts(plain)} == {tuple(declared)}
    (drawn,) = {tuple(listed(prompt)) for prompt in prompts(shuffled)}
    assert list(drawn) != declared and sorted(drawn) == sorted(declared)
    block = shuffled["mmla"]["tasks"][MELD]
    assert block["prompt_labels"] == list(drawn) and block["labels"] == declared
    assert block["confusion"] == plain["mmla"]["tasks"][MELD]["confusion"]
    assert shuffled["results"] == plain["results"]
    assert [list(row["probabilities"]) for row in shuffled["samples"][MELD]] == [declared] * 42
    assert shuffled["config"]["label_order"] == shuffled["mmla"]["label_order"] == "shuffled:7"


def test_neither_limit_nor_twin_changes_the_order() -> None:
    first = evaluate("mmla-echo", MELD, data_dir="sample", limit=1, label_order="shuffled:7")
    video = evaluate("mmla-echo", "mmla_emotion_meld", data_dir="sample", limit=2, label_order="shuffled:7")
    assert first["mmla"]["tasks"][MELD]["prompt_labels"] == video["mmla"]["tasks"]["mmla_emotion_meld"]["prompt_labels"]


def test_declared_is_the_default_to_the_byte(meld_root: Path) -> None:
    assert without_clock(echo(meld_root)) == without_clock(echo(meld_root, label_order="declared", repeats=1))


def test_the_released_two_labels_are_permuted_and_three_are_scored() -> None:
    task = "mmla_sentiment_chsims2_text"
    seen = set()
    for seed in range(6):
        results = evaluate(
            "mmla-echo", task, data_dir="sample", limit=1, protocol="paper", label_order=f"shuffled:{seed}"
        )
        seen.add(tuple(listed(prompts(results, task)[0])))
        assert len(results["mmla"]["tasks"][task]["labels"]) == 3
    assert len(seen) == 2 and {frozenset(pair) for pair in seen} == {frozenset(next(iter(seen)))}


def test_few_shot_examples_list_the_same_order(meld_root: Path, tsv: Callable[..., Path]) -> None:
    tsv(meld_root / "MELD" / "train.tsv", [(f"9_{n}", f"Example {n}.", "joy") for n in range(4)])
    results = echo(meld_root, limit=1, num_fewshot=2, label_order="shuffled:7")
    (prompt,) = prompts(results)
    lists = [part.split("]", 1)[0] for part in prompt.split("are: [")[1:]]
    assert len(lists) == 3 and len(set(lists)) == 1


def test_the_order_stands_beside_scores_and_is_shown(meld_root: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    command = ["run", "--model", "mmla-echo", "--tasks", MELD, "--data_dir", meld_root, "--run_dir", tmp_path / "r"]
    ran = mmla(*command, "--label_order", "shuffled:7")
    assert ran.status == 0, ran.err
    for text in (ran.out, (tmp_path / "r" / "scorecard.md").read_text()):
        assert "labels shuffled:7: the prompt lists them in a drawn order" in text
    other = mmla(*command)
    assert other.status == 2 and 'label_order: "shuffled:7" there, nothing now' in other.err
    shown = mmla("show", MELD, "--data_dir", meld_root, "--n", 1, "--label_order", "shuffled:7")
    drawn = json.loads((tmp_path / "r" / "results.json").read_text())["mmla"]["tasks"][MELD]["prompt_labels"]
    assert f"labels shuffled:7: {', '.join(drawn)}" in shown.out and f"are: [{', '.join(drawn)}]" in shown.out


def test_repeats_are_runs_by_themselves_and_their_mean_and_spread(meld_root: Path) -> None:
    results = echo(meld_root, model_args=SCRIPT, label_order="shuffled:7", repeats=3)
    block = results["mmla"]["repeats"]
    assert block["count"] == 3 and block["torch_seeds"] == [1234, 1235, 1236]
    assert block["label_orders"] == ["shuffled:7", "shuffled:8", "shuffled:9"]
    spread = block["tasks"][MELD]["metrics"]["acc"]
    rows = results["samples"][MELD]
    assert [row["repeat"] for row in rows] == [0] * 42 + [1] * 42 + [2] * 42
    assert spread["values"] == [sum(row["acc"] for row in rows[42 * r : 42 * r + 42]) / 42 for r in range(3)]
    assert results["results"][MELD]["acc,none"] == spread["mean"] == pytest.approx(sum(spread["values"]) / 3)
    assert spread["min"] <= spread["mean"] <= spread["max"] and spread["sd"] > 0
    assert {"acc", "macro_f1", "weighted_f1", "unparsed"} <= block["tasks"][MELD]["metrics"].keys()
    for r, order in enumerate(block["tasks"][MELD]["prompt_labels"]):
        alone = echo(meld_root, model_args=SCRIPT, label_order=f"shuffled:{7 + r}", limit=1)
        assert alone["mmla"]["tasks"][MELD]["prompt_labels"] == order
        assert {tuple(listed(row["arguments"][0][0])) for row in rows[42 * r : 42 * r + 42]} == {tuple(order)}
    low, high = results["mmla"]["tasks"][MELD]["intervals"]["acc"]
    assert low < spread["min"] and spread["max"] < high


def test_agreement_counts_rows_with_one_label_in_all_repeats(data_root: Callable[..., Path]) -> None:
    root = data_root(MELD=[(str(n), "a", "joy") for n in range(3)])
    script = ["joy", "anger", "what?", "joy", "fear", "what?"]
    results = echo(root, model_args={"script": script}, label_order="shuffled:0", repeats=2)
    assert results["mmla"]["repeats"]["tasks"][MELD]["agreement"] == pytest.approx(1 / 3)


def test_groups_have_mean_and_spread(data_root: Callable[..., Path]) -> None:
    root = data_root(MELD=[(str(n), "a", "joy") for n in range(3)], IEMOCAP=[(str(n), "a", "Happy") for n in range(2)])
    results = echo(root, tasks="mmla_emotion_text", model_args=SCRIPT, label_order="shuffled:0", repeats=2)
    group = results["mmla"]["repeats"]["groups"]["mmla_emotion_text"]
    for metric in ("acc", "acc_mean"):
        assert results["results"]["mmla_emotion_text"][f"{metric},none"] == group["metrics"][metric]["mean"]
        assert results["groups"]["mmla_emotion_text"][f"{metric},none"] == group["metrics"][metric]["mean"]
        assert len(group["metrics"][metric]["values"]) == 2
    assert 0 <= group["agreement"] <= 1


def test_more_repeats_ask_only_the_new_ones(meld_root: Path, tmp_path: Path, mmla: Callable[..., Any]) -> None:
    from harness_ext.run import RunOptions, run

    def repeated(count: int) -> Any:
        options = RunOptions(
            model="mmla-echo",
            tasks=[MELD],
            data_dir=str(meld_root),
            label_order="shuffled:0",
            repeats=count,
            run_dir=tmp_path,
        )
        return run(options)

    assert repeated(3).found == 0
    five = repeated(5)
    assert five.found == 3 * 42
    assert len((tmp_path / "journal" / "answers.jsonl").read_text().splitlines()) == 5 * 42
    assert len((tmp_path / "samples" / f"{MELD}.jsonl").read_text().splitlines()) == 5 * 42
    assert repeated(2).found == 2 * 42
    earlier = json.loads((tmp_path / "earlier-1" / "results.json").read_text())
    assert earlier["mmla"]["repeats"]["count"] == 5  # fewer repeats later lose nothing


def test_repeats_of_sampled_answers_take_further_seeds(meld_root: Path, tmp_path: Path) -> None:
    results = echo(meld_root, gen_kwargs={"temperature": 0.7}, repeats=2, limit=3, run_dir=tmp_path)
    assert results["mmla"]["repeats"]["torch_seeds"] == [1234, 1235]
    assert results["mmla"]["repeats"]["label_orders"] == ["declared", "declared"]
    assert len((tmp_path / "journal" / "answers.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "options",
    [{}, {"gen_kwargs": {"temperature": 0.7}, "answer": "rank"}, {"label_order": "declared"}],
    ids=["greedy", "ranked", "declared"],
)
def test_repeats_where_nothing_varies_say_what_to_add(meld_root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the same each time") as fault:
        echo(meld_root, repeats=2, **options)
    assert "--label_order shuffled:0" in str(fault.value)


def test_sampled_repeats_need_a_seed(meld_root: Path) -> None:
    with pytest.raises(UsageError, match="need a torch seed"):
        echo(meld_root, repeats=2, gen_kwargs={"temperature": 0.7}, seed=(0, 1234, None, 1234))


def test_answers_of_a_file_are_not_repeated(meld_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("")
    with pytest.raises(UsageError, match="mmla-predictions answers the same each time"):
        evaluate(
            "mmla-predictions",
            MELD,
            data_dir=str(meld_root),
            model_args={"answers": str(file)},
            label_order="shuffled:0",
            repeats=2,
        )


def test_the_screen_and_the_card_show_the_spread(meld_root: Path, mmla: Callable[..., Any], tmp_path: Path) -> None:
    ran = mmla(
        "run", "--model", "mmla-echo", "--tasks", MELD, "--data_dir", meld_root, "--run_dir", tmp_path,
        "--label_order", "shuffled:7", "--repeats", 3, "--model_args", json.dumps(SCRIPT),
    )  # fmt: skip
    assert ran.status == 0, ran.err
    card = (tmp_path / "scorecard.md").read_text()
    for text in (ran.out, card):
        assert "mean ± standard deviation of 3 repeats: labels shuffled:7 to shuffled:9" in text and " ± " in text
    assert "agreement" in ran.out and "## Repeats" in card and f"| {MELD} | macro_f1 |" in card
    for part in ("--repeats", 0), ("--repeats", 2):
        refused = mmla("run", "--model", "mmla-echo", "--tasks", MELD, "--data_dir", meld_root, *part)
        assert refused.status == 2 and "--repeats" in refused.err
