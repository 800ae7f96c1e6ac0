"""Replaces a store's vectors in one open SQLite transaction; nothing else may change."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from emberd.errors import StoreError
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.sqlite import database
from emberd.stores.sqlite.copies import Place, matches
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.table import SET_ASIDE, STAMPS, VectorTable, column_names, stamp_in

T = TypeVar("T", bound=VectorTable)


class SqliteReplacement(ABC, Generic[T]):
    """The open transaction; see `emberd.stores.base.Replacement`.

    Args:
        connection: holds the write lock.
        layout: where the vectors are.
        path: the database, for messages.
        rows: yields the rows as they are, without vectors.
        textless: yields the keys of vectors to which no text belongs at all.
        also: the columns whose copies of the vectors are replaced with them.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        layout: T,
        *,
        path: Path,
        rows: Callable[[], Iterator[Row]],
        textless: Callable[[], Iterator[Key]],
        also: Sequence[Place],
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._path = path
        self._rows = rows
        self._textless = textless
        self._also = also

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`."""
        return self._rows()

    def vector_keys(self) -> Iterator[Key]:
        """Yield the keys of the vectors that `rows` does not have."""
        return self._textless()

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Replace all vectors with these; every other column keeps its values."""
        self._find_copies()
        self._replace(vectors, dimensions, stamp)
        self._move_copies()
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {STAMPS}(vectors TEXT PRIMARY KEY, stamp TEXT NOT NULL)"
        )
        self._connection.execute(
            f"INSERT OR REPLACE INTO {STAMPS} VALUES (?, ?)", (self._layout.name, stamp.to_json())
        )

    @abstractmethod
    def _replace(self, vectors: Iterable[tuple[Key, bytes]], dimensions: int, stamp: Stamp) -> None:
        """Put these vectors in place of all others, or raise."""

    def _put(self, statement: str, vectors: Iterable[tuple[Key, bytes]]) -> int:
        """Execute a statement that takes key and vector, for each; return how many there were.

        Raises:
            StoreError: afterwards there are more vectors, or fewer.
        """
        layout, given = self._layout, 0

        def counted() -> Iterator[tuple[Key, bytes | str]]:
            nonlocal given
            for given, (key, vector) in enumerate(vectors, start=1):  # noqa: B007 - it counts
                yield key, layout.written(vector)

        self._connection.executemany(statement, counted())
        present = self._connection.execute(f"SELECT count(*) FROM ({layout.query})").get
        if present != given:
            raise StoreError(
                f"{self._path}: only {min(present, given)} of {max(present, given)} vectors of"
                f" {layout.table} were replaced."
            )
        return given

    # -- vectors without a text ---------------------------------------------------------------

    def set_aside(self, keys: Iterable[Key], *, stamp: Stamp) -> str:
        """Move whole rows to the table `emberd_set_aside`, one line there for each column."""
        layout, execute = self._layout, self._connection.execute
        key = quoted(layout.key)
        row = f"FROM {quoted(layout.table)} WHERE {key} = ? AND {layout.where}"
        execute(
            f"CREATE TABLE IF NOT EXISTS {SET_ASIDE}"
            '(vectors TEXT, key, "column" TEXT, value, space TEXT, migration TEXT, at TEXT)'
        )
        before = execute(f"SELECT count(*) FROM {SET_ASIDE}").get
        space = stamp_in(self._connection, layout.name)  # unknown if it was never migrated
        made_by = (space and space.to_json(), stamp.migration, stamp.made_at)
        count = 0
        columns = (layout.column, *layout.beside)
        for count, each in enumerate(keys, start=1):  # noqa: B007 - it counts
            for column in columns:
                execute(
                    f"INSERT INTO {SET_ASIDE} SELECT ?, {key}, ?, {quoted(column)}, ?, ?, ? {row}",
                    (layout.name, column, *made_by, each),
                )
            execute(f"DELETE {row}", (each,))
        after = execute(f"SELECT count(*) FROM {SET_ASIDE}").get
        if after - before != count * len(columns):
            raise StoreError(f"{self._path}: not all of the {count} vectors could be set aside.")
        return f"the table {SET_ASIDE} of {self._path}"

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Put rows from `emberd_set_aside` back, with new vectors."""
        layout, execute = self._layout, self._connection.execute
        lines = f"FROM {SET_ASIDE} WHERE vectors = ? AND key = ?"
        for key, vector in vectors:
            aside = dict(execute(f'SELECT "column", value {lines}', (layout.name, key)))
            self._put_back(key, {name: aside[name] for name in layout.beside}, vector)
            execute(f"DELETE {lines}", (layout.name, key))
        if not execute(f"SELECT count(*) FROM {SET_ASIDE}").get:
            execute(f"DROP TABLE {SET_ASIDE}")

    def _put_back(self, key: Key, beside: Mapping[str, Any], vector: bytes) -> None:
        """Insert a row that had been set aside."""
        layout = self._layout
        values = {layout.key: key, **beside, layout.column: layout.written(vector)}
        columns = ", ".join(map(quoted, values))
        places = ", ".join(["?"] * (len(values) - 1) + [layout.as_vector("?")])
        self._connection.execute(
            f"INSERT INTO {quoted(layout.table)}({columns}) VALUES ({places})",
            tuple(values.values()),
        )

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
        """Put the new vectors into the rows that hold a copy of the old ones."""
        execute = self._connection.execute
        for at, place in enumerate(self._also):
            copied = f"temp.emberd_copied_{at}"
            execute(
                f"UPDATE {quoted(place.table)} AS t SET {quoted(place.column)} ="
                f" (SELECT v.vector FROM {copied} AS c CROSS JOIN ({self._layout.query}) AS v"
                f" ON v.key = c.key WHERE c.row = t._rowid_)"
                f" WHERE _rowid_ IN (SELECT row FROM {copied})"
            )
            changed = self._connection.changes()
            found = execute(f"SELECT count(*) FROM {copied}").get
            if changed != found:
                raise StoreError(
                    f"{self._path}: only {changed} of {found} rows of {place.name} changed."
                )

    # -- what must not change -----------------------------------------------------------------

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of everything except the vectors, and every definition, by name."""
        connection, ours = self._connection, self._layout.ours - {SET_ASIDE}
        self._find_copies()
        found = {}
        listed = connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN"
            " ('table', 'shadow') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        for (name,) in list(listed):
            if name not in ours:
                values = [self._kept(name, each) for each in column_names(connection, name)]
                found[name] = database.table_digest(connection, name, values)
        schema = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        found.update({f"the definition of {name}": sql for name, sql in schema if name not in ours})
        return found

    def _kept(self, table: str, column: str) -> str:
        """Return a column's value as SQL, NULL in the rows in which it changes."""
        place = Place(table, column)
        if place not in self._also:
            return quoted(column)
        moved = f"SELECT row FROM temp.emberd_copied_{self._also.index(place)}"
        return f"iif(_rowid_ IN ({moved}), NULL, {quoted(column)})"

    def digest(self) -> str:
        """Return what the store's digest is once this is committed."""
        return database.digest(self._connection)

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.execute("COMMIT")
        database.shorten_log(self._connection)
