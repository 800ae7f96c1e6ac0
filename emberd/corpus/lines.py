"""Files that are read line by line: JSONL, CSV and plain text, from any row on.

A record is one row: an object of JSONL, the values of a CSV row (which may span lines), or a line
of text. Each comes with the number of its last line and where the next record begins, so that
errors name lines and nobody reads a file from its start to get at a row in the middle.
"""

import codecs
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from emberd.errors import BadOptionError

Kind = Literal["jsonl", "csv", "text"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Between two records: the byte at which the next one begins, and the lines before it."""

    offset: int = 0
    line: int = 0


class Lines:
    """The lines of a file from a mark on, without their ends, as UTF-8; `mark` is how far it is."""

    def __init__(self, path: Path, file: IO[bytes], mark: Mark) -> None:
        self._path = path
        self._file = file
        self.mark = mark
        file.seek(mark.offset)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            at = self.mark
            self.mark = Mark(at.offset + len(line), at.line + 1)
            yield line if at.offset else line.removeprefix(codecs.BOM_UTF8)

    def wrong(self, what: str, hint: str) -> BadOptionError:
        """Return an error about the line that was read last."""
        return BadOptionError(f"{self._path}, line {self.mark.line}: {what}", hint=hint)

    def decoded(self, line: bytes) -> str:
        """Return a line as text."""
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise self.wrong("it is not UTF-8.", "Convert the file with iconv.") from None


def records(
    path: Path, kind: Kind, column: str, mark: Mark = Mark()
) -> Iterator[tuple[dict[str, Any], Mark]]:
    """Yield the records of a file from a mark on, each with the mark behind it.

    `column` is what the only column of a plain text file is called. Values of CSV are strings.

    Raises:
        BadOptionError: a line cannot be read; it is named.
        OSError: the file cannot be.
    """
    with path.open("rb") as file:
        yield from _READERS[kind](path, file, column, mark)


def _text(path: Path, file: IO[bytes], column: str, mark: Mark) -> Iterator[tuple[Any, Mark]]:
    lines = Lines(path, file, mark)
    for line in lines:
        yield {column: lines.decoded(line).rstrip("\r\n")}, lines.mark


def _jsonl(path: Path, file: IO[bytes], column: str, mark: Mark) -> Iterator[tuple[Any, Mark]]:
    del column
    lines = Lines(path, file, mark)
    hint = 'Each line is one object, such as {"text": "..."}.'
    for line in lines:
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise lines.wrong(f"it is not JSON: {error.msg}.", hint) from None
        if not isinstance(row, dict):
            raise lines.wrong("it is not a JSON object.", hint)
        yield row, lines.mark


def _csv(path: Path, file: IO[bytes], column: str, mark: Mark) -> Iterator[tuple[Any, Mark]]:
    del column
    csv.field_size_limit(sys.maxsize)  # else 128 KiB
    lines = Lines(path, file, Mark())
    names = next(_csv_rows(lines), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise lines.wrong(f"two columns are called {twice[0]!r}.", "Give each its own name.")
    lines = Lines(path, file, mark if mark.offset else lines.mark)
    for values in _csv_rows(lines):
        if len(values) != len(names):
            raise lines.wrong(
                f"it has {len(values)} values, and the header has {len(names)}.",
                "Quote values with a comma in them.",
            )
        yield dict(zip(names, values, strict=True)), lines.mark


def _csv_rows(lines: Lines) -> Iterator[list[str]]:
    """Yield the rows of CSV, without empty lines."""
    try:
        yield from filter(None, csv.reader(map(lines.decoded, lines), strict=True))
    except csv.Error as error:
        raise lines.wrong(
            f"it is not CSV: {error}.", "Quote values with a comma, a quote or a line end in them."
        ) from None


_READERS = {"text": _text, "jsonl": _jsonl, "csv": _csv}
