"""Scorers against scikit-learn, against the released code's numbers, and against sums done by hand."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from mmla_tasks import scorers
from mmla_tasks.answers import parse_answer
from mmla_tasks.records import MULTI, UNKNOWN, Answer
from mmla_tasks.scorers import METRICS

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = sorted((SHARED / "golden").glob("*.jsonl"))
LABELS = ["joy", "anger", "Fear", "statement-opinion"]

rows = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, UNKNOWN, MULTI])), min_size=1, max_size=40)


def oracle(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Every metric by scikit-learn, the declared ones over LABELS."""
    golds, predicted = [list(column) for column in zip(*pairs, strict=True)]
    macro = precision_recall_fscore_support(golds, predicted, labels=LABELS, average="macro", zero_division=0)
    weighted = precision_recall_fscore_support(golds, predicted, labels=LABELS, average="weighted", zero_division=0)
    lower = [gold.lower() for gold in golds], [label.lower() for label in predicted]
    released = precision_recall_fscore_support(*lower, average="macro", zero_division=0)
    released_weighted = precision_recall_fscore_support(*lower, average="weighted", zero_division=0)
    return {
        "acc": accuracy_score(golds, predicted),
        "macro_f1": macro[2],
        "macro_precision": macro[0],
        "macro_recall": macro[1],
        "weighted_f1": weighted[2],
        "weighted_precision": weighted[0],
        "unparsed": sum(label in (UNKNOWN, MULTI) for label in predicted) / len(pairs),
        "released_acc": accuracy_score(*lower),
        "released_f1": released[2],
        "released_precision": released[0],
        "released_recall": released[1],
        "released_wf1": released_weighted[2],
        "released_wp": released_weighted[0],
    }


@settings(deadline=None, max_examples=50)
@given(rows)
def test_metrics_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    assert {name: metric(pairs, LABELS) for name, metric in METRICS.items()} == pytest.approx(oracle(pairs))


@settings(deadline=None, max_examples=30)
@given(rows)
def test_classes_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    golds, predicted = zip(*pairs, strict=True)
    expected = precision_recall_fscore_support(golds, predicted, labels=LABELS, zero_division=0)
    classes = scorers.per_class(pairs, LABELS)
    assert list(classes) == LABELS
    for i, scores in enumerate(classes.values()):
        assert list(scores.values()) == pytest.approx([column[i] for column in expected])
    matrix = scorers.confusion_matrix(pairs, LABELS)
    every = [*LABELS, UNKNOWN, MULTI]
    assert (matrix["rows"], matrix["columns"]) == (LABELS, every)
    assert matrix["counts"] == confusion_matrix(golds, predicted, labels=every)[: len(LABELS)].tolist()
    json.dumps([classes, matrix])


def test_table_order_and_direction() -> None:
    assert list(METRICS) == list(oracle([("joy", "joy")]))
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["unparsed"]
    assert [name for name, metric in METRICS.items() if metric.released] == list(METRICS)[7:]


def test_unknown_dilutes_the_released_macro_average_only() -> None:
    # reference/protocol.md, section 6: one unknown in four rows of two classes.
    pairs = [("a", "a"), ("a", "a"), ("b", "b"), ("b", UNKNOWN)]
    assert scorers.released_f1(pairs) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert scorers.macro_f1(pairs, ["a", "b"]) == pytest.approx((1 + 2 / 3) / 2)
    assert scorers.released_acc(pairs) == scorers.accuracy(pairs) == 0.75


def test_macro_averages_divide_by_the_declared_labels() -> None:
    pairs = [("a", "a"), ("b", "b")]
    assert scorers.macro_f1(pairs, ["a", "b", "never seen", "c"]) == 0.5
    assert scorers.macro_f1(pairs) == 1  # no declared labels: those of the gold column
    assert scorers.weighted_f1(pairs, ["a", "b", "never seen", "c"]) == 1


def test_released_metrics_lower_case_first() -> None:
    assert scorers.released_acc([("Frustrated", "frustrated")]) == scorers.released_f1([("JOY", "joy")]) == 1


@pytest.mark.parametrize("pair", [("envy", "joy"), ("joy", "envy"), (UNKNOWN, "joy")])
def test_a_label_outside_the_list_is_an_error(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="outside the declared labels"):
        scorers.macro_f1([pair], LABELS)


def test_nothing_measured_is_nan() -> None:
    assert all(math.isnan(metric([], LABELS)) for metric in METRICS.values())


def test_documents_and_outcomes() -> None:
    texts = ["joy", "emotion: joy\nanger", "joy, anger", "", "hm"]
    parsed = [parse_answer(text, ["joy", "anger"], dimension="emotion") for text in texts]
    assert [scorers.score_document("joy", answer)[1] for answer in parsed] == ["joy", "joy", MULTI, UNKNOWN, UNKNOWN]
    assert scorers.score_document("joy", parsed[1], released=True) == ("joy", MULTI)
    assert type(scorers.score_document("joy", parsed[0])[1]) is str
    skipped = Answer(UNKNOWN, outcome="skipped", rule=None, raw="", released=UNKNOWN)
    assert scorers.outcome_counts([*parsed, skipped]) == {
        "matched": 2, "none": 1, "several": 1, "empty": 1, "truncated": 0, "skipped": 1,
    }  # fmt: skip


@pytest.mark.skipif(not GOLDEN, reason="needs ../shared/golden, which lies beside the repository on the build machine")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("selection", ["all", "model_answers_only"])
def test_released_metrics_equal_the_released_code(path: Path, selection: str) -> None:
    facts = yaml.load((SHARED / "reference" / "dataset_facts.yaml").read_text("utf-8"), yaml.CSafeLoader)["datasets"]
    dataset: dict[str, Any] = next(entry for entry in facts.values() if entry["hf_folder"] == path.stem)
    labels = dataset["labels_upstream_order"]
    read = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    pairs = [
        scorers.score_document(row["label"], parse_answer(row["response"], labels, dimension="x"), released=True)
        for row in read
        if selection == "all" or row["source"] != "hand-made"
    ]
    expected = json.loads((path.parent / f"{path.stem}.metrics.json").read_text("utf-8"))["percent"][selection]
    names = ["released_acc", "released_f1", "released_precision", "released_recall", "released_wf1", "released_wp"]
    percent = [100 * METRICS[name](pairs, labels) for name in names]
    assert percent == pytest.approx(list(expected.values()), abs=0.0051)


def test_all_metrics_of_the_largest_dataset_in_no_time() -> None:
    draw = random.Random(0)
    pairs = [(draw.choice(LABELS), draw.choice([*LABELS, UNKNOWN, MULTI])) for _ in range(2610)]
    start = time.process_time()
    for metric in METRICS.values():
        metric(pairs, LABELS)
    assert time.process_time() - start < 0.12  # 0.013 s on a quiet core
