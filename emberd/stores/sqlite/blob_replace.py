"""Replaces the vectors in a column of an ordinary table, row by row in one transaction."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from emberd.errors import StoreError
from emberd.stores.base import Key, Stamp
from emberd.stores.sqlite.blob_table import BlobTable
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.replace import SqliteReplacement

B = TypeVar("B", bound=BlobTable)


class BlobReplacement(SqliteReplacement[B]):
    """The open transaction."""

    def _replace(self, vectors: Iterable[tuple[Key, bytes]], dimensions: int, stamp: Stamp) -> None:
        del dimensions, stamp
        layout, before = self._layout, self._connection.total_changes()
        given = self._put(
            f"UPDATE {quoted(layout.table)} SET {quoted(layout.column)} = ?2"
            f" WHERE {quoted(layout.key)} = ?1 AND {layout.where}",
            vectors,
        )
        changed = self._connection.total_changes() - before
        if changed != given:
            raise StoreError(
                f"{self._path}: {given} keys belong to {changed} rows of {layout.table}.",
                hint="Name a column whose values are unique: `--option id=COLUMN`.",
            )

    def _put_back(self, key: Key, beside: Mapping[str, Any], vector: bytes) -> None:
        """Insert a row that had been set aside, or complete the one that came instead of it."""
        layout = self._layout
        self._connection.execute(
            f"UPDATE {quoted(layout.table)} SET {quoted(layout.column)} = ?"
            f" WHERE {quoted(layout.key)} = ? AND {layout.scope}",
            (layout.written(vector), key),
        )
        if not self._connection.changes():
            super()._put_back(key, beside, vector)

    def _kept(self, table: str, column: str) -> str:
        kept = super()._kept(table, column)
        if (table, column) != (self._layout.table, self._layout.column):
            return kept
        return f"iif({self._layout.where}, NULL, {kept})"
