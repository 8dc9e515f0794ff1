"""The course of a run as a picture: loss of every step, accuracy on dev."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.output import CURVE, LOG, Output


def draw(output: Output, record: Mapping[str, Any]) -> None:
    """Write ``curve.png``; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    steps = output.lines(LOG)
    looks, chosen = record["selection"]["looks"], record["selection"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    left.set_title("\n".join(record.get("notes", [])), fontsize="small")
    left.plot([row["step"] for row in steps], [row["loss"] for row in steps], color="0.65", linewidth=1)
    left.set_xlabel("step")
    left.set_ylabel("loss on the answer's tokens (grey)")
    left.set_yscale("log")
    right = left.twinx()
    right.plot([one["step"] for one in looks], [100 * one["value"] for one in looks], color="C0", marker="o")
    right.plot([chosen["step"]], [100 * chosen["value"]], color="C3", marker="o", markersize=10, fillstyle="none")
    right.set_ylabel(f"{chosen['metric']} on {chosen['rows']} rows of dev, % (blue; ring: selected)")
    right.set_ylim(0, 100)
    aside = output.path / f"{CURVE}.part"
    with output.writing():
        figure.savefig(aside, dpi=120, format="png")
        aside.replace(output.path / CURVE)
