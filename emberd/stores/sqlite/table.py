"""The part of a database in which a store has its vectors, whatever the engine keeps them in."""

from dataclasses import dataclass

import apsw

from emberd.dtypes import Dtype, row_bytes
from emberd.stores.base import Stamp
from emberd.stores.sqlite.copies import VectorColumn
from emberd.stores.sqlite.database import quoted

STAMPS = "emberd_spaces"
SET_ASIDE = "emberd_set_aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorTable:
    """A table with a column of vectors.

    `key_type` is "integer" or "text". `beside` are all columns but key and vector, and `texts`
    those of them that may be what was embedded. `made_again` are tables that a migration drops and
    creates.
    """

    table: str
    key: str
    key_type: str
    column: str
    dimensions: int
    dtype: Dtype
    beside: tuple[str, ...]
    texts: tuple[str, ...]
    made_again: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What it is called in the tables that emberd makes."""
        return self.table

    @property
    def where(self) -> str:
        """A condition for the rows that have a vector and belong to the store."""
        return "TRUE"

    @property
    def query(self) -> str:
        """A SELECT of the columns `key` and `vector`."""
        key, column = quoted(self.key), quoted(self.column)
        return (
            f"SELECT {key} AS key, {column} AS vector FROM {quoted(self.table)} WHERE {self.where}"
        )

    @property
    def vectors(self) -> VectorColumn:
        """Its vectors, to compare possible copies with them."""
        return VectorColumn(self.query, self.key_type, row_bytes(self.dimensions, self.dtype))

    @property
    def ours(self) -> frozenset[str]:
        """The tables that have other vectors after a migration, or that emberd makes."""
        return self.made_again | {STAMPS, SET_ASIDE}

    def as_vector(self, value: str) -> str:
        """Return as SQL what is stored for a value."""
        return value

    def read(self, stored: object) -> bytes:
        """Return the vector of what is stored, or nothing if that is none."""
        return stored if isinstance(stored, bytes) else b""

    def written(self, vector: bytes) -> bytes | str:
        """Return what is stored for a vector."""
        return vector


def stamp_in(connection: apsw.Connection, name: str) -> Stamp | None:
    """Return the stamp that the last migration of a `VectorTable` wrote; None if there is none."""
    if not connection.table_exists("main", STAMPS):
        return None
    kept = connection.execute(f"SELECT stamp FROM {STAMPS} WHERE vectors = ?", (name,)).get
    return Stamp.from_json(kept) if kept else None


def column_names(connection: apsw.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in their order."""
    return [
        name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]
