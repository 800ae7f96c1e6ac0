"""Store kind `sqlite-vec`: a vec0 table, and texts from a table's column or a query."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import apsw

from emberd.dtypes import STORED, Dtype
from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.migrate import sqlite
from emberd.migrate.base import (
    Copy,
    Cost,
    Key,
    Lacking,
    Replacement,
    Restoration,
    Row,
    Shape,
    Stamp,
)
from emberd.migrate.copies import Place, copies_in, places
from emberd.migrate.sqlite import quoted
from emberd.migrate.vec0_layout import (
    SET_ASIDE,
    Layout,
    as_vector,
    layout_of,
    stamp_in,
    vec0_tables,
)
from emberd.migrate.vec0_rehearsal import rehearse
from emberd.migrate.vec0_replace import Vec0Replacement

TEXTS = "emberd_texts"  # not a name that users choose: a WITH hides a table of the same name
REHEARSED_ROWS = 3000
HOW = "Say where the texts are: `--option text=TABLE.COLUMN`, or `--option query=SELECT ...`."


class SqliteVecStore:
    """Any vec0 table.

    Args:
        path: the database.
        table: the vec0 table; required if there are several.
        text: `TABLE.COLUMN` of the texts; by default the vec0 table's own text column.
        id: the column of that TABLE that holds the vec0 table's key; by default its rowid.
        query: instead of `text`, a SELECT of two columns, key and text.
        also: `TABLE.COLUMN` with copies of the vectors, to be replaced too; commas between several.
    """

    kind: ClassVar[str] = "sqlite-vec"
    dtypes: ClassVar[Sequence[Dtype]] = tuple(STORED)
    settings: Path | None = None

    def __init__(
        self,
        path: Path,
        *,
        table: str | None = None,
        text: str | None = None,
        id: str | None = None,
        query: str | None = None,
        also: str | None = None,
    ) -> None:
        self.path = path
        self._table = table
        self._text = text
        self._id = id
        self._query = query
        self._also = [each.strip() for each in also.split(",")] if also else []

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a database with a vec0 table."""
        with suppress(NotAStoreError):
            return bool(tables(path))
        return False

    @property
    def part(self) -> str:
        """The vec0 table: a database may have several, and a backup covers all of them."""
        with self._reading() as (_, layout):
            return layout.table

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        with self._reading() as (connection, layout):
            texts, v = self._texts(layout), f"{quoted(layout.table)} AS v"
            same = f"v.{quoted(layout.key)} = t.key"

            def count(sql: str) -> int:
                return int(connection.execute(f"{texts} {sql}").get)

            rows = count(f"SELECT count(*) FROM {TEXTS} AS t CROSS JOIN {v} ON {same}")
            all_vectors = count(f"SELECT count(*) FROM {v}")
            shape = Shape(
                rows=rows,
                dimensions=layout.dimensions,
                without_vector=count(f"SELECT count(*) FROM {TEXTS}") - rows,
                without_text=all_vectors - rows,
                dtype=layout.dtype,
            )
        if shape.without_text < 0:
            raise NotAStoreError(
                f"{self.path}: several texts belong to one vector of {layout.table}.", hint=HOW
            )
        if all_vectors and not rows:
            raise NotAStoreError(
                f"{self.path}: no text belongs to any of the {all_vectors} vectors of"
                f" {layout.table}.",
                hint=HOW,
            )
        return shape

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield rows; see `Store`."""
        with self._reading() as (connection, layout):
            yield from self._rows(connection, layout, after=after, vectors=vectors)

    def halved(self) -> Iterator[Row]:
        """Find vectors that were set aside and have a text now; see `Store`."""
        with self._reading() as (connection, layout):
            if not connection.table_exists("main", SET_ASIDE):
                return
            found = connection.execute(
                f"{self._texts(layout)} SELECT t.key, t.text FROM {TEXTS} AS t"
                f" WHERE t.key IN (SELECT key FROM {SET_ASIDE} WHERE vectors = ?) AND NOT EXISTS"
                f" (SELECT 1 FROM {quoted(layout.table)} AS v"
                f" WHERE v.{quoted(layout.key)} = t.key)",
                (layout.table,),
            )
            for key, text in found:
                if isinstance(text, str) and self.clean(text):
                    yield Row(key, self.clean(text))

    def lacking(self) -> Lacking:
        """Compare the keys of texts and vectors; see `Store`."""
        with self._reading() as (connection, layout):
            rows = {
                row.key: bool(row.text)
                for row in self._rows(connection, layout, after=None, vectors=False)
            }
            vectors = connection.execute(f"SELECT {quoted(layout.key)} FROM {quoted(layout.table)}")
            texts = connection.execute(f"{self._texts(layout)} SELECT key FROM {TEXTS}")
            return Lacking(
                text=sorted(key for (key,) in vectors if not rows.get(key)),
                vector=[key for (key,) in texts if key not in rows],
            )

    def copies(self) -> list[Copy]:
        """Look at every column of every table; see `Store`."""
        with self._reading() as (connection, layout):
            self._also_places(connection, layout)
            everywhere = places(connection, layout.ours)
            return copies_in(connection, layout.vectors, everywhere, self._also)

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Ask the vec0 table itself."""
        with self._reading() as (connection, layout):
            found = connection.execute(
                f"SELECT {quoted(layout.key)} FROM {quoted(layout.table)}"
                f" WHERE {quoted(layout.column)} MATCH {as_vector('?', layout.dtype)}"
                " AND k = ? ORDER BY distance",
                (vector, count),
            )
            return [key for (key,) in found]

    def stamp(self) -> Stamp | None:
        """Read it from the table `emberd_spaces`."""
        with self._reading() as (connection, layout):
            return stamp_in(connection, layout.table)

    def cost(self, dimensions: int) -> Cost:
        """Fill a table of this size elsewhere, and scale up what that took."""
        began_s = time.perf_counter()
        rows = sum(1 for _ in self.rows(vectors=False))
        scan_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        self.digest()
        digest_s = time.perf_counter() - began_s
        rehearsal = rehearse(max(1, min(rows, REHEARSED_ROWS)), dimensions)
        here = sqlite.size(self.path)
        wider = max(0, 4 * dimensions - self.inspect().vector_bytes)
        log_bytes = rehearsal.log_bytes * rows // rehearsal.rows
        return Cost(
            backup_bytes=here,
            swap_bytes=log_bytes * (1 + len(self._also)) + wider * rows,
            # What does not change is read before and after, and everything once at the end.
            locked_s=rehearsal.fill_s * rows / rehearsal.rows
            + rehearsal.copy_s_per_byte * here
            + 3 * scan_s
            + 2 * digest_s,
        )

    def digest(self) -> str:
        """Read the whole database, because a backup covers all of it too."""
        with self._reading() as (connection, _):
            return sqlite.digest(connection)

    def backup(self, target: Path) -> None:
        """Use SQLite's own backup, in one step."""
        sqlite.copy(self.path, target)

    def check_backup(self, backup: Path) -> None:
        """Have SQLite check all of it; it must have a vec0 table."""
        with sqlite.opened_backup(backup) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                raise StoreError(f"{backup} is damaged: {found}.")
            if not vec0_tables(connection):
                raise StoreError(f"{backup} has no vec0 table.")

    def restoring(self, backup: Path) -> AbstractContextManager[Restoration]:
        """Use SQLite's own backup in the other direction."""
        return sqlite.restoring(self.path, backup)

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        """Hold the write lock of the database; readers see it unchanged."""
        with sqlite.opened(self.path, write=True) as connection:
            if connection.readonly("main"):  # BEGIN IMMEDIATE would not fail
                raise apsw.ReadOnlyError
            # Only vectors change, so no trigger of the user may take that for an edit.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            connection.execute("BEGIN IMMEDIATE")
            layout = self._layout(connection)
            yield Vec0Replacement(
                connection,
                layout,
                path=self.path,
                rows=lambda: self._rows(connection, layout, after=None, vectors=False),
                also=self._also_places(connection, layout),
            )

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: this kind has no settings."""
        del model, dimensions
        return text

    def _also_places(self, connection: apsw.Connection, layout: Layout) -> list[Place]:
        """Return the columns that the option `also` names.

        Raises:
            NotAStoreError: there is no such column.
        """
        there = {place.name: place for place in places(connection, layout.ours) if place.has_rowids}
        unknown = [name for name in self._also if name not in there]
        if unknown:
            raise NotAStoreError(
                f"also={unknown[0]} is not a column of a table with rowids in {self.path}.",
                hint="Write it as TABLE.COLUMN, spelled as in the definition of the table.",
            )
        return [there[name] for name in self._also]

    # -- internal, and for subclasses ---------------------------------------------------------

    def clean(self, text: str) -> str:
        """Return the part of a stored text that was embedded: all of it."""
        return text

    @contextmanager
    def _reading(self) -> Iterator[tuple[apsw.Connection, Layout]]:
        with sqlite.opened(self.path) as connection:
            connection.execute("BEGIN")
            yield connection, self._layout(connection)

    def _rows(
        self, connection: apsw.Connection, layout: Layout, *, after: Key | None, vectors: bool
    ) -> Iterator[Row]:
        # CROSS JOIN reads texts in the order of their keys, and looks up the vector of each. The
        # other way round, SQLite would sort everything first.
        vector = f"v.{quoted(layout.column)}" if vectors else "x''"
        found = connection.execute(
            f"{self._texts(layout)} SELECT t.key, t.text, {vector}"
            f" FROM {TEXTS} AS t CROSS JOIN {quoted(layout.table)} AS v"
            f" ON v.{quoted(layout.key)} = t.key"
            f" {'' if after is None else 'WHERE t.key > ?'} ORDER BY t.key",
            () if after is None else (after,),
        )
        try:
            for key, text, raw in found:
                yield Row(key, self.clean(text) if isinstance(text, str) else None, raw)
        except UnicodeDecodeError:
            raise self._not_text(connection, layout) from None

    def _not_text(self, connection: apsw.Connection, layout: Layout) -> StoreRowsError:
        """Return the error that names the rows whose texts cannot be decoded."""
        coding = connection.pragma("encoding")
        found = connection.execute(
            f"{self._texts(layout)} SELECT t.key, CAST(t.text AS BLOB)"
            f" FROM {TEXTS} AS t CROSS JOIN {quoted(layout.table)} AS v"
            f" ON v.{quoted(layout.key)} = t.key"
            " WHERE typeof(t.text) = 'text' ORDER BY t.key"
        )
        keys = [key for key, raw in found if not _is_text(raw, coding)]
        own = f"{layout.table}.{layout.texts[0]}" if layout.texts else ""
        where = "the query" if self._query else self._text or own
        first = ", ".join(repr(key) for key in keys[:5]) + (", ..." if keys[5:] else "")
        return StoreRowsError(
            f"{self.path}: the text of {len(keys)} rows of {where} is not {coding} ({first}).",
            hint=f"Rewrite those texts in {coding}, or delete the rows and their vectors.",
        )

    def _texts(self, layout: Layout) -> str:
        """Return the WITH clause that makes a table of keys and texts."""
        return f"WITH {TEXTS}(key, text) AS ({self._texts_query(layout)})"

    def _texts_query(self, layout: Layout) -> str:
        """Return the SELECT of keys and texts."""
        if self._query:
            return self._query.strip().rstrip(";")
        if self._text:
            table, dot, column = self._text.rpartition(".")
            if not dot:
                raise NotAStoreError(
                    f"--option text={self._text}: expected TABLE.COLUMN.", hint=HOW
                )
            own = layout.key if table == layout.table else "rowid"
            return f"SELECT {quoted(self._id or own)}, {quoted(column)} FROM {quoted(table)}"
        if len(layout.texts) == 1:
            return (
                f"SELECT {quoted(layout.key)}, {quoted(layout.texts[0])}"
                f" FROM {quoted(layout.table)}"
            )
        table = f"{self.path}: the vec0 table {layout.table}"
        if layout.texts:
            raise NotAStoreError(
                f"{table} has several text columns ({', '.join(layout.texts)}).",
                hint=f"Name the one that was embedded: `--option text={layout.table}.COLUMN`.",
            )
        raise NotAStoreError(f"{table} has no text column of its own.", hint=HOW)

    def _layout(self, connection: apsw.Connection) -> Layout:
        found = vec0_tables(connection)
        names = ", ".join(sorted(found)) or "none"
        if self._table is None and len(found) != 1:
            raise NotAStoreError(
                f"{self.path} has {len(found)} vec0 tables ({names}), not one.",
                hint="Name one of them with `--option table=NAME`."
                if found
                else "A store is a database with a vec0 table, made by sqlite-vec.",
            )
        table = self._table or next(iter(found))
        if table not in found:
            raise NotAStoreError(
                f"{self.path} has no vec0 table {table}, only: {names}.",
                hint="Name one of those with `--option table=NAME`.",
            )
        return layout_of(self.path, connection, table, found[table])


def _is_text(raw: bytes, coding: str) -> bool:
    try:
        raw.decode(coding)
    except UnicodeDecodeError:
        return False
    return True


def tables(path: Path) -> set[str]:
    """Return the names of a database's tables if it has a vec0 table, otherwise none."""
    if not path.is_file():
        return set()
    with sqlite.opened(path) as connection:
        if not vec0_tables(connection):
            return set()
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
