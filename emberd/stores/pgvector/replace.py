"""Replaces a table's vectors in one transaction: another table beside it takes its place.

Writers wait from the beginning. Readers go on with the old table while the new one is filled and
its indexes are built, and wait only while the names are exchanged. The old table, moved to a schema
of its own, is the backup.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emberd.errors import StoreError, StoreRowsError
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.pgvector.kept import put_stamp
from emberd.stores.pgvector.layout import Layout
from emberd.stores.pgvector.lock import exchange, schema_named
from emberd.stores.pgvector.postgres import every, explained, one, quoted, run
from emberd.stores.pgvector.postgres_table import (
    carry_over,
    create_beside,
    definition,
    name_of,
    of_one_size,
)
from emberd.stores.pgvector.rows import digest_of, digest_with_definition, rows_of, send

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

SIDE = "pg_temp.emberd_side"


class PgvectorReplacement:
    """The open transaction; see `emberd.stores.base.Replacement`.

    Args:
        connection: holds the lock.
        layout: the table.
        part: the store's, under which its stamp is kept.
        shown: the database, for messages.
        keep: returns the schema in which the old table is kept; None to drop it.
    """

    def __init__(
        self,
        connection: "Connection[Any]",
        layout: Layout,
        *,
        part: str,
        shown: str,
        keep: Callable[[], str | None],
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._part = part
        self._shown = shown
        self._keep = keep
        self._new: int | None = None
        self.index_s = 0.0

    @property
    def _table(self) -> int:
        """The table as it will be."""
        return self._layout.oid if self._new is None else self._new

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`."""
        with explained(self._shown):
            yield from rows_of(self._connection, self._layout, after=None, vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Fill another table, with everything as it is in this one, but with these vectors."""
        layout, connection = self._layout, self._connection
        with explained(self._shown):
            if layout.declared != dimensions:
                self._require_any_size()
            given = self._send(vectors)
            new = create_beside(
                connection, layout.oid, schema_named("new"), layout.vector,
                layout.type_for(dimensions),
            )  # fmt: skip
            self._copy(new)
            began_s = time.perf_counter()
            carry_over(connection, layout.oid, new)
            self.index_s = time.perf_counter() - began_s
            run(connection, f"ANALYZE {name_of(connection, new)}")
            put_stamp(connection, self._part, stamp.to_json())
            there = one(
                connection,
                f"SELECT count(*) FROM {name_of(connection, new)} t WHERE {layout.has_vector}",
            )
        if there != given:
            raise StoreError(f"{self._shown}: {there} of {given} vectors are in the new table.")
        self._new = new

    def _require_any_size(self) -> None:
        layout = self._layout
        others = one(
            self._connection,
            f"SELECT count(*) FROM {layout.name} t"
            f" WHERE t.{quoted(layout.vector)} IS NOT NULL AND NOT {layout.condition}",
        )
        if others and layout.declared:
            raise StoreRowsError(
                f"{self._shown}: {others} other rows of {layout.name} have vectors of"
                f" {layout.declared} dimensions, and a column vector({layout.declared}) cannot have"
                " both.",
                hint="Remove the size of the column's type, with ALTER TABLE ... ALTER COLUMN"
                f" {quoted(layout.vector)} TYPE vector; then run this again.",
            )
        found = of_one_size(self._connection, layout.oid, layout.vector)
        if found:
            raise StoreError(
                f"{self._shown}: the size of the vectors is in the definition of"
                f" {', '.join(found)}.",
                hint="Drop it, run this again, and create it for the new size.",
            )

    def _send(self, vectors: Iterable[tuple[Key, bytes]]) -> int:
        """Send the vectors to a table that ends with the transaction; return how many."""
        layout, connection = self._layout, self._connection
        key = {"int": "bigint", "uuid": "uuid", "text": "text"}[layout.key_type]
        run(
            connection,
            f"CREATE TEMPORARY TABLE emberd_side (key {key}, vector {layout.extension}.vector)"
            " ON COMMIT DROP",
        )
        run(connection, f"ALTER TABLE {SIDE} ALTER COLUMN vector SET STORAGE EXTERNAL")
        given = send(connection, SIDE, key, vectors)
        run(connection, f"ANALYZE {SIDE}")
        return given

    def _copy(self, new: int) -> None:
        """Copy all rows, with the new vectors in place of the old ones."""
        layout = self._layout
        columns = every(
            self._connection,
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            layout.oid,
        )
        old = f"t.{quoted(layout.vector)}"
        values = ", ".join(
            f"CASE WHEN {layout.condition} THEN s.vector ELSE {old} END"
            if name == layout.vector
            else f"t.{quoted(name)}"
            for (name,) in columns
        )
        run(
            self._connection,
            f"INSERT INTO {name_of(self._connection, new)}"
            f" ({', '.join(quoted(name) for (name,) in columns)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {values} FROM {layout.name} t LEFT JOIN {SIDE} s"
            f" ON s.key = {layout.key_order}",
        )

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of all columns but one, of other rows' vectors, and the definition."""
        layout = self._layout
        with explained(self._shown):
            found = {
                f"rows of {layout.name}": digest_of(self._connection, self._table, layout.vector),
                **definition(self._connection, self._table, layout.vector),
            }
            if layout.condition != "true":
                found["other rows' vectors"] = digest_of(
                    self._connection, self._table, where=f"NOT {layout.condition}"
                )
            return found

    def digest(self) -> str:
        """Return what the store's digest is once this is committed."""
        with explained(self._shown):
            return digest_with_definition(self._connection, self._table, self._layout.vector)

    def commit(self) -> None:
        """Exchange the tables, and commit."""
        with explained(self._shown):
            if self._new is not None:
                keep = self._keep()
                exchange(self._connection, self._layout.oid, self._new, keep, self._shown)
            run(self._connection, "COMMIT")
