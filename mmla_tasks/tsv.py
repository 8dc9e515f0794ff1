r"""Read a TSV in either dialect, quoted (RFC 4180 with tabs) or not, to the same rows.

The released files come in both, sometimes within one dataset, so the dialect is a property of each file and is
decided by its content (see `is_quoted`). Lines end at ``\n`` only: texts may hold U+2028, U+0085 and the like.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from mmla_tasks.errors import DataError

csv.field_size_limit(1 << 24)

_QUOTED_CELL = re.compile(r'"((?:[^"]|"")*)"(?=\t|\r?\n|\Z)')
_PLAIN_CELL = re.compile(r'[^"\t\n]*(?=\t|\n|\Z)')


@dataclass(frozen=True)
class Table:
    """A TSV file as read."""

    path: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    """Line in the file on which each row starts, the header being line 1."""
    quoted: bool
    sha256: str
    """Hex digest of the file's bytes."""


def read_table(path: Path) -> Table:
    """Read a TSV file with a header line.

    Raises:
        DataError: the file is not UTF-8, is empty, or rows have another number of cells than the header (all
            such rows at once).
    """
    data = path.read_bytes()
    text = _decode(data, path)
    quoted = is_quoted(text)
    rows, lines = _quoted_rows(text, path) if quoted else _plain_rows(text)
    if not rows:
        raise DataError(f"{path.name} is empty", file=path, next="copy the file anew; its first line names the columns")
    table = Table(path, [c.strip() for c in rows[0]], rows[1:], lines[1:], quoted, hashlib.sha256(data).hexdigest())
    _check_widths(table)
    return table


def is_quoted(text: str) -> bool:
    r"""Whether quotes in `text` are the dialect's and not the speaker's.

    A writer with minimal quoting quotes a cell only when it must (it holds a quote, a tab or a line break) and
    then doubles every quote inside; one that quotes everything quotes the header too. A file in which any cell
    breaks these rules was written without quoting, and its quotes belong to the texts.

    >>> is_quoted('id\ttext\n1\t"He said ""no"" twice"')
    True
    >>> is_quoted('id\ttext\n1\t"No," he said.')
    False
    """
    if '"' not in text:
        return False
    if text.startswith('"'):
        return True
    at = 0
    while at <= len(text):
        cell = _QUOTED_CELL.match(text, at)
        if cell is not None:
            if not re.search(r'["\t\r\n]', cell[1]):
                return False
        else:
            cell = _PLAIN_CELL.match(text, at)
            if cell is None:
                return False
        at = cell.end() + (2 if text.startswith("\r\n", cell.end()) else 1)
    return True


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"byte {data[error.start]:#04x} at offset {error.start:,} is not UTF-8"
        raise DataError(
            f"{path.name} is not a UTF-8 text file (line {line})", file=path, why=why, next="save it as UTF-8"
        ) from None


def _plain_rows(text: str) -> tuple[list[list[str]], list[int]]:
    numbered = [(n, line.removesuffix("\r")) for n, line in enumerate(text.split("\n"), start=1)]
    kept = [(n, line) for n, line in numbered if line.strip()]
    return [line.split("\t") for _, line in kept], [n for n, _ in kept]


def _quoted_rows(text: str, path: Path) -> tuple[list[list[str]], list[int]]:
    reader = csv.reader((line + "\n" for line in text.split("\n")), delimiter="\t", strict=True)
    rows, lines, start = [], [], 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path.name}: line {reader.line_num} cannot be read as quoted TSV", file=path, why=error
        ) from None
    return rows, lines


def _check_widths(table: Table) -> None:
    width = len(table.columns)
    odd = [
        (n, line, row)
        for n, (line, row) in enumerate(zip(table.lines, table.rows, strict=True), 1)
        if len(row) != width
    ]
    if not odd:
        return
    shown = "\n".join(f"row {n} (line {line}): {len(row)} cells: {_shorten(row)}" for n, line, row in odd[:10])
    more = f"\n... and {len(odd) - 10} more" if len(odd) > 10 else ""
    count = "1 row has" if len(odd) == 1 else f"{len(odd)} rows have"
    raise DataError(
        f"{table.path.name}: {count} another number of cells than the header ({width}: {', '.join(table.columns)})",
        file=table.path,
        rows=shown + more,
        next="a tab inside a text must be quoted or replaced by a space",
    )


def _shorten(row: list[str], limit: int = 70) -> str:
    text = " ⇥ ".join(row)
    return text if len(text) <= limit else text[: limit - 1] + "…"
