"""`mmla show` on a video task: what a model gets, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def test_show_draws_a_contact_sheet(mmla: Callable[..., Any], tmp_path: Path) -> None:
    ran = mmla(
        "show",
        "mmla_speaking_style_mustard",
        "--data_dir",
        "sample",
        "--n",
        1,
        "--frames_dir",
        tmp_path,
        "--num_frames",
        5,
    )
    assert ran.status == 0, ran.err
    assert "<video>You are presented with a video" in ran.out
    assert "frames [0, 3, 6, 8, 11] at 0.00, 0.30, 0.60, 0.80, 1.10 s of 12" in ran.out or "of 12, drawn in" in ran.out
    (picture,) = tmp_path.glob("*.png")
    with Image.open(picture) as image:
        assert image.width > 5 * 100


def test_show_of_a_group_names_its_tasks(mmla: Callable[..., Any]) -> None:
    ran = mmla("show", "mmla_intent", "--data_dir", "sample")
    assert ran.status == 2 and "mmla_intent_mintrec, mmla_intent_mintrec2" in ran.err
