"""Input files: every row once, from any piece on, and which line or column is wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emberd.corpus.inputs import Survey, read, survey
from emberd.errors import BadOptionError

ROWS = 2500  # more than become columns at once


def rows_of(path: Path, found: Survey, column: str = "text") -> list[dict[str, Any]]:
    """Read the last piece first: none may need another."""
    pieces = [
        [row for batch in read(path, piece, column, found.schema, 64) for row in batch.to_pylist()]
        for piece in reversed(found.pieces)
    ]
    return [row for rows in reversed(pieces) for row in rows]


@pytest.mark.parametrize("piece_rows", [1, 7, 1024, ROWS, ROWS + 1])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_pieces_of_json_lines_are_all_rows_in_order(
    tmp_path: Path, piece_rows: int, start: str
) -> None:
    file = tmp_path / "a.jsonl"
    few = ROWS if piece_rows > 7 else 40
    rows = [{"id": at, "text": f"{at}: é\n", "tags": ["x"] * (at % 3)} for at in range(few)]
    file.write_text(start + "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))

    found = survey(file, "text", piece_rows)

    firsts = range(0, few, piece_rows)
    assert [piece.first for piece in found.pieces] == [*firsts]
    assert [piece.rows for piece in found.pieces] == [min(piece_rows, few - at) for at in firsts]
    assert rows_of(file, found) == rows


def test_a_key_that_comes_late_is_a_column_and_numbers_become_what_holds_all(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.jsonl"
    lines = [{"text": "a", "n": 1, "late": None}] * 1500 + [{"n": 2.5, "late": {"k": [1]}}]
    file.write_text("\n".join(map(json.dumps, lines)))

    found = survey(file, "text", 1000)

    assert found.schema.field("n").type == pa.float64()
    assert rows_of(file, found)[-1] == {"text": None, "n": 2.5, "late": {"k": [1]}}


@pytest.mark.parametrize("piece_rows", [1, 3, 100])
def test_csv_keeps_values_as_they_are_written(tmp_path: Path, piece_rows: int) -> None:
    file = tmp_path / "a.csv"
    long = "x" * 200_000
    file.write_text(
        f'\ufeffid,text\r\n007,"two\r\nlines, ""quoted"""\r\n\r\n1e3,\r\n,é\r\n5,{long}\r\n',
        newline="",
    )

    found = survey(file, "text", piece_rows)

    assert rows_of(file, found) == [
        {"id": "007", "text": 'two\r\nlines, "quoted"'},
        {"id": "1e3", "text": ""},
        {"id": "", "text": "é"},
        {"id": "5", "text": long},
    ]


@pytest.mark.parametrize("piece_rows", [1, 2, 100])
def test_each_line_of_text_is_a_row_also_an_empty_one(tmp_path: Path, piece_rows: int) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo\rstill two\n three ")

    found = survey(file, "line", piece_rows)

    texts = [row["line"] for row in rows_of(file, found, "line")]
    assert texts == ["one", "", "two\rstill two", " three "]


@pytest.mark.parametrize("piece_rows", [1, 64, 333, 1000, 5000])
def test_pieces_of_parquet_cross_its_groups_of_rows(tmp_path: Path, piece_rows: int) -> None:
    file = tmp_path / "a.parquet"
    few = ROWS if piece_rows > 1 else 20
    words = pa.array([f"w{at % 5}" for at in range(few)]).dictionary_encode()
    table = pa.table({"id": range(few), "text": words, "n": pa.array([None] * few, pa.int8())})
    parquet.write_table(table, file, row_group_size=300 if few > 300 else 6)

    found = survey(file, "text", piece_rows)

    assert found.schema.equals(table.schema)
    assert rows_of(file, found) == table.to_pylist()


def test_files_without_rows_are_no_error(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", ""), ("a.csv", "text\n"), ("b.csv", ""), ("a.txt", "")):
        (tmp_path / name).write_text(content)
        assert survey(tmp_path / name, "text", 10).pieces == ()


LARGE_THEN_HALF = '{"text": "a", "n": 9007199254740993}\n{"text": "a", "n": 0.5}\n'
GOOD = '{"text": "a", "n": 1}\n' * 1100


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", GOOD + '{"text": "cut', "a.jsonl, line 1101: it is not JSON"),
        ("a.jsonl", GOOD + "[1]\n", "a.jsonl, line 1101: it is not a JSON object"),
        ("a.jsonl", GOOD + '{"n": "x"}\n' + GOOD, "a.jsonl, line 1101: the value of 'n' is of"),
        ("a.jsonl", GOOD + '{"text": 7}\n', "a.jsonl, line 1101: the value of 'text' is of"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": ["a"]}', "a.jsonl, line 3: the value of 'text'"),
        ("a.jsonl", LARGE_THEN_HALF, "a.jsonl, line 2: the value of a number is of another type"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "a.jsonl, line 1: it is not JSON"),
        ("a.jsonl", '{"text": "a", "m": {}}\n', "a.jsonl: the objects in 'm' never have a key"),
        ("a.jsonl", '{"body": "a"}\n', "a.jsonl has no column 'text'; its columns are: body"),
        ("a.jsonl", '{"text": 1}\n', "a.jsonl: the column 'text' has no texts, but values of type"),
        ("a.csv", "text,n\na,1\nb\n", "a.csv, line 3: it has 1 values, and the header has 2"),
        ("a.csv", 'text,n\na,1\n"b,1\n', "a.csv, line 3: it is not CSV"),
        ("a.csv", "text,text\n", "a.csv, line 1: two columns are called 'text'"),
        ("a.csv", "body\na\n", "a.csv has no column 'text'; its columns are: body"),
        ("a.txt", b"a\n\xff\n", "a.txt, line 2: it is not UTF-8"),
        ("a.csv", b"text\na\n\xff\n", "a.csv, line 3: it is not UTF-8"),
        ("a.parquet", "not Parquet", "a.parquet cannot be read"),
        ("a.doc", "a", "a.doc: the end of its name says no kind"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(BadOptionError) as caught:
        survey(file, "text", 10)

    assert complaint in caught.value.message
    assert caught.value.hint


def test_a_file_that_lost_rows_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a\nb\n")
    found = survey(file, "text", 10)
    file.write_text("a\n")

    with pytest.raises(BadOptionError, match="has changed since this was begun"):
        rows_of(file, found)
