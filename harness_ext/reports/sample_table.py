"""The samples of a run as one compact value that the page unpacks: columns, not rows, and every text once.

Compressed: 15,710 free-text answers of 300 characters would otherwise pass 5 MB. Base64 also keeps whatever a model
said from meaning anything to the page.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness_ext.reports.report_data import RunReport, first_repeat
from harness_ext.reports.run_files import Run, SampleRow

CUT = 300
"""Characters of a raw answer that are shown; the whole stands in the samples file."""

Thumbnails = Mapping[str, Mapping[str, str]]
"""Task -> document id -> ``data:`` URL of a strip of frames."""


class _Texts:
    """Distinct texts by number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def sample_columns(run: Run, report: RunReport, *, with_texts: bool, thumbnails: Thumbnails) -> dict[str, Any]:
    """All samples of repeat 0 as columns of equal length.

    Returns:
        ``tasks``, ``texts`` (what the other columns number), and per sample: ``task``, ``id``, ``gold``, ``answer``,
        ``outcome``, ``rule``, ``raw``, ``more`` (characters cut off), ``p`` (per mille, -1 without), and, where asked
        for, ``text``; ``frames`` maps the number of a sample to its strip.
    """
    texts, frames = _Texts(), {}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("task", "id", "gold", "answer", "outcome", "rule", "raw", "more", "p")
    }
    if with_texts:
        columns["text"] = []
    for number, (task, row) in enumerate(_rows(run, report)):
        raw, answer = row["resps"][0][0], row["answer"]
        if strip := thumbnails.get(report.tasks[task].task, {}).get(row["doc"]["id"]):
            frames[number] = strip
        sample = {
            "task": task,
            "id": row["doc"]["id"],
            "gold": texts(row["doc"]["label"]),
            "answer": texts(answer["label"]),
            "outcome": texts(answer["outcome"]),
            "rule": texts(answer["rule"] or ""),
            "raw": texts(raw[:CUT]),
            "more": max(0, len(raw) - CUT),
            "p": _per_mille(row),
            "text": texts(row["doc"]["text"]) if with_texts else None,
        }
        for name, column in columns.items():
            column.append(sample[name])
    tasks = [{"name": t.name, "dimension": t.dimension, "labels": list(t.labels)} for t in report.tasks]
    return {"tasks": tasks, "texts": list(texts.numbers), **columns, "frames": frames}


def packed(value: Any) -> str:
    """JSON, gzip, base64: letters, digits, ``+``, ``/`` and ``=`` alone."""
    # ASCII, for a raw answer may hold half a surrogate pair, which UTF-8 cannot say.
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _rows(run: Run, report: RunReport) -> Iterator[tuple[int, SampleRow]]:
    for number, task in enumerate(report.tasks):
        rows: Iterable[SampleRow] = first_repeat(run.samples[task.task])
        for row in rows:
            yield number, row


def _per_mille(row: SampleRow) -> int:
    """Probability of the answer in thousandths, where it was ranked."""
    scores = row.get("probabilities")
    return round(1000 * scores.get(row["answer"]["label"], 0)) if scores else -1
