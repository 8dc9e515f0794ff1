"""Shards of a video model, merged without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..folders import written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.mark.parametrize(
    "more",
    [
        ("--answer", "rank"),
        ("--protocol", "paper", "--gen_kwargs", "max_gen_toks=3"),  # family and own decoding are the checkpoint's
        ("--system_instruction", "Be brief.", "--gen_kwargs", "max_gen_toks=3,temperature=0.7", "--repeats", 2),
    ],
)
def test_a_video_model_is_merged_as_if_never_split(
    tiny_qwen2_vl: Path, mmla: Callable[..., Any], tmp_path: Path, more: tuple[object, ...]
) -> None:
    command = ["run", "--model", "mmla-hf", "--model_args", f"pretrained={tiny_qwen2_vl},dtype=float32",
               "--tasks", "mmla_speaking_style", "--data_dir", "sample", "--limit", 3, "--batch_size", 1]  # fmt: skip
    for shard in ("1/2", "2/2"):
        ran = mmla(*command, *more, "--run_dir", tmp_path / "parts", "--shard", shard)
        assert ran.status == 0, ran.err
    merged = mmla("merge", tmp_path / "parts")
    assert merged.status == 0, merged.err
    # What the shards answered is in the journal: a whole run there asks nothing, and shows what a run would have made.
    kept = written(tmp_path / "parts")
    whole = mmla(*command, *more, "--run_dir", tmp_path / "parts")
    assert whole.status == 0 and "0 to go" in whole.out, whole.err
    assert written(tmp_path / "parts") == kept
