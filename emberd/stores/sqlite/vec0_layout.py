"""What a vec0 table looks like: its DDL, checked against the tables sqlite-vec made from it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from emberd.dtypes import PACKED, Dtype
from emberd.errors import NotAStoreError
from emberd.stores.sqlite import vec0
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.table import VectorTable, column_names
from emberd.stores.sqlite.vec0 import Column

TYPES: Mapping[Dtype, str] = {"float": "float", "int8": "int8", "ubinary": "bit"}
"""What sqlite-vec calls the types of vectors that it has."""

SHADOW = re.compile(
    r"rowids|chunks|info|auxiliary|(?:vector_chunks|metadatachunks|metadatatext)\d\d"
)


def as_vector(value: str, dtype: Dtype) -> str:
    """Return as SQL a BLOB that sqlite-vec takes for a vector of this dtype.

    Source: alexgarcia.xyz/sqlite-vec/api-reference.html. `vec_quantize_binary` would not do: it
    packs bits in the other order than `ubinary`.
    """
    return {"int8": f"vec_int8({value})", "ubinary": f"vec_bit({value})"}.get(dtype, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(VectorTable):
    """A vec0 table as its DDL describes it."""

    ddl: str
    vector: Column

    @property
    def beside_sql(self) -> str:
        """The other columns as SQL, each after a comma; "" if there are none."""
        return "".join(f", {quoted(column)}" for column in self.beside)

    def as_vector(self, value: str) -> str:
        """Return what sqlite-vec takes for a vector of this type."""
        return as_vector(value, self.dtype)

    def ddl_with(self, dimensions: int, dtype: Dtype) -> str:
        """Return the DDL with another dimension and type, otherwise unchanged.

        Bits have only one distance, and sqlite-vec refuses the option for it.
        """
        changes = [(self.vector.size_at, str(dimensions))]
        if dtype != self.dtype:
            changes.append((self.vector.type_at, TYPES[dtype]))
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
    others = [column for column in columns if column not in vectors]
    return Layout(
        table=table,
        ddl=ddl,
        key=expected[0],
        key_type=key.type if key else "integer",
        column=vectors[0].name,
        dimensions=vectors[0].dimensions,
        dtype=next(dtype for dtype, type_ in TYPES.items() if type_ == vectors[0].type),
        vector=vectors[0],
        beside=tuple(column.name for column in others),
        texts=tuple(column.name for column in others if _is_text(column)),
        made_again=frozenset({table, *shadows}),
    )


def _is_text(column: Column) -> bool:
    """Whether it has texts, and was not meant to be the primary key."""
    return (
        column.type == "text"
        and column.kind != "partition"
        and not re.search(r"\bprimary\s+key\b", column.unread, re.I)
    )


def _refuse_part_of_a_byte(path: Path, table: str, vector: Column) -> None:
    """Raise NotAStoreError for bits that fill no byte, into which nothing can be inserted."""
    if vector.type == "bit" and vector.dimensions % PACKED:
        raise NotAStoreError(
            f"{path}: the bits of {table} ({vector.name} bit[{vector.dimensions}]) fill no byte.",
            hint="Create it again with a size that can be divided by 8.",
        )


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
