"""A part of `benchmarks/decode_campaign.py`: corrupted files, and some made to do harm, give frames or a named error."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_200_corrupted_files_give_frames_or_a_named_error(reader: str, benchmark_named: Callable[[str], Any]) -> None:
    if find_spec("decord") is None and reader == "decord":
        pytest.skip("decord is not installed: pip install -e '.[decord]'")
    campaign = benchmark_named("decode_campaign")
    before = campaign.peak_megabytes()
    outcomes = campaign.campaign(reader, 200, seed=1, clips=CLIPS if CLIPS.is_dir() else None)
    grown = campaign.peak_megabytes() - before
    print(campaign.table(outcomes))
    assert outcomes.total.total() == 200
    assert outcomes.total["frames"] > 20 and len(outcomes.total) >= 5
    assert campaign.faults(outcomes, grown) == []
    assert outcomes.harm["a list of other files"] == outcomes.harm["a list of other files (concat)"] == "not_video"
    assert outcomes.harm["a pipe that nobody writes to"] == outcomes.harm["a link to endless zeroes"] == "missing"
    assert outcomes.harm["pictures of 16,000 x 16,000"] == "damaged"
