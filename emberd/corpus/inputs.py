"""Input files: what columns and how many rows they have, and any rows of them in small batches.

A file is looked through once before anything is embedded, so that a bad row at its end costs a
moment instead of a night. Parquet says both in its footer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
from pyarrow import parquet

from emberd.corpus import lines
from emberd.corpus.arrow import conformed, is_text, united
from emberd.corpus.lines import Mark
from emberd.errors import BadOptionError

Kind = Literal["parquet", "jsonl", "csv", "text"]

KINDS: dict[str, Kind] = {
    ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv",
    ".txt": "text", ".text": "text",
}  # fmt: skip
AT_ONCE = 1024  # rows that become columns together


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of one file: `rows` of them from the row `first` (0-based) at `mark` on."""

    first: int
    rows: int
    mark: Mark = Mark()  # noqa: RUF009 - it is frozen


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds: its columns, and its rows cut into pieces."""

    schema: pa.Schema
    pieces: tuple[Piece, ...]


def kind_of(path: Path) -> Kind:
    """Return the kind of a file by its name.

    Raises:
        BadOptionError: it is not a file, or of no kind that is known.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        hint = f"Name its files: {path}/*.parquet" if path.is_dir() else "Check the path."
        raise BadOptionError(f"{path} {what}.", hint=hint)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise BadOptionError(
            f"{path}: the end of its name says no kind of file that is known.",
            hint=f"Rename it to end in one of {', '.join(KINDS)}.",
        )
    return kind


def survey(path: Path, column: str, piece_rows: int) -> Survey:
    """Look through a file whose texts are in `column`, and cut it into pieces.

    Raises:
        BadOptionError: it cannot be read, a row is bad (its line is named), or it has no texts.
    """
    kind = kind_of(path)
    with _readable(path):
        if kind == "parquet":
            found = _survey_parquet(path, piece_rows)
        else:
            found = _survey_lines(path, kind, column, piece_rows)
            if not found.pieces:
                return found  # nothing says which columns it would have
    if column not in found.schema.names:
        columns = ", ".join(found.schema.names) or "none"
        raise BadOptionError(
            f"{path} has no column {column!r}; its columns are: {columns}.",
            hint="Say with --text which column has the texts.",
        )
    kind_found = found.schema.field(column).type
    if not is_text(kind_found):
        raise BadOptionError(
            f"{path}: the column {column!r} has no texts, but values of type {kind_found}.",
            hint="Say with --text which column has the texts.",
        )
    return found


def read(
    path: Path, piece: Piece, column: str, schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a piece, at most `batch_rows` at a time, with the columns of `schema`.

    Raises:
        BadOptionError: the file cannot be read, or no longer has these rows.
    """
    kind = kind_of(path)
    count = 0
    with _readable(path):
        if kind == "parquet":
            batches = _read_parquet(path, piece, batch_rows)
        else:
            rows = (row for row, _ in lines.records(path, kind, column, piece.mark))
            wanted = pa.struct(list(schema))
            batches = (
                pa.RecordBatch.from_struct_array(pa.array(some, wanted))
                for some in _batched(islice(rows, piece.rows), batch_rows)
            )
        for batch in batches:
            count += batch.num_rows
            yield conformed(batch, schema)
    if count != piece.rows:
        raise changed(path)


def changed(path: Path) -> BadOptionError:
    """Return the error that a file is no longer what it was when it was looked through."""
    return BadOptionError(
        f"{path} has changed since this was begun, so its parts may be of other rows.",
        hint="Embed it into another folder, or delete this one to begin again.",
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow and the system say about a file into an error that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise BadOptionError(
            f"{path} cannot be read: {said.rstrip('.')}.",
            hint="Check that it is whole, and of the kind that its name says.",
        ) from None


def _batched(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(islice(rows, size)):
        yield some


# -- Parquet --------------------------------------------------------------------------------


def _survey_parquet(path: Path, piece_rows: int) -> Survey:
    with parquet.ParquetFile(path) as file:
        total, schema = file.metadata.num_rows, file.schema_arrow
    firsts = range(0, total, piece_rows)
    pieces = tuple(Piece(first, min(piece_rows, total - first)) for first in firsts)
    return Survey(schema.remove_metadata(), pieces)


def _read_parquet(path: Path, piece: Piece, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Read only the groups of rows that the piece has a part in."""
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        ends = [*accumulate(sizes)]
        last = piece.first + piece.rows
        groups = [
            at
            for at, (size, end) in enumerate(zip(sizes, ends, strict=True))
            if end > piece.first and end - size < last
        ]
        if not groups:
            return
        before = piece.first - (ends[groups[0]] - sizes[groups[0]])
        left = piece.rows
        for batch in file.iter_batches(batch_rows, row_groups=groups):
            some = batch.slice(before, left)
            before = max(0, before - batch.num_rows)
            left -= some.num_rows
            if some.num_rows:
                yield some
            if not left:
                return


# -- lines ----------------------------------------------------------------------------------


def _survey_lines(path: Path, kind: lines.Kind, column: str, piece_rows: int) -> Survey:
    schema = pa.schema([])
    pieces: list[Piece] = []
    total, start = 0, Mark()
    for some in _batched(lines.records(path, kind, column), AT_ONCE):
        schema = _extended(path, schema, some)
        for at, (_, behind) in enumerate(some, start=total + 1):
            if at % piece_rows == 0:
                pieces.append(Piece(at - piece_rows, piece_rows, start))
                start = behind
        total += len(some)
    rest = total % piece_rows
    if rest:
        pieces.append(Piece(total - rest, rest, start))
    for field in schema:
        if _is_hollow(field.type):
            raise BadOptionError(
                f"{path}: the objects in {field.name!r} never have a key, which Parquet cannot"
                " hold.",
                hint="Leave them out, or write null instead.",
            )
    return Survey(schema, tuple(pieces))


def _extended(
    path: Path, schema: pa.Schema, some: "Sequence[tuple[dict[str, Any], Mark]]"
) -> pa.Schema:
    """Return a schema that also holds these rows, or say which line it cannot hold."""
    try:
        return _holding(schema, [row for row, _ in some])
    except _MISFITS:
        pass
    fits, misfits = 0, len(some)
    while misfits - fits > 1:
        middle = (fits + misfits) // 2
        try:
            _holding(schema, [row for row, _ in some[:middle]])
        except _MISFITS:
            misfits = middle
        else:
            fits = middle
    schema = _holding(schema, [row for row, _ in some[:fits]])
    row, mark = some[fits]
    # No value is wrong by itself where a large integer is followed by a fraction.
    wrong = (repr(name) for name in row if not _fits(schema, {name: row[name]}))
    raise BadOptionError(
        f"{path}, line {mark.line}: the value of {next(wrong, 'a number')} is of another type than"
        " in the lines before, or none that a column can have.",
        hint="Give every line the same type of value there, or leave it out.",
    )


def _fits(schema: pa.Schema, row: dict[str, Any]) -> bool:
    try:
        _holding(schema, [row])
    except _MISFITS:
        return False
    return True


def _holding(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Schema:
    if not rows:
        return schema
    found = pa.schema(list(cast(pa.StructType, pa.array(rows).type)))
    return united([schema, found])


def _is_hollow(kind: pa.DataType) -> bool:
    """Whether somewhere in a type is an object that never has a key, which Parquet cannot hold."""
    if pa.types.is_struct(kind):
        return not kind.num_fields or any(_is_hollow(field.type) for field in kind)
    return bool(pa.types.is_list(kind)) and _is_hollow(kind.value_type)


_MISFITS = (ValueError, TypeError, OverflowError, NotImplementedError)  # pyarrow's are among these
