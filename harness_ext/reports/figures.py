"""The pictures of a report: bars, radar, confusion matrices, recall, reliability, outcomes, what video adds.

Nothing is told by colour alone: bars of partial sets are hatched, markers differ in shape, and every value that
matters is written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness_ext.reports.comparison import signed
from harness_ext.reports.picture import (
    BAND,
    CELL,
    GRID,
    INK,
    MUTED,
    OTHER,
    OURS,
    PAPER,
    Picture,
    empty,
    finished,
    house_style,
    require_matplotlib,
    rgb,
)
from harness_ext.reports.report_data import RunReport, TaskReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from harness_ext.reports.modality import ModalityReport


def pictures(report: RunReport, modality: ModalityReport | None = None) -> Iterator[Picture]:
    """Draw what a report can show, one after another.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    asked = [task for task in report.tasks if task.rows]
    with house_style():
        if asked:
            yield _scores(report, asked)
        if any(task.counts["unparsed"] for task in asked):
            yield _outcomes(asked)
        if len(report.dimensions) >= 3:
            yield _radar(report)
        if modality is not None and any(row.gain for row in modality.rows):
            yield _modality(modality)
        if ranked := [task for task in asked if task.calibration]:
            yield _reliability(ranked)
        for task in asked:
            yield _confusion(task)
            yield _recall(task)


# ── the pictures ──────────────────────────────────────────────────────────────────────────────────────────────────


def _scores(report: RunReport, tasks: Sequence[TaskReport]) -> Picture:
    """One bar per dataset with its interval, before the range of published systems."""
    canvas, axes = empty(6.6, 0.9 + 0.4 * len(tasks))
    for y, task in enumerate(tasks):
        _score_bar(axes, y, task)
    axes.set_yticks(range(len(tasks)), [_with_mark(task.name, task.partial) for task in tasks])
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    _percent_axis(axes, "accuracy, %")
    axes.grid(axis="x")
    _score_legend(canvas, report, tasks)
    told = "; ".join(f"{task.name} {_percent(task.acc.value)}" for task in tasks)
    described = f"Bars of accuracy in percent with 95 % intervals, one per dataset: {told}."
    return finished(canvas, "scores", "Accuracy per dataset", described)


def _score_bar(axes: Axes, y: int, task: TaskReport) -> None:
    score = 100 * (task.acc.value or 0)
    if task.neighbours and (span := task.neighbours.range):
        axes.barh(y, 100 * (span[1] - span[0]), left=100 * span[0], height=0.74, color=BAND, linewidth=0)
    axes.barh(y, score, height=0.38, color=OURS, edgecolor=PAPER, linewidth=0, hatch="////" if task.partial else None)
    low, high = 100 * task.acc.low, 100 * task.acc.high
    axes.plot([low, high], [y, y], color=INK, linewidth=1.4, marker="|", markersize=7, markeredgewidth=1.4)
    majority = 100 * task.majority["accuracy"]
    axes.plot([majority, majority], [y - 0.37, y + 0.37], color=OTHER, linewidth=1.6, linestyle=(0, (2.2, 1.2)))
    axes.text(101.5, y, _percent(task.acc.value), va="center", ha="left", clip_on=False, fontweight="bold")


def _score_legend(canvas: Canvas, report: RunReport, tasks: Sequence[TaskReport]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    keys: list[Any] = [
        Patch(facecolor=OURS, label=report.model),
        Line2D([], [], color=INK, linewidth=1.4, marker="|", markersize=7, label="95 % interval"),
        Line2D([], [], color=OTHER, linewidth=1.6, linestyle=(0, (2.2, 1.2)), label="always the most frequent label"),
    ]
    if any(task.neighbours and task.neighbours.models for task in tasks):
        keys.append(Patch(facecolor=BAND, label=f"range of published {report.method_name} models"))
    if any(task.partial for task in tasks):
        keys.append(Patch(facecolor=OURS, edgecolor=PAPER, linewidth=0, hatch="////", label="partial set"))
    canvas.legend(handles=keys, loc="outside lower left", ncols=2, handlelength=1.8, columnspacing=2)


def _outcomes(tasks: Sequence[TaskReport]) -> Picture:
    """What became of answers without a label, as shares of the asked rows."""
    from matplotlib.patches import Patch

    kinds = {"several": ("xxx", OURS), "none": ("", OTHER), "empty": ("...", MUTED), "truncated": ("\\\\\\", BAND)}
    shares = {k: [100 * task.counts["outcomes"].get(k, 0) / task.rows for task in tasks] for k in kinds}
    totals = [sum(column) for column in zip(*shares.values(), strict=True)]
    canvas, axes = empty(7.4, 0.9 + 0.32 * len(tasks))
    left = [0.0] * len(tasks)
    for kind, (hatch, colour) in kinds.items():
        there = [y for y, share in enumerate(shares[kind]) if share]
        axes.barh(
            there, [shares[kind][y] for y in there], left=[left[y] for y in there],
            height=0.6, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0.6,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, shares[kind], strict=True)]
    room = max([*totals, 1.0]) * 1.12
    for y, total in enumerate(totals):
        axes.text(total + room / 100, y, f"{total:.1f}", va="center", color=INK if total else MUTED)
    axes.set_yticks(range(len(tasks)), [_with_mark(task.name, task.partial) for task in tasks])
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_xlim(0, room)
    axes.set_xlabel("answers without a label, % of the rows asked", loc="left")
    axes.grid(axis="x")
    keys = [
        Patch(facecolor=colour, hatch=hatch, edgecolor=PAPER, linewidth=0.6, label=_OUTCOMES[kind])
        for kind, (hatch, colour) in kinds.items()
    ]
    canvas.legend(handles=keys, loc="outside lower left", ncols=4, handlelength=1.8)
    told = "; ".join(f"{task.name} {total:.1f}" for task, total in zip(tasks, totals, strict=True))
    described = f"Stacked bars of answers without a label by outcome, in percent of the rows asked: {told}."
    return finished(canvas, "unparsed", "Unparsed answers by outcome", described)


_OUTCOMES = {"several": "names several labels", "none": "names none", "empty": "is empty", "truncated": "was cut"}


def _radar(report: RunReport) -> Picture:
    """Six dimensions round a circle, with the range of published systems and the best of them."""
    from matplotlib.figure import Figure

    dimensions = report.dimensions
    turns = [2 * math.pi * i / len(dimensions) for i in range(len(dimensions))]
    canvas = Figure(figsize=(5.2, 4.9), layout="constrained")
    axes: Any = canvas.add_subplot(projection="polar")
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    _published_ring(axes, report, turns)
    values = [100 * d.acc for d in dimensions]
    axes.plot(
        _closed(turns), _closed(values), color=OURS, linewidth=2.2, marker="o", markersize=5.5, label=report.model
    )
    for turn, value in zip(turns, values, strict=True):
        axes.annotate(
            f"{value:.1f}", (turn, value),
            xytext=(15 * math.sin(turn), 11 * math.cos(turn)), textcoords="offset points",
            ha="center", va="center", fontweight="bold", color=OURS, fontsize=8.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )  # fmt: skip
    names = [_with_mark(d.name, d.partial).replace(" ", "\n") for d in dimensions]
    axes.set_xticks(turns, names)
    for label, turn in zip(axes.get_xticklabels(), turns, strict=True):
        across = math.sin(turn)
        label.set_ha("center" if abs(across) < 0.2 else "left" if across > 0 else "right")
        label.set_color(INK)
    axes.tick_params(axis="x", pad=4)
    top = 20 * math.ceil(max([*values, *(100 * max(d.published.values(), default=0) for d in dimensions)]) / 20)
    rings = range(20, top + 1, 20)
    axes.set_ylim(0, top)
    axes.set_yticks(rings, [f"{ring}" for ring in rings], color=MUTED, fontsize=7.5)
    axes.set_rlabel_position(math.degrees(turns[1]) / 2)
    axes.spines["polar"].set_color(GRID)
    axes.grid(color=GRID)
    canvas.legend(loc="outside lower center", ncols=1, handlelength=2.4)
    told = "; ".join(f"{d.name} {100 * d.acc:.1f}" for d in dimensions)
    described = f"Radar of accuracy in percent per dimension, mean over its datasets: {told}."
    return finished(canvas, "radar", "Accuracy per dimension", described)


def _published_ring(axes: Any, report: RunReport, turns: Sequence[float]) -> None:
    """The range and the best published model; only where it can be drawn all the way round."""
    tables = [d.published for d in report.dimensions]
    if not all(tables):
        return
    low = [100 * min(table.values()) for table in tables]
    high = [100 * max(table.values()) for table in tables]
    kind = f"published {report.method_name}"
    axes.fill_between(
        _closed(turns), _closed(low), _closed(high), color=BAND, alpha=0.6, linewidth=0, label=f"range of {kind} models"
    )
    best = max(tables[0], key=lambda model: sum(table[model] for table in tables))
    axes.plot(
        _closed(turns), _closed([100 * table[best] for table in tables]),
        color=OTHER, linewidth=1.4, linestyle=(0, (4, 2)), marker="s", markersize=3.6, label=f"{best}, {kind}",
    )  # fmt: skip


def _confusion(task: TaskReport) -> Picture:
    """Gold labels by answers: counts, shaded by their share of the gold label's rows."""
    from matplotlib.patches import Rectangle

    rows = len(task.labels)
    cell = 0.44 if rows <= 12 else min(0.34, 20 / rows)  # inches
    columns = [*task.labels, "no label", "several"] if task.counts["unparsed"] else list(task.labels)
    counts = [row[: len(columns)] for row in task.confusion["counts"]]
    canvas, axes = empty(1.9 + cell * len(columns), 1.7 + cell * rows)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                face = (*rgb(CELL), round(count / sum(row), 2))
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, linewidth=0))
                axes.text(x, y, f"{count}", ha="center", va="center", fontsize=6.5 if count > 999 else 7.5)
        axes.add_patch(Rectangle((y - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor=INK, linewidth=1.1, zorder=2))
    if len(columns) > rows:
        axes.axvline(rows - 0.5, color=MUTED, linewidth=0.8)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left", rotation_mode="anchor", color=INK)
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), task.labels)
    axes.set_ylabel("gold label")
    axes.set_xlabel("answer", loc="left")
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    hits = ", ".join(f"{label} {counts[i][i]} of {sum(counts[i])}" for i, label in enumerate(task.labels))
    described = f"Confusion matrix of gold labels by answers; right answers lie on the diagonal: {hits}."
    return finished(canvas, f"confusion-{task.task}", f"Confusion matrix, {task.name}", described)


def _recall(task: TaskReport) -> Picture:
    """Share of each label's rows that were found, with intervals."""
    step = 0.27 if len(task.classes) > 12 else 0.34
    canvas, axes = empty(5.4, 0.75 + step * len(task.classes))
    for y, item in enumerate(task.classes):
        if not item.scores["support"]:
            axes.text(1, y, "no rows", va="center", color=MUTED, fontsize=8)
            continue
        axes.barh(y, 100 * item.scores["recall"], height=0.56, color=OURS, alpha=0.35, linewidth=0)
        low, high = (100 * end for end in item.intervals["recall"])
        axes.plot([low, high], [y, y], color=INK, linewidth=1.2)
        axes.plot([100 * item.scores["recall"]], [y], color=OURS, marker="o", markersize=4.5)
        axes.text(
            101.5, y, f"{item.scores['support']:,}", va="center", ha="left", color=MUTED, clip_on=False, fontsize=8
        )
    axes.set_yticks(range(len(task.classes)), [item.label for item in task.classes])
    axes.set_ylim(len(task.classes) - 0.4, -0.6)
    _percent_axis(axes, "recall, %, with 95 % intervals; rows at the right")
    axes.grid(axis="x")
    told = ", ".join(f"{c.label} {100 * c.scores['recall']:.1f}" for c in task.classes if c.scores["support"])
    described = f"Recall per label in percent with 95 % intervals: {told}."
    return finished(canvas, f"recall-{task.task}", f"Recall per label, {task.name}", described)


def _reliability(tasks: Sequence[TaskReport]) -> Picture:
    """Accuracy against confidence, one panel a task; the diagonal is what the probabilities promise."""
    columns = min(4, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    canvas, grid = empty(2.2 * columns + 0.4, 2.35 * rows + 0.3, rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = [axes for line in grid for axes in line]
    for axes, task in zip(panels, tasks, strict=False):
        _reliability_panel(axes, task)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    canvas.supxlabel("probability of the answer", fontsize=9, color=MUTED)
    canvas.supylabel("share that is right", fontsize=9, color=MUTED)
    told = "; ".join(f"{t.name} {t.calibration.error:.3f}" for t in tasks if t.calibration)
    described = f"Reliability curves of label probabilities; expected calibration error per task: {told}."
    return finished(canvas, "reliability", "Are the probabilities to be believed?", described)


def _reliability_panel(axes: Axes, task: TaskReport) -> None:
    assert task.calibration is not None
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    most = max(b.count for b in task.calibration.bins)
    for b in task.calibration.bins:
        if b.count:
            axes.bar((b.low + b.high) / 2, 0.18 * b.count / most, width=0.085, color=BAND, linewidth=0)
            axes.plot([b.confidence, b.confidence], b.interval, color=OURS, linewidth=1.1)
    filled = [b for b in task.calibration.bins if b.count]
    axes.plot(
        [b.confidence for b in filled],
        [b.accuracy for b in filled],
        color=OURS,
        linewidth=1.3,
        marker="o",
        markersize=3.6,
    )
    axes.set_title(_with_mark(task.name, task.partial))
    axes.text(0.04, 0.95, f"error {task.calibration.error:.3f}", va="top", fontsize=8, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], color=MUTED)
    axes.grid()


def _modality(report: ModalityReport) -> Picture:
    """What video adds to text, task by task, with paired intervals."""
    gains = [(row.name, row.gain.acc) for row in report.rows if row.gain is not None]
    canvas, axes = empty(8.2, 0.8 + 0.34 * len(gains))
    for y, (_, gain) in enumerate(gains):
        low, high = (100 * end for end in gain.interval)
        marker, face = ("o", OURS) if low > 0 or high < 0 else ("D", PAPER)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.4)
        axes.plot([100 * gain.value], [y], color=OURS, marker=marker, markersize=6, markerfacecolor=face)
        said = signed(gain.value)
        axes.text(1.015, y, said, transform=axes.get_yaxis_transform(), va="center", fontweight="bold")
    axes.axvline(0, color=MUTED, linewidth=0.9)
    axes.set_yticks(range(len(gains)), [name for name, _ in gains])
    axes.set_ylim(len(gains) - 0.4, -0.6)
    what = "points of accuracy that video adds to text, with paired 95 % intervals; open: the interval holds 0"
    axes.set_xlabel(what, loc="left")
    axes.grid(axis="x")
    told = "; ".join(f"{name} {signed(gain.value)}" for name, gain in gains)
    described = f"Points of accuracy that video adds to text, with paired 95 % intervals: {told}."
    return finished(canvas, "modality", "What video adds", described)


# ── details ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _closed(values: Sequence[float]) -> list[float]:
    return [*values, values[0]]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _with_mark(name: str, partial: bool) -> str:
    return f"{name} (partial)" if partial else name


def _percent_axis(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(label, loc="left")
