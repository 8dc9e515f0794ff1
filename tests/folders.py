"""What stands in run folders, for tests that compare them."""

from __future__ import annotations

import json
from pathlib import Path

CLOCK = ("date", "timings")
"""Keys of results.json that tell when and how fast."""


def written(folder: Path) -> dict[str, bytes]:
    """File -> bytes of results, samples and score card, date and timings taken out."""
    results = json.loads((folder / "results.json").read_text())
    for key in CLOCK:
        del results[key]
    files = [folder / "scorecard.md", *sorted((folder / "samples").iterdir())]
    return {
        "results.json": json.dumps(results).encode(),
        **{str(file.relative_to(folder)): file.read_bytes() for file in files},
    }


def journaled(folder: Path) -> set[str]:
    """Task and id of every whole answer in the journal."""
    whole = set()
    for file in (folder / "journal").glob("*.jsonl"):
        for line in file.read_bytes().split(b"\n")[:-1]:
            row = json.loads(line) if line.endswith(b"}") else {}
            if row:
                whole.add(f"{row['task']} {row['id']}")
    return whole


def lines(file: Path) -> list[str]:
    """The whole lines of a file; none when it is not there yet."""
    return file.read_text().split("\n")[:-1] if file.exists() else []
