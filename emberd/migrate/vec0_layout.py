"""What a vec0 table looks like: its DDL, checked against the tables sqlite-vec made from it."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from emberd.dtypes import PACKED, STORED, Dtype, row_bytes
from emberd.errors import NotAStoreError
from emberd.migrate import vec0
from emberd.migrate.base import Stamp
from emberd.migrate.copies import VectorColumn
from emberd.migrate.sqlite import quoted
from emberd.migrate.vec0 import Column

STAMPS = "emberd_spaces"
SET_ASIDE = "emberd_set_aside"
SHADOW = re.compile(
    r"rowids|chunks|info|auxiliary|(?:vector_chunks|metadatachunks|metadatatext)\d\d"
)


def as_vector(value: str, dtype: Dtype) -> str:
    """Return as SQL a BLOB that sqlite-vec takes for a vector of this dtype.

    Source: alexgarcia.xyz/sqlite-vec/api-reference.html. `vec_quantize_binary` would not do: it
    packs bits in the other order than `ubinary`.
    """
    return {"int8": f"vec_int8({value})", "ubinary": f"vec_bit({value})"}.get(dtype, value)


@dataclass(frozen=True, slots=True)
class Layout:
    """A vec0 table as its DDL describes it. `others` are all columns except key and vector."""

    table: str
    ddl: str
    key: str
    key_type: str
    vector: Column
    others: tuple[Column, ...]
    shadows: frozenset[str]  # the tables in which sqlite-vec keeps it

    @property
    def column(self) -> str:
        """The name of the vectors' column."""
        return self.vector.name

    @property
    def dimensions(self) -> int:
        """The size of its vectors."""
        return self.vector.dimensions

    @property
    def dtype(self) -> Dtype:
        """What the numbers of its vectors are."""
        return next(dtype for dtype, type_ in STORED.items() if type_ == self.vector.type)

    @property
    def vectors(self) -> VectorColumn:
        """Where its vectors are, to compare possible copies with them."""
        size = row_bytes(self.dimensions, self.dtype)
        return VectorColumn(self.table, self.key, self.key_type, self.column, size)

    @property
    def ours(self) -> frozenset[str]:
        """The tables that belong to the store or that emberd makes."""
        return self.shadows | {self.table, STAMPS, SET_ASIDE}

    @property
    def others_sql(self) -> str:
        """The other columns as SQL, each after a comma; "" if there are none."""
        return "".join(f", {quoted(column.name)}" for column in self.others)

    @property
    def texts(self) -> list[str]:
        """Its own text columns, except one that was meant to be the primary key."""
        return [
            column.name
            for column in self.others
            if column.type == "text"
            and column.kind != "partition"
            and not re.search(r"\bprimary\s+key\b", column.unread, re.I)
        ]

    def ddl_with(self, dimensions: int, dtype: Dtype) -> str:
        """Return the DDL with another dimension and type, otherwise unchanged.

        Bits have only one distance, and sqlite-vec refuses the option for it.
        """
        changes = [(self.vector.size_at, str(dimensions))]
        if dtype != self.dtype:
            changes.append((self.vector.type_at, STORED[dtype]))
            changes += [(self.vector.options_at, "")] if dtype == "ubinary" else []
        ddl = self.ddl
        for (start, end), new in sorted(changes, reverse=True):
            ddl = f"{ddl[:start]}{new}{ddl[end:]}"
        return ddl


def vec0_tables(connection: apsw.Connection) -> dict[str, str]:
    """Return the DDL of each vec0 table, by name."""
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql LIKE '%vec0%'")
    return {name: sql for name, sql in found if vec0.is_vec0(sql)}


def layout_of(path: Path, connection: apsw.Connection, table: str, ddl: str) -> Layout:
    """Read the DDL of a vec0 table and compare it with the table itself.

    Raises:
        NotAStoreError: the DDL is not understood, or the table does not have exactly one vector
            column.
    """
    try:
        columns = [column for column in vec0.columns(ddl) if column.kind != "option"]
    except vec0.Vec0DdlError as error:
        raise _not_understood(path, table, str(error)) from None
    key = next((column for column in columns if column.kind == "key"), None)
    columns = [column for column in columns if column is not key]
    shadows = {
        name: suffix
        for (name,) in connection.execute("SELECT name FROM pragma_table_list WHERE schema='main'")
        if name.startswith(f"{table}_") and SHADOW.fullmatch(suffix := name[len(table) + 1 :])
    }
    expected = [key.name if key else "rowid", *(column.name for column in columns)]
    if column_names(connection, table) != expected:
        raise _not_understood(path, table, "its columns are not those in its DDL")
    said = Counter(str(column.kind) for column in columns)
    said["a text key"] = bool(key and key.type == "text")
    said["texts"] = sum((each.kind, each.type) == ("metadata", "text") for each in columns)
    if _parts(connection, table, list(shadows.values())) != said:
        raise _not_understood(path, table, "sqlite-vec keeps columns that do not match its DDL")
    vectors = [column for column in columns if column.kind == "vector"]
    if len(vectors) != 1:
        kinds = ", ".join(f"{each.name} {each.type}[{each.dimensions}]" for each in vectors)
        raise NotAStoreError(
            f"{path}: {table} has these vector columns: {kinds}; a store has one.",
            hint="Several vectors per row cannot be migrated yet.",
        )
    _refuse_part_of_a_byte(path, table, vectors[0])
    return Layout(
        table=table,
        ddl=ddl,
        key=expected[0],
        key_type=key.type if key else "integer",
        vector=vectors[0],
        others=tuple(column for column in columns if column not in vectors),
        shadows=frozenset(shadows),
    )


def _refuse_part_of_a_byte(path: Path, table: str, vector: Column) -> None:
    """Raise NotAStoreError for bits that fill no byte, into which nothing can be inserted."""
    if vector.type == "bit" and vector.dimensions % PACKED:
        raise NotAStoreError(
            f"{path}: the bits of {table} ({vector.name} bit[{vector.dimensions}]) fill no byte.",
            hint="Create it again with a size that can be divided by 8.",
        )


def stamp_in(connection: apsw.Connection, table: str) -> Stamp | None:
    """Return the stamp that the last migration of a vec0 table wrote; None if there is none."""
    if not connection.table_exists("main", STAMPS):
        return None
    kept = connection.execute(f"SELECT stamp FROM {STAMPS} WHERE vectors = ?", (table,)).get
    return Stamp.from_json(kept) if kept else None


def column_names(connection: apsw.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in their order."""
    return [
        name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


def _parts(connection: apsw.Connection, table: str, shadows: Sequence[str]) -> Counter[str]:
    """Count how many columns of each kind sqlite-vec keeps."""
    ids = connection.execute(
        "SELECT type FROM pragma_table_info(?) WHERE name = 'id'", (f"{table}_rowids",)
    ).get
    chunks, auxiliary = (
        column_names(connection, f"{table}_{name}") for name in ("chunks", "auxiliary")
    )
    return Counter(
        {
            "a text key": ids == "TEXT",
            "vector": sum(name.startswith("vector_chunks") for name in shadows),
            "partition": sum(name.startswith("partition") for name in chunks),
            "auxiliary": sum(name.startswith("value") for name in auxiliary),
            "metadata": sum(name.startswith("metadatachunks") for name in shadows),
            "texts": sum(name.startswith("metadatatext") for name in shadows),
        }
    )


def _not_understood(path: Path, table: str, why: str) -> NotAStoreError:
    return NotAStoreError(
        f"{path}: emberd does not understand the definition of {table}: {why}.",
        hint="Create the table again as docs/migrating-a-store.md describes, and copy its rows.",
    )
