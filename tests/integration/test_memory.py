"""Memory does not grow with the number of clips: a small edition of benchmarks/clip_memory.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "clip_memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.timeout(600)
def test_peak_memory_over_many_clips_is_that_over_few(
    tiny_qwen2_vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("clip_memory", BENCHMARK)
    assert spec is not None and spec.loader is not None
    clip_memory = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "clip_memory", clip_memory)  # where dataclasses look for it
    spec.loader.exec_module(clip_memory)
    # 200 clips more would be 240 MB if their frames stayed: a quarter of what the smaller run holds.
    monkeypatch.setattr(clip_memory, "MODEL_ARGS", "dtype=float32,num_frames=8,max_pixels=50000")
    monkeypatch.syspath_prepend(BENCHMARK.parent)  # what it adds to the path is taken back with this
    clip_memory.write_data(tmp_path / "data", 240)
    few, many = (
        clip_memory.measure("prefetched", count, model=tiny_qwen2_vl, data=tmp_path / "data", work=tmp_path)
        for count in (40, 240)
    )
    assert many.peak_megabytes <= 1.1 * few.peak_megabytes
