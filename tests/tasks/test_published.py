"""The published scores: complete, keyed by our folder names, and in agreement with each other and with their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmla_tasks import published
from mmla_tasks.published import METHODS, Method

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "paper_scores.yaml"
TEST_ROWS = {
    "MIntRec": 445, "MIntRec2.0": 2033, "MELD": 2610, "IEMOCAP": 1622, "MELD-DA": 1998, "IEMOCAP-DA": 1884,
    "MOSI": 686, "CH-SIMSv2.0": 1031, "UR-FUNNY-v2": 994, "MUStARD": 138, "AnnoMi-client": 1129,
    "AnnoMi-therapist": 1140,
}  # fmt: skip


@pytest.mark.parametrize(("method", "models"), [("zero_shot", 12), ("sft", 11), ("it", 7)])
def test_every_model_has_every_dataset_in_percent(method: Method, models: int) -> None:
    table = published.published(method)
    assert len(table) == models
    for row in table.values():
        assert list(row) == list(TEST_ROWS)
        assert all(10 < value < 90 for value in row.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_leaderboard_is_the_accuracy_over_all_rows(method: Method) -> None:
    # Guards every number against a slip in copying: a wrong figure would move its model's average.
    averages = published.leaderboard_average(method)
    assert list(averages.values()) == sorted(averages.values(), reverse=True)
    for model, row in published.published(method).items():
        weighted = sum(TEST_ROWS[dataset] * value for dataset, value in row.items()) / sum(TEST_ROWS.values())
        assert weighted == pytest.approx(averages[model], abs=0.023), model


def test_screens_show_these() -> None:
    table = published.published("zero_shot")
    assert (table["Qwen2-VL-7B"]["MIntRec"], table["GPT-4o"]["MIntRec2.0"]) == (56.6, 42.3)


def test_prior_methods_and_humans() -> None:
    prior = published.prior_best()
    assert list(prior) == [dataset for dataset in TEST_ROWS if not dataset.startswith("AnnoMi")]
    assert prior["MIntRec"] == {"method": "MIntOOD", "accuracy": 74.3}
    assert published.human() == {"MIntRec": 85.5, "MIntRec2.0": 71.0}


def test_the_source_is_named() -> None:
    assert "2504.16427" in published.source() and "48efd63" in published.source()


def test_callers_cannot_change_the_data() -> None:
    published.published("it").clear()
    published.human().clear()
    published.prior_best()["MIntRec"]["accuracy"] = 0
    published.leaderboard_average("it").clear()
    assert published.published("it") and published.human() and published.leaderboard_average("it")
    assert published.prior_best()["MIntRec"]["accuracy"] == 74.3


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="rlhf"):
        published.published("rlhf")  # type: ignore[arg-type]


@pytest.mark.skipif(
    not REFERENCE.exists(), reason="needs ../shared/reference, beside the repository on the build machine"
)
def test_numbers_equal_the_transcription() -> None:
    reference: dict[str, Any] = yaml.load(
        REFERENCE.read_text("utf-8").replace("CH-SIMS-v2.0", "CH-SIMSv2.0"), yaml.CSafeLoader
    )
    for method in METHODS:
        assert published.published(method) == reference[method]
        assert published.leaderboard_average(method) == reference["leaderboard_average"][method]
    assert published.prior_best() == {name: row for name, row in reference["prior_sota"].items() if row}
    assert published.human() == reference["human"]
