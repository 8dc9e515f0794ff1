"""Memory does not grow with the clips and stays within its bound, and no model waits: small editions of benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc"),
    pytest.mark.timeout(600),
]


def test_peak_memory_over_many_clips_is_that_over_few(
    tiny_qwen2_vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark_named: Callable[[str], Any]
) -> None:
    clip_memory = benchmark_named("clip_memory")
    # 200 clips more would be 240 MB if their frames stayed: a quarter of what the smaller run holds.
    monkeypatch.setattr(clip_memory, "MODEL_ARGS", "dtype=float32,num_frames=8,max_pixels=50000")
    clip_memory.write_data(tmp_path / "data", 240)
    few, many = (
        clip_memory.measure(count, model=tiny_qwen2_vl, data=tmp_path / "data", work=tmp_path) for count in (40, 240)
    )
    assert many.peak_megabytes <= 1.1 * few.peak_megabytes


@pytest.mark.parametrize("bound", ["16M", "64M"])
def test_frames_stay_within_decode_memory(
    tiny_qwen2_vl: Path, tmp_path: Path, bound: str, benchmark_named: Callable[[str], Any]
) -> None:
    """One clip takes 6 MiB, so the smaller bound is what keeps two batches of 16 from being there at once."""
    decode_memory = benchmark_named("decode_memory")
    decode_memory.write_data(tmp_path / "data", 100)
    found = decode_memory.measure(100, bound, model=tiny_qwen2_vl, data=tmp_path / "data")
    assert 0.5 <= found["held"] / int(bound[:-1]) <= 1.1


def test_a_model_that_takes_three_times_as_long_as_decoding_never_waits(
    tiny_qwen2_vl: Path, tmp_path: Path, benchmark_named: Callable[[str], Any]
) -> None:
    never_waits = benchmark_named("never_waits")
    lm = never_waits.stand_in(tiny_qwen2_vl, batch_size=8)
    requests = never_waits.requests_for(lm, never_waits.draw_clips(tmp_path / "clips", 60))
    run = never_waits.measure(lm, requests, batch_size=8, workers=2, speed=3.0)
    assert run.ratio <= 1.3  # of which the first batch, which nothing can hide, is 0.04
