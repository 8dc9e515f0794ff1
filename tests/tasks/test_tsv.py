from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmla_tasks.errors import DataError
from mmla_tasks.tsv import is_quoted, read_table

# A cell of an unquoted file: anything but the two separators.
plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\ufeff"), min_size=1, max_size=30)
rows_of_text = st.lists(
    st.tuples(st.integers(0, 999).map(str), plain_text, st.sampled_from(["joy", "anger"])), min_size=1, max_size=8
)


def write_plain(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("id\ttext\tlabel\n" + "".join("\t".join(r) + "\n" for r in rows), encoding="utf-8", newline="")
    return path


def write_quoted(path: Path, rows: list[tuple[str, str, str]], quoting: int) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", quoting=quoting, lineterminator="\n")
    writer.writerows([("id", "text", "label"), *rows])
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    return path


def looks_quoted(text: str) -> bool:
    """Texts that are themselves well-formed quoted cells cannot be told apart by any reader."""
    return text.startswith('"')


@given(rows=rows_of_text)
def test_every_dialect_reads_to_the_same_rows(
    rows: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [(i, t.replace('"', "'") if looks_quoted(t) else t, label) for i, t, label in rows if t.strip()]
    if not rows:
        return
    folder = tmp_path_factory.mktemp("tsv")
    expected = [list(row) for row in rows]
    assert read_table(write_plain(folder / "plain.tsv", rows)).rows == expected
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        assert read_table(write_quoted(folder / "quoted.tsv", rows, quoting)).rows == expected


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("id\ttext\n1\tplain", False),
        ('id\ttext\n1\t"He said ""no"" twice"', True),
        ('"id"\t"text"\n"1"\t"plain"', True),
        ('id\ttext\n1\t"No," he said.', False),
        ('id\ttext\n1\tthe "Theory"" I dumbed down', False),
        ('id\ttext\n1\t"whole line quoted by its speaker"', False),
        ('id\ttext\n1\t"a ""b"" c"\n2\tand a stray " here', False),
        ('id\ttext\n1\t"two\nlines"', True),
    ],
)
def test_dialect_is_decided_by_content(text: str, quoted: bool) -> None:
    assert is_quoted(text) is quoted


def test_line_separators_inside_texts_do_not_split_rows(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\x85b", "a\x0bb", "a\x1eb", "em — dash", "说话人", "a\u2029b"]
    rows = [(str(n), text, "joy") for n, text in enumerate(texts)]
    assert [r[1] for r in read_table(write_plain(tmp_path / "t.tsv", rows)).rows] == texts


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes("\ufeffid\ttext\tlabel\r\n1\tHi.\tjoy\r\n".encode())
    table = read_table(path)
    assert (table.columns, table.rows) == (["id", "text", "label"], [["1", "Hi.", "joy"]])


def test_row_with_two_tabs_too_many_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("id\ttext\tlabel\n1\tfine\tjoy\n2\ta\tb\tc\tjoy\n")
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert "1 row has another number of cells than the header (3: id, text, label)" in str(caught.value)
    assert "row 2 (line 3): 5 cells" in str(caught.value)


def test_quoted_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text('id\ttext\tlabel\n1\t"two ""x""\nlines"\tjoy\n2\tfine\tjoy\n')
    assert read_table(path).lines == [2, 4]


@pytest.mark.parametrize(("data", "said"), [(b"", "is empty"), (b"id\ttext\n1\t\xff\n", "line 2")])
def test_unreadable_files_say_why(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        read_table(path)
