"""What `mmla doctor` shows: how the clips of each task are, what is wrong with which, and what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from harness_ext.cli.progress import clock
from harness_ext.doctor import Diagnosis, Finding, spread

SHOWN = 10
"""Ids of a kind, and formats, that are listed before the rest is counted."""


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print a short summary; the JSON file holds every id."""
    console.print(_tasks(diagnosis))
    for heading, findings in (("what is wrong", diagnosis.faults), ("looks odd", diagnosis.remarks)):
        if findings:
            console.print(f"\n{heading}")
            for line in _lines(findings):
                console.print(f"  {line}", markup=False)
    if diagnosis.files:
        console.print()
        for line in _material(diagnosis):
            console.print(line, markup=False)
    for part in diagnosis.left_out:
        then = f"; {part.mending}" if part.mending else ""
        console.print(f"left out {part.task}: none of its {part.rows:,} clips is there{then}", markup=False)
    if next_steps := list(_next_steps(diagnosis)):
        console.print("\nnext")
        for step in next_steps:
            console.print(f"  {step}", markup=False)
    console.print(f"\n{_verdict(diagnosis)}", markup=False)


def _tasks(diagnosis: Diagnosis) -> Table:
    counts = Counter((finding.task, finding.kind) for finding in diagnosis.faults)
    kinds = sorted({finding.kind for finding in diagnosis.faults})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading in ("", "split"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows", "clips there", *(kind.replace("_", " ") for kind in kinds)):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in diagnosis.datasets:
        numbers = [] if part.left_out else [counts[part.task, kind] for kind in kinds]
        table.add_row(
            part.task, part.split, f"{part.rows:,}", f"{part.present:,}", *(f"{n:,}" if n else "–" for n in numbers)
        )
    return table


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.task), []).append(finding)
    for (kind, task), same in sorted(groups.items()):
        more = f" and {len(same) - SHOWN:,} more" if len(same) > SHOWN else ""
        ids = ", ".join(finding.id for finding in same[:SHOWN])
        yield f"{kind.replace('_', ' '):<11} {len(same):>6,}   {task} {ids}{more}"
        yield f"{'':<11} {'':>6}   {'such as: ' if len(same) > 1 else ''}{same[0].why}"


def _material(diagnosis: Diagnosis) -> Iterator[str]:
    files = f"{diagnosis.files:,} files" if diagnosis.files > 1 else "1 file"
    if lengths := spread(diagnosis.seconds):
        yield (
            f"{files}, {clock(lengths['total'])} of video; shortest {lengths['min']:.2f} s, "
            f"median {lengths['median']:.2f} s, longest {lengths['max']:.2f} s"
        )
    yield f"pictures          {_counts(diagnosis.formats)}"
    yield f"frames a second   {_counts(diagnosis.rates)}"
    if diagnosis.frame_policy:
        yield f"decoded {diagnosis.decoded:,} clips now; the others were before, and have not changed"


def _counts(counts: Mapping[str, int]) -> str:
    listed = [f"{name} ({count:,})" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join([*listed, *([f"{len(counts) - SHOWN:,} more kinds"] if len(counts) > SHOWN else [])])


def _next_steps(diagnosis: Diagnosis) -> Iterator[str]:
    bad = {finding.task for finding in diagnosis.faults}
    yield from dict.fromkeys(part.mending for part in diagnosis.datasets if part.task in bad and part.mending)
    if bad:
        yield "mmla run ... --on_bad_clip skip      leaves their rows out; text asks them without video"


def _verdict(diagnosis: Diagnosis) -> str:
    depth = "frames decoded" if diagnosis.frame_policy else "header and packets read; --deep decodes frames"
    if not diagnosis.faults:
        return f"every clip can be shown ({depth})" if diagnosis.files else "no clips are there"
    count = len(diagnosis.faults)
    return f"{count:,} clip{'s' if count > 1 else ''} can't be shown ({depth})"
