"""Columns of vectors in ordinary SQLite tables: found, and read and written in their format."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import apsw
import numpy as np
import orjson

from emberd.dtypes import NUMPY, Dtype
from emberd.errors import NotAStoreError
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.table import SET_ASIDE, STAMPS, VectorTable, column_names, stamp_in

Format = Literal["f32", "f16", "json"]

DTYPES: Mapping[Format, Dtype] = {"f32": "float", "f16": "float16", "json": "float"}
LOOKED_AT = 100  # rows that show what a column holds
FEWEST = 8  # dimensions; shorter BLOBs are taken for something else
LARGEST = 1e4  # number in an embedding
TYPICAL = 1e-3  # of the largest: less, and a few numbers would decide every cosine
TEXT_TYPES = re.compile("CHAR|CLOB|TEXT", re.I)  # sqlite.org/datatype3.html, section 3.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobTable(VectorTable):
    """An ordinary table; `described` looks up what has a default here.

    `scope` is a condition for the rows that belong to the store.
    """

    key_type: str = "integer"
    dimensions: int = 0
    dtype: Dtype = "float"
    beside: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    format: Format
    scope: str = "TRUE"

    @property
    def name(self) -> str:
        """The table and the column: another column is another store."""
        return f"{self.table}.{self.column}"

    @property
    def where(self) -> str:
        """Whether there is a vector: an empty one is none."""
        column = quoted(self.column)
        return f"{self.scope} AND {column} IS NOT NULL AND length({column}) > 0"

    def read(self, stored: object) -> bytes:
        """Return the vector; nothing for what is not in the format."""
        if self.format == "json":
            return read(stored, "json")
        return stored if isinstance(stored, bytes) else b""

    def written(self, vector: bytes) -> bytes | str:
        """Return what is stored for a vector: JSON has the fewest digits that give it again."""
        if self.format != "json":
            return vector
        return orjson.dumps(
            np.frombuffer(vector, "<f4"), option=orjson.OPT_SERIALIZE_NUMPY
        ).decode()


def read(stored: object, format: Format) -> bytes:
    """Return the vector that is stored in this format, or nothing."""
    if format != "json":
        return stored if isinstance(stored, bytes) else b""
    try:
        numbers = orjson.loads(stored) if isinstance(stored, str) else ()
        return np.array(numbers, "<f4").ravel().tobytes()
    except (ValueError, TypeError):
        return b""


B = TypeVar("B", bound=BlobTable)


@dataclass(frozen=True, slots=True)
class BlobColumn:
    """A column that may hold vectors, and what its first ones are."""

    table: str
    column: str
    stored: Sequence[object]

    @property
    def name(self) -> str:
        """Its name in options and messages."""
        return f"{self.table}.{self.column}"

    @property
    def is_uniform(self) -> bool:
        """Whether all of them have one type and size."""
        return len({_form(each) for each in self.stored}) == 1

    @property
    def format(self) -> Format | None:
        """Which format most of them are certainly in; None if that is not certain.

        Read as float32, the numbers of hashes, of int8 and of float64 would be huge, and those of
        float16 mostly far smaller than a few of them.
        """
        forms = [_form(each) for each in self.stored]
        form = max(set(forms), key=forms.count, default=None)
        most = [each for each in self.stored if _form(each) == form]
        format: Format = "json" if form == (str, 0) else "f32"
        return format if _are_float32([read(each, format) for each in most]) else None


def _form(stored: object) -> tuple[type, int]:
    """Return type and size of what is stored; texts vary in size."""
    return type(stored), len(stored) if isinstance(stored, bytes) else 0


def _are_float32(vectors: Sequence[bytes]) -> bool:
    """Whether all have one size, and numbers that embeddings have."""
    sizes = {len(vector) for vector in vectors}
    if len(sizes) != 1 or min(sizes) % 4 or min(sizes) < 4 * FEWEST:
        return False
    numbers = np.abs(np.frombuffer(b"".join(vectors), "<f4"))
    if not (numbers <= LARGEST).all():  # nor finite
        return False
    return bool(numbers.any()) and float(np.median(numbers[numbers > 0])) > TYPICAL * numbers.max()


def ordinary_tables(connection: apsw.Connection) -> list[str]:
    """Return the names of the tables that hold data themselves and are not SQLite's or ours."""
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [name for (name,) in found if name not in (STAMPS, SET_ASIDE)]


def column_of(connection: apsw.Connection, table: str, column: str) -> BlobColumn:
    """Look at the first vectors of a column."""
    name = quoted(column)
    stored = connection.execute(
        f"SELECT {name} FROM {quoted(table)} WHERE {name} IS NOT NULL AND length({name}) > 0"
        f" LIMIT {LOOKED_AT}"
    )
    return BlobColumn(table, column, [each for (each,) in stored])


def vector_columns(connection: apsw.Connection, tables: Sequence[str]) -> list[BlobColumn]:
    """Return the columns of these tables that certainly hold float32 vectors as BLOBs."""
    every = (
        column_of(connection, table, column)
        for table in tables
        for column in column_names(connection, table)
    )
    return [each for each in every if each.is_uniform and each.format == "f32"]


def text_columns(connection: apsw.Connection, table: str) -> list[str]:
    """Return the columns that are declared as text and are not part of the primary key."""
    found = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,))
    return [name for name, type_, pk in found if TEXT_TYPES.search(type_) and not pk]


def key_of(connection: apsw.Connection, table: str) -> str:
    """Return the primary key if it is one column of numbers or texts, otherwise the rowid."""
    found = connection.execute(
        "SELECT name, type FROM pragma_table_info(?) WHERE pk > 0", (table,)
    ).fetchall()
    names = [
        str(name) for name, type_ in found if re.search("INT|CHAR|CLOB|TEXT", str(type_), re.I)
    ]
    return names[0] if len(names) == len(found) == 1 else "rowid"


def described(path: Path, connection: apsw.Connection, table: B) -> B:
    """Look up the columns of a table, and the size of its vectors.

    Raises:
        NotAStoreError: its keys cannot be used.
    """
    _require_key(path, connection, table)
    columns = column_names(connection, table.table)
    first = connection.execute(f"SELECT typeof(key) FROM ({table.query}) LIMIT 1").get
    stored = connection.execute(f"SELECT vector FROM ({table.query}) LIMIT {LOOKED_AT}")
    dtype = DTYPES[table.format]
    sizes = [len(table.read(each)) // int(NUMPY[dtype][-1]) for (each,) in stored]
    stamp = stamp_in(connection, table.name)  # says it of a table that is empty
    return replace(
        table,
        key_type=str(first or "integer"),
        dimensions=max(set(sizes), key=sizes.count) if sizes else stamp.dimensions if stamp else 0,
        dtype=dtype,
        beside=tuple(each for each in columns if each not in (table.key, table.column)),
        texts=tuple(each for each in text_columns(connection, table.table) if each != table.column),
    )


def _require_key(path: Path, connection: apsw.Connection, made: BlobTable) -> None:
    """Raise NotAStoreError unless a row is found by its key without reading all others."""
    table, key = made.table, made.key
    try:
        _, collation, *_ = connection.column_metadata("main", table, key)
    except apsw.SQLError:
        columns = ", ".join(column_names(connection, table))
        raise NotAStoreError(
            f"{path}: {table} has no column {key} that could be its key.",
            hint=f"Name the key with `--option id=COLUMN`. Its columns: {columns}.",
        ) from None
    looked_up = f"SELECT 1 FROM {quoted(table)} WHERE {made.scope} AND {quoted(key)} = ?"
    plan = [detail for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {looked_up}", (1,))]
    if collation != "BINARY" or not any(f"{detail}".startswith("SEARCH") for detail in plan):
        raise NotAStoreError(
            f"{path}: {table}.{key} cannot be used as a key: it has no index, or one that ignores"
            " case.",
            hint="Name another column with `--option id=COLUMN`, or `--option id=rowid`.",
        )
