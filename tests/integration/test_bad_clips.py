"""`--on_bad_clip` with a model that sees: 100 clips, every tenth broken, one more whose pictures alone are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness_ext import evaluate

from ..broken_clips import TASK, damage, partly_broken, without

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def test_good_clips_are_answered_as_without_the_bad_ones(tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    broken = partly_broken(root, 100)
    victim = next(p for p in sorted((root / "MELD" / "video").iterdir()) if p.stem.removeprefix("MELD_") not in broken)
    damage(victim)
    broken[victim.stem.removeprefix("MELD_")] = "damaged"
    assert len(broken) == 11

    def answers(data: Path, policy: str) -> tuple[dict[str, Any], dict[str, Any]]:
        results = evaluate(
            "mmla-hf",
            TASK,
            model_args={"pretrained": str(tiny_qwen2_vl), "dtype": "float32", "num_frames": 2, "max_pixels": 4000},
            data_dir=str(data),
            on_bad_clip=policy,
            gen_kwargs={"max_gen_toks": 3},
            batch_size=1,
        )
        said = {row["doc"]["id"]: (str(row["resps"][0][0]), row["response"]) for row in results["samples"][TASK]}
        return said, results["mmla"]["tasks"][TASK]

    expected, _ = answers(without(root, set(broken), tmp_path / "good"), "error")
    assert len(expected) == 89
    for policy, asked in (("skip", 89), ("text", 100)):
        said, block = answers(root, policy)
        assert {name: answer for name, answer in said.items() if name not in broken} == expected
        assert block["bad_clips"] == broken and block["counts"]["asked"] == asked
        assert block["counts"]["skipped"] + block["counts"]["as_text"] == 11
