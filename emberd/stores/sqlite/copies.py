"""Columns that hold a second copy of a store's vectors, as LangChain's SQLiteVec keeps them.

A BLOB is a copy of a vector if it equals it byte for byte and a column of its row holds the
vector's key. Neither is enough alone: two texts may have the same vector, and a number may match by
chance. Other forms of a vector (JSON, float16, float64, quantized) are not looked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import apsw

from emberd.stores.base import Copy, Key
from emberd.stores.sqlite.database import quoted

TRIED = 50  # rows examined to find the column that holds the key
NAMED = 20  # rows whose BLOB is not the store's vector, at most


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A store's vectors as they are now.

    `query` selects `key` and `vector`. A key is "integer" or "text", and a vector has `size` bytes.
    """

    query: str
    key_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """A column of an ordinary table. Without rowids it can be read but not replaced."""

    table: str
    column: str
    has_rowids: bool = True

    @property
    def name(self) -> str:
        """Its name in options."""
        return f"{self.table}.{self.column}"


def places(connection: apsw.Connection, without: frozenset[str]) -> list[Place]:
    """Return all columns of ordinary tables, except for the tables in `without`."""
    tables = connection.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [
        Place(table, column, not is_without_rowid)
        for table, is_without_rowid in list(tables)
        if table not in without
        for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


def copies_in(
    connection: apsw.Connection, vectors: VectorColumn, found: Sequence[Place], also: Sequence[str]
) -> list[Copy]:
    """Return which of these hold BLOBs the size of a vector; `also` names those that move."""
    return [
        _copy(connection, vectors, place, rows, place.name in also)
        for _, beside in groupby(found, lambda place: place.table)
        for place, rows in _sized(connection, vectors, list(beside))
        if rows
    ]


def _sized(
    connection: apsw.Connection, vectors: VectorColumn, beside: Sequence[Place]
) -> Iterable[tuple[Place, int | None]]:
    """Return how many BLOBs the size of a vector each column of a table has, in one reading."""
    counts = ", ".join(f"sum({_is_sized(vectors, place)})" for place in beside)
    table = quoted(beside[0].table)
    found = connection.execute(f"SELECT {counts} FROM {table} AS t").fetchone()
    return zip(beside, found or (), strict=True)


def _copy(
    connection: apsw.Connection, vectors: VectorColumn, place: Place, rows: int, moves: bool
) -> Copy:
    is_sized = _is_sized(vectors, place)
    table = f"{quoted(place.table)} AS t"
    key = _key_column(connection, vectors, place)
    is_same = _is_same(vectors, place, key) if key else "FALSE"
    same = connection.execute(f"SELECT count(*) FROM {table} WHERE {is_sized} AND {is_same}").get
    others = connection.execute(
        f"SELECT {'t._rowid_' if place.has_rowids else 'NULL'} FROM {table}"
        f" WHERE {is_sized} AND NOT {is_same} LIMIT {NAMED}"
    )
    return Copy(
        column=place.name, rows=rows, same=same, key="rowid" if key == "_rowid_" else key,
        others=[row for (row,) in others if row is not None], moves=moves,
        movable=place.has_rowids,
    )  # fmt: skip


def matches(
    connection: apsw.Connection, vectors: VectorColumn, place: Place
) -> Iterator[tuple[int, Key]]:
    """Yield the rowid, and the key of the vector, of each row whose BLOB is that vector."""
    key = _key_column(connection, vectors, place)
    if not key:
        return iter(())
    return connection.execute(
        f"SELECT t._rowid_, v.key FROM {quoted(place.table)} AS t"
        f" CROSS JOIN ({vectors.query}) AS v ON v.key = t.{quoted(key)}"
        f" WHERE {_is_sized(vectors, place)} AND {_is_same(vectors, place, key)}"
    )


def _key_column(connection: apsw.Connection, vectors: VectorColumn, place: Place) -> str | None:
    """Return the column that leads from the most BLOBs to their vector; None if none does."""
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (place.table,))
    names = ["_rowid_"] if place.has_rowids else []
    names += [name for (name,) in columns if name != place.column]
    tried = (
        f"SELECT {{}} FROM {quoted(place.table)} AS t WHERE {_is_sized(vectors, place)}"
        f" LIMIT {TRIED}"
    )
    counts = {
        name: connection.execute(
            f"SELECT sum(same) FROM ({tried.format(f'{_is_same(vectors, place, name)} AS same')})"
        ).get
        for name in names
    }
    best = max(names, key=lambda name: counts[name], default=None)
    return best if best and counts[best] else None


def _is_sized(vectors: VectorColumn, place: Place) -> str:
    """Return as SQL whether a row `t` has a BLOB the size of a vector."""
    column = f"t.{quoted(place.column)}"
    return f"(typeof({column}) = 'blob' AND length({column}) = {vectors.size})"


def _is_same(vectors: VectorColumn, place: Place, key: str) -> str:
    """Return as SQL whether a row `t` has the vector whose key is in its column `key`."""
    value = f"t.{quoted(key)}"
    return (
        f"iif(typeof({value}) = '{vectors.key_type}', (SELECT v.vector"
        f" FROM ({vectors.query}) AS v WHERE v.key = {value})"
        f" IS t.{quoted(place.column)}, FALSE)"
    )
