"""Replaces a vec0 table's vectors: drops, creates and fills the table, all in one transaction.

A virtual table cannot be renamed, so the new one cannot be built beside the old one.
"""

from collections.abc import Iterable, Mapping

from emberd.stores.base import Key, Stamp
from emberd.stores.sqlite import database
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.replace import SqliteReplacement
from emberd.stores.sqlite.vec0_layout import Layout, as_vector


class Vec0Replacement(SqliteReplacement[Layout]):
    """The open transaction."""

    def _replace(self, vectors: Iterable[tuple[Key, bytes]], dimensions: int, stamp: Stamp) -> None:
        layout, execute = self._layout, self._connection.execute
        last_rowid = self._last_rowid()
        self._keep_other_columns()
        execute(f"DROP TABLE {quoted(layout.table)}")
        execute(layout.ddl_with(dimensions, stamp.dtype))
        new, others = as_vector("?2", stamp.dtype), layout.beside_sql
        insert = (
            f"INSERT INTO {quoted(layout.table)}({quoted(layout.key)},"
            f" {quoted(layout.column)}{others})"
        )
        if others:
            kept = 'FROM temp.emberd_kept WHERE "its key" = ?1'
            self._put(f"{insert} SELECT ?1, {new}{others} {kept}", vectors)
            execute("DROP TABLE temp.emberd_kept")
        else:
            self._put(f"{insert} VALUES (?1, {new})", vectors)
        if last_rowid is not None:  # a new row must not get the rowid of a deleted one
            execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?",
                (last_rowid, f"{layout.table}_rowids"),
            )

    def _keep_other_columns(self) -> None:
        """Save metadata, auxiliary columns and partition keys in a temporary table."""
        layout, execute = self._layout, self._connection.execute
        if not layout.beside:
            return
        # No column of a vec0 table can be named "its key".
        execute(
            f'CREATE TEMP TABLE emberd_kept AS SELECT {quoted(layout.key)} AS "its key"'
            f"{layout.beside_sql} FROM {quoted(layout.table)}"
        )
        execute('CREATE INDEX temp.emberd_kept_keys ON emberd_kept("its key")')

    def _last_rowid(self) -> int | None:
        """Return the highest rowid that the table has ever given; None if it has given none."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        last = self._connection.execute(query, (f"{self._layout.table}_rowids",)).get
        return None if last is None else int(last)

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of everything except the vectors; those of the table itself, too."""
        layout = self._layout
        kept = [quoted(name) for name in (layout.key, *layout.beside)]
        own = database.table_digest(self._connection, layout.table, kept)
        return {**super().unmoved(), layout.table: own}
