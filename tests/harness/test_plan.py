"""`mmla run --dry_run`: what a run would ask and take, without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness_ext.plan import PROBES, make_plan
from harness_ext.run import RunOptions

from ..conftest import MELD_ROWS, write_tsv

TASK = "mmla_emotion_meld_text"


def plan_of(**options: Any) -> Any:
    return make_plan(RunOptions(model="mmla-echo", **options))


def test_every_row_is_counted_after_limit_and_samples(meld_root: Path) -> None:
    (task,) = plan_of(tasks=[TASK], data_dir=str(meld_root)).tasks
    assert (task.rows, task.requests, task.new_tokens, task.missing, task.clips) == (42, 42, 42 * 64, 0, None)
    (task,) = plan_of(tasks=[TASK], data_dir=str(meld_root), limit=5).tasks
    assert task.rows == 5
    (task,) = plan_of(tasks=[TASK], data_dir=str(meld_root), samples={TASK: [3, 7]}).tasks
    assert task.rows == 2


@pytest.mark.parametrize(("mode", "tokens"), [("rank", 0), ("constrained", len(b" emotion: surprise") + 1)])
def test_new_tokens_are_those_of_the_answer_mode(meld_root: Path, mode: str, tokens: int) -> None:
    (task,) = plan_of(tasks=[TASK], data_dir=str(meld_root), answer=mode).tasks
    assert task.new_tokens == 42 * tokens


def test_decoding_of_the_command_counts(meld_root: Path) -> None:
    (task,) = plan_of(tasks=[TASK], data_dir=str(meld_root), gen_kwargs={"max_gen_toks": 8}).tasks
    assert task.new_tokens == 42 * 8


def test_clips_are_estimated_from_some_of_them() -> None:
    plan = plan_of(tasks=["mmla_emotion_meld"], data_dir="sample:40")
    (task,) = plan.tasks
    assert task.clips.probed == PROBES < task.clips.count == task.requests == 40
    assert task.clips.seconds == pytest.approx(40 * 1.2, rel=0.01)
    assert task.clips.decode_seconds > 0 and task.clips.unreadable == 0
    assert task.clips.frame_bytes == 4 * 112 * 112 * 3
    assert plan.decode_seconds == pytest.approx(task.clips.decode_seconds / plan.limits.workers)


def test_missing_and_broken_clips_are_counted_not_raised(tmp_path: Path) -> None:
    write_tsv(tmp_path / "MELD" / "test.tsv", MELD_ROWS[:4])
    clips = tmp_path / "MELD" / "video"
    clips.mkdir()
    for row, content in zip(MELD_ROWS, (b"no video", b""), strict=False):
        (clips / f"MELD_{row[0]}.mp4").write_bytes(content)
    (task,) = plan_of(tasks=["mmla_emotion_meld"], data_dir=str(tmp_path)).tasks
    assert (task.rows, task.requests, task.missing) == (4, 1, 3)
    assert (task.clips.probed, task.clips.unreadable, task.clips.seconds) == (1, 1, 0)


def test_the_command_prints_the_plan_and_asks_nothing(
    mmla: Callable[..., Any], meld_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = ("run", "--model", "mmla-echo", "--tasks", TASK, "--data_dir", meld_root, "--run_dir", folder)
    ran = mmla(*arguments, "--dry_run")
    assert ran.status == 0, ran.err
    assert "a plan: no model was loaded and nothing was asked" in ran.out
    assert "emotion" in ran.out and "2,688" in ran.out
    assert not folder.exists()
