"""Replaces a vec0 table's vectors in one open transaction: drops, creates and fills the table.

A virtual table cannot be renamed, so the new one cannot be built beside the old one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import apsw

from emberd.dtypes import Dtype
from emberd.errors import StoreError
from emberd.migrate import sqlite
from emberd.migrate.base import Key, Row, Stamp
from emberd.migrate.copies import Place, matches
from emberd.migrate.sqlite import quoted
from emberd.migrate.vec0_layout import (
    SET_ASIDE,
    STAMPS,
    Layout,
    as_vector,
    column_names,
    stamp_in,
)


class Vec0Replacement:
    """The open transaction; see `emberd.migrate.base.Replacement`.

    Args:
        connection: holds the write lock.
        layout: the vec0 table.
        path: the database, for messages.
        rows: yields the rows as they are, without vectors.
        also: the columns whose copies of the vectors are replaced with them.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        layout: Layout,
        *,
        path: Path,
        rows: Callable[[], Iterator[Row]],
        also: Sequence[Place],
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._path = path
        self._read = rows
        self._also = also

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`."""
        return self._read()

    def vector_keys(self) -> Iterator[Key]:
        """Yield the keys of all vectors."""
        found = self._connection.execute(
            f"SELECT {quoted(self._layout.key)} FROM {quoted(self._layout.table)}"
        )
        return (key for (key,) in found)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Replace all vectors with these; every other column keeps its values."""
        layout, execute = self._layout, self._connection.execute
        last_rowid = self._last_rowid()
        self._find_copies()
        self._keep_other_columns()
        execute(f"DROP TABLE {quoted(layout.table)}")
        execute(layout.ddl_with(dimensions, stamp.dtype))
        self._insert(vectors, stamp.dtype)
        self._move_copies()
        if last_rowid is not None:  # a new row must not get the rowid of a deleted one
            execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?",
                (last_rowid, f"{layout.table}_rowids"),
            )
        if layout.others:
            execute("DROP TABLE temp.emberd_kept")
        execute(
            f"CREATE TABLE IF NOT EXISTS {STAMPS}(vectors TEXT PRIMARY KEY, stamp TEXT NOT NULL)"
        )
        execute(f"INSERT OR REPLACE INTO {STAMPS} VALUES (?, ?)", (layout.table, stamp.to_json()))

    def _keep_other_columns(self) -> None:
        """Save metadata, auxiliary columns and partition keys in a temporary table."""
        layout, execute = self._layout, self._connection.execute
        if not layout.others:
            return
        # No column of a vec0 table can be named "its key".
        execute(
            f'CREATE TEMP TABLE emberd_kept AS SELECT {quoted(layout.key)} AS "its key"'
            f"{layout.others_sql} FROM {quoted(layout.table)}"
        )
        execute('CREATE INDEX temp.emberd_kept_keys ON emberd_kept("its key")')

    def _insert(self, vectors: Iterable[tuple[Key, bytes]], dtype: Dtype) -> None:
        layout = self._layout
        table, others = quoted(layout.table), layout.others_sql
        insert = f"INSERT INTO {table}({quoted(layout.key)}, {quoted(layout.column)}{others})"
        if others:
            insert += f" SELECT ?1, {as_vector('?2', dtype)}{others}"
            insert += ' FROM temp.emberd_kept WHERE "its key" = ?1'
        else:
            insert += f" VALUES (?1, {as_vector('?2', dtype)})"
        given = 0

        def counted() -> Iterator[tuple[Key, bytes]]:
            nonlocal given
            for given, pair in enumerate(vectors, start=1):  # noqa: B007 - it counts
                yield pair

        self._connection.executemany(insert, counted())
        present = self._connection.execute(f"SELECT count(*) FROM {table}").get
        if present != given:
            raise StoreError(f"{self._path}: only {present} of {given} vectors are in {table}.")

    def _last_rowid(self) -> int | None:
        """Return the highest rowid that the table has ever given; None if it has given none."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        last = self._connection.execute(query, (f"{self._layout.table}_rowids",)).get
        return None if last is None else int(last)

    # -- vectors without a text ---------------------------------------------------------------

    def set_aside(self, keys: Iterable[Key], *, stamp: Stamp) -> str:
        """Move whole rows to the table `emberd_set_aside`, one line there for each column."""
        layout, execute = self._layout, self._connection.execute
        table, key = quoted(layout.table), quoted(layout.key)
        execute(
            f"CREATE TABLE IF NOT EXISTS {SET_ASIDE}"
            '(vectors TEXT, key, "column" TEXT, value, space TEXT, migration TEXT, at TEXT)'
        )
        before = execute(f"SELECT count(*) FROM {SET_ASIDE}").get
        space = stamp_in(self._connection, layout.table)  # unknown if it was never migrated
        made_by = (space and space.to_json(), stamp.migration, stamp.made_at)
        count = 0
        columns = (layout.vector, *layout.others)
        for count, each in enumerate(keys, start=1):  # noqa: B007 - it counts
            for column in columns:
                execute(
                    f"INSERT INTO {SET_ASIDE} SELECT ?, {key}, ?, {quoted(column.name)}, ?, ?, ?"
                    f" FROM {table} WHERE {key} = ?",
                    (layout.table, column.name, *made_by, each),
                )
            execute(f"DELETE FROM {table} WHERE {key} = ?", (each,))
        after = execute(f"SELECT count(*) FROM {SET_ASIDE}").get
        if after - before != count * len(columns):
            raise StoreError(f"{self._path}: not all of the {count} vectors could be set aside.")
        return f"the table {SET_ASIDE} of {self._path}"

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Put rows from `emberd_set_aside` back, with new vectors."""
        layout, execute = self._layout, self._connection.execute
        lines = f"FROM {SET_ASIDE} WHERE vectors = ? AND key = ?"
        for key, vector in vectors:
            aside = dict(execute(f'SELECT "column", value {lines}', (layout.table, key)))
            beside = {column.name: aside[column.name] for column in layout.others}
            values = {layout.key: key, **beside, layout.column: vector}
            columns = ", ".join(map(quoted, values))
            places = ", ".join(["?"] * (len(values) - 1) + [as_vector("?", layout.dtype)])
            execute(
                f"INSERT INTO {quoted(layout.table)}({columns}) VALUES ({places})",
                tuple(values.values()),
            )
            execute(f"DELETE {lines}", (layout.table, key))
        if not execute(f"SELECT count(*) FROM {SET_ASIDE}").get:
            execute(f"DROP TABLE {SET_ASIDE}")

    # -- columns that hold copies of the vectors ----------------------------------------------

    def _find_copies(self) -> None:
        """Note which rows hold a copy, while the old vectors are still there to compare with."""
        for at, place in enumerate(self._also):
            table = f"temp.emberd_copied_{at}"
            if self._connection.table_exists("temp", f"emberd_copied_{at}"):
                continue
            self._connection.execute(
                f"CREATE TEMP TABLE emberd_copied_{at}(row INTEGER PRIMARY KEY, key)"
            )
            found = matches(self._connection, self._layout.vectors, place)
            self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", found)

    def _move_copies(self) -> None:
        layout, execute = self._layout, self._connection.execute
        for at, place in enumerate(self._also):
            column, table = quoted(place.column), quoted(place.table)
            found = list(execute(f"SELECT row, key FROM temp.emberd_copied_{at}"))
            changed = 0
            for row, key in found:
                execute(
                    f"UPDATE {table} SET {column} = (SELECT {quoted(layout.column)}"
                    f" FROM {quoted(layout.table)} WHERE {quoted(layout.key)} = ?)"
                    " WHERE _rowid_ = ?",
                    (key, row),
                )
                changed += self._connection.changes()
            if changed != len(found):
                raise StoreError(
                    f"{self._path}: only {changed} of {len(found)} rows of {place.name} changed."
                )

    # -- what must not change -----------------------------------------------------------------

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of everything except the vectors, and every definition, by name."""
        layout, connection = self._layout, self._connection
        self._find_copies()
        kept = [quoted(name) for name in (layout.key, *(each.name for each in layout.others))]
        found = {layout.table: sqlite.table_digest(connection, layout.table, kept)}
        ours = layout.ours - {SET_ASIDE}
        listed = connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN"
            " ('table', 'shadow') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        for (name,) in list(listed):
            if name not in ours:
                values = [self._but_copies(name, each) for each in column_names(connection, name)]
                found[name] = sqlite.table_digest(connection, name, values)
        schema = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        found.update({f"the definition of {name}": sql for name, sql in schema if name not in ours})
        return found

    def _but_copies(self, table: str, column: str) -> str:
        """Return a column's value as SQL, NULL in the rows whose copy is replaced."""
        place = Place(table, column)
        if place not in self._also:
            return quoted(column)
        moved = f"SELECT row FROM temp.emberd_copied_{self._also.index(place)}"
        return f"iif(_rowid_ IN ({moved}), NULL, {quoted(column)})"

    def digest(self) -> str:
        """Return what the store's digest is once this is committed."""
        return sqlite.digest(self._connection)

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.execute("COMMIT")
        sqlite.shorten_log(self._connection)
