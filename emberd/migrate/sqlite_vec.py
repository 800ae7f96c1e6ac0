"""Store kind `sqlite-vec`: a vec0 table, and texts in a column of a table or by a query."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import apsw

from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.migrate import sqlite, vec0
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
from emberd.migrate.copies import Place, Vectors, copies_in, matches, places
from emberd.migrate.sqlite import quoted
from emberd.migrate.vec0 import Column

STAMPS = "emberd_spaces"
SET_ASIDE = "emberd_set_aside"
TEXTS = "emberd_texts"  # no name of the user's: a WITH hides the table that is called the same
REHEARSED_ROWS = 3000
SHADOW = re.compile(
    r"rowids|chunks|info|auxiliary|(?:vector_chunks|metadatachunks|metadatatext)\d\d"
)
HOW = "Say where the texts are: `--option text=TABLE.COLUMN`, or `--option query=SELECT ...`."


@dataclass(frozen=True, slots=True)
class Layout:
    """A vec0 table as its DDL describes it. `others` are the columns beside key and vector."""

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
    def vectors(self) -> Vectors:
        """Where its vectors are, for who compares them."""
        return Vectors(self.table, self.key, self.key_type, self.column, 4 * self.dimensions)

    @property
    def ours(self) -> frozenset[str]:
        """The tables that are the store's, or that emberd makes."""
        return self.shadows | {self.table, STAMPS, SET_ASIDE}

    @property
    def texts(self) -> list[str]:
        """Its own text columns. One that somebody meant to be the key is none."""
        return [
            column.name
            for column in self.others
            if column.type == "text"
            and column.kind != "partition"
            and not re.search(r"\bprimary\s+key\b", column.unread, re.I)
        ]

    def ddl_with(self, dimensions: int) -> str:
        """Return the DDL with another dimension and nothing else changed."""
        start, end = self.vector.size_at
        return f"{self.ddl[:start]}{dimensions}{self.ddl[end:]}"


class SqliteVecStore:
    """Any vec0 table.

    Args:
        path: the database.
        table: the vec0 table; needed when there are several.
        text: `TABLE.COLUMN` of the texts; without it the vec0 table's own text column.
        id: the column of that TABLE that holds the vec0 table's key; its rowid without it.
        query: instead of `text`: a SELECT of two columns, key and text.
        also: `TABLE.COLUMN` with copies of the vectors, replaced with them; several by commas.
    """

    kind: ClassVar[str] = "sqlite-vec"
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
        """The vec0 table: a database may have several, and a backup is of all of it."""
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
        """Look for the texts of vectors that were set aside; see `Store`."""
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
        """Compare the keys of both; see `Store`."""
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
            self._copied(connection, layout)
            everywhere = places(connection, layout.ours)
            return copies_in(connection, layout.vectors, everywhere, self._also)

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Ask the vec0 table itself."""
        with self._reading() as (connection, layout):
            found = connection.execute(
                f"SELECT {quoted(layout.key)} FROM {quoted(layout.table)}"
                f" WHERE {quoted(layout.column)} MATCH ? AND k = ? ORDER BY distance",
                (vector, count),
            )
            return [key for (key,) in found]

    def stamp(self) -> Stamp | None:
        """Read it from the table `emberd_spaces`."""
        with self._reading() as (connection, layout):
            if not connection.table_exists("main", STAMPS):
                return None
            kept = connection.execute(
                f"SELECT stamp FROM {STAMPS} WHERE vectors = ?", (layout.table,)
            ).get
            return Stamp.from_json(kept) if kept else None

    def cost(self, dimensions: int) -> Cost:
        """Fill a table of this size elsewhere, and scale what that took."""
        began_s = time.perf_counter()
        rows = sum(1 for _ in self.rows(vectors=False))
        scan_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        self.digest()
        digest_s = time.perf_counter() - began_s
        sample = max(1, min(rows, REHEARSED_ROWS))
        with TemporaryDirectory(prefix="emberd-rehearsal-") as folder:
            file = Path(folder, "rehearsal.db")
            connection = sqlite.connect(file, create=True)
            with sqlite.explained(file):
                connection.pragma("journal_mode", "wal")
                connection.pragma("wal_autocheckpoint", 0)
                connection.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{dimensions}])")
                vector = bytes(4 * dimensions)
                began_s = time.perf_counter()
                with connection:
                    connection.executemany(
                        "INSERT INTO v(rowid, e) VALUES (?, ?)",
                        ((key, vector) for key in range(sample)),
                    )
                fill_s = time.perf_counter() - began_s
                log_bytes = sqlite.size(file)
                began_s = time.perf_counter()
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                for key in range(sample):  # as the sidecar is asked for hash and vector
                    connection.execute("SELECT rowid FROM v WHERE rowid = ?", (key,)).get  # noqa: B018
                    connection.execute("SELECT e FROM v WHERE rowid = ?", (key,)).get  # noqa: B018
                fill_s += time.perf_counter() - began_s
            connection.close()
            began_s = time.perf_counter()
            sqlite.copy(file, Path(folder, "copy.db"))
            copy_s = (time.perf_counter() - began_s) / sqlite.size(file)
        here = sqlite.size(self.path)
        wider = max(0, dimensions - self.inspect().dimensions)
        return Cost(
            backup_bytes=here,
            swap_bytes=log_bytes * rows // sample * (1 + len(self._also)) + 4 * wider * rows,
            # what is not moved is read before and after, and all of it once at the end
            locked_s=fill_s * rows / sample + copy_s * here + 3 * scan_s + 2 * digest_s,
        )

    def digest(self) -> str:
        """Read the whole database: a backup is of the whole, too."""
        with self._reading() as (connection, _):
            return sqlite.digest(connection)

    def backup(self, target: Path) -> None:
        """Use SQLite's own backup, in one step."""
        sqlite.copy(self.path, target)

    def check_backup(self, backup: Path) -> None:
        """Have SQLite look through all of it; the vec0 table has to be there."""
        with sqlite.opened_backup(backup) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                raise StoreError(f"{backup} is damaged: {found}.")
            if not _vec0_tables(connection):
                raise StoreError(f"{backup} has no vec0 table.")

    def restoring(self, backup: Path) -> AbstractContextManager[Restoration]:
        """Use SQLite's own backup the other way."""
        return sqlite.restoring(self.path, backup)

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        """Hold the write lock of the database; readers go on and see it as it was."""
        with sqlite.opened(self.path, write=True) as connection:
            if connection.readonly("main"):  # BEGIN IMMEDIATE would say nothing
                raise apsw.ReadOnlyError
            # A move changes vectors only: no trigger of the user's takes it for an edit.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            connection.execute("BEGIN IMMEDIATE")
            yield _Replacing(self, connection, self._layout(connection))

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Nothing: this kind has no settings."""
        del model, dimensions
        return text

    def _copied(self, connection: apsw.Connection, layout: Layout) -> list[Place]:
        """Return the columns that move along.

        Raises:
            NotAStoreError: there is no such column.
        """
        there = {place.name: place for place in places(connection, layout.ours) if place.has_rowids}
        unknown = [name for name in self._also if name not in there]
        if unknown:
            raise NotAStoreError(
                f"also={unknown[0]} is no column of a table with rowids in {self.path}.",
                hint="Name it as TABLE.COLUMN, as the definition of the table does.",
            )
        return [there[name] for name in self._also]

    # -- inside, and for kinds that are such a store with more around it --------------------

    def clean(self, text: str) -> str:
        """Return what of a stored text was embedded: all of it."""
        return text

    @contextmanager
    def _reading(self) -> Iterator[tuple[apsw.Connection, Layout]]:
        with sqlite.opened(self.path) as connection:
            connection.execute("BEGIN")
            yield connection, self._layout(connection)

    def _rows(
        self, connection: apsw.Connection, layout: Layout, *, after: Key | None, vectors: bool
    ) -> Iterator[Row]:
        # CROSS JOIN: texts in the order of their keys, each asking for its vector. The other way
        # round would sort everything first.
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
        """Return the error that names the rows whose texts have bytes that are no characters."""
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
            hint=f"Write those texts as {coding}, or delete those rows and their vectors.",
        )

    def _texts(self, layout: Layout) -> str:
        """Return the WITH that makes keys and texts a table."""
        return f"WITH {TEXTS}(key, text) AS ({self._texts_query(layout)})"

    def _texts_query(self, layout: Layout) -> str:
        """Return the SELECT of keys and texts."""
        if self._query:
            return self._query.strip().rstrip(";")
        if self._text:
            table, dot, column = self._text.rpartition(".")
            if not dot:
                raise NotAStoreError(
                    f"text={self._text} is not of the form TABLE.COLUMN.", hint=HOW
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
        found = _vec0_tables(connection)
        names = ", ".join(sorted(found)) or "none"
        if self._table is None and len(found) != 1:
            raise NotAStoreError(
                f"{self.path} has {len(found)} vec0 tables ({names}), not one.",
                hint="Name one with `--option table=NAME`."
                if found
                else "A store is a database with a vec0 table of sqlite-vec.",
            )
        table = self._table or next(iter(found))
        if table not in found:
            raise NotAStoreError(
                f"{self.path} has no vec0 table {table}; there is: {names}.",
                hint="Name one with `--option table=NAME`.",
            )
        return _layout_of(self.path, connection, table, found[table])


class _Replacing:
    """The open transaction. Virtual tables cannot be renamed: drop, create, fill."""

    def __init__(self, store: SqliteVecStore, connection: apsw.Connection, layout: Layout) -> None:
        self._store = store
        self._connection = connection
        self._layout = layout
        self._copied = store._copied(connection, layout)  # noqa: SLF001

    def rows(self) -> Iterator[Row]:
        return self._store._rows(self._connection, self._layout, after=None, vectors=False)  # noqa: SLF001

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        layout, execute = self._layout, self._connection.execute
        table, key = quoted(layout.table), quoted(layout.key)
        others = "".join(f", {quoted(column.name)}" for column in layout.others)
        last_rowid = self._last_rowid()
        self._find_copies()
        if others:  # metadata, auxiliary columns and partition keys move along
            # "its key": no column of a vec0 table can be called so
            execute(
                f'CREATE TEMP TABLE emberd_kept AS SELECT {key} AS "its key"{others} FROM {table}'
            )
            execute('CREATE INDEX temp.emberd_kept_keys ON emberd_kept("its key")')
        execute(f"DROP TABLE {table}")
        execute(layout.ddl_with(dimensions))
        insert = f"INSERT INTO {table}({key}, {quoted(layout.column)}{others})"
        if others:
            insert += f' SELECT ?1, ?2{others} FROM temp.emberd_kept WHERE "its key" = ?1'
        else:
            insert += " VALUES (?, ?)"
        given = 0

        def counted() -> Iterator[tuple[Key, bytes]]:
            nonlocal given
            for given, pair in enumerate(vectors, start=1):  # noqa: B007 - it counts
                yield pair

        self._connection.executemany(insert, counted())
        there = execute(f"SELECT count(*) FROM {table}").get
        if there != given:
            raise StoreError(f"{self._store.path}: {there} of {given} vectors are in {table}.")
        self._move_copies()
        if last_rowid is not None:  # the next row must not get the rowid of one that was deleted
            execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?",
                (last_rowid, f"{layout.table}_rowids"),
            )
        if others:
            execute("DROP TABLE temp.emberd_kept")
        execute(
            f"CREATE TABLE IF NOT EXISTS {STAMPS}(vectors TEXT PRIMARY KEY, stamp TEXT NOT NULL)"
        )
        execute(f"INSERT OR REPLACE INTO {STAMPS} VALUES (?, ?)", (layout.table, stamp.to_json()))

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        layout, execute = self._layout, self._connection.execute
        lines = f"FROM {SET_ASIDE} WHERE vectors = ? AND key = ?"
        for key, vector in vectors:
            aside = dict(execute(f'SELECT "column", value {lines}', (layout.table, key)))
            beside = {column.name: aside[column.name] for column in layout.others}
            values = {layout.key: key, **beside, layout.column: vector}
            columns = ", ".join(map(quoted, values))
            places = ", ".join("?" * len(values))
            execute(
                f"INSERT INTO {quoted(layout.table)}({columns}) VALUES ({places})",
                tuple(values.values()),
            )
            execute(f"DELETE {lines}", (layout.table, key))
        if not execute(f"SELECT count(*) FROM {SET_ASIDE}").get:
            execute(f"DROP TABLE {SET_ASIDE}")

    def vector_keys(self) -> Iterator[Key]:
        found = self._connection.execute(
            f"SELECT {quoted(self._layout.key)} FROM {quoted(self._layout.table)}"
        )
        return (key for (key,) in found)

    def set_aside(self, keys: Iterable[Key], *, stamp: Stamp) -> str:
        layout, execute = self._layout, self._connection.execute
        table, key = quoted(layout.table), quoted(layout.key)
        execute(
            f"CREATE TABLE IF NOT EXISTS {SET_ASIDE}"
            '(vectors TEXT, key, "column" TEXT, value, space TEXT, migration TEXT, at TEXT)'
        )
        before = execute(f"SELECT count(*) FROM {SET_ASIDE}").get
        space = self._store.stamp()  # of a store that was never migrated it is not known
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
            raise StoreError(f"{self._store.path}: not all of {count} vectors could be set aside.")
        return f"the table {SET_ASIDE} of {self._store.path}"

    def _last_rowid(self) -> int | None:
        """Return the highest rowid that the table ever gave, None when it has given none."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        last = self._connection.execute(query, (f"{self._layout.table}_rowids",)).get
        return None if last is None else int(last)

    def _find_copies(self) -> None:
        """Note the rows that move along, while the old vectors are there to compare with."""
        for at, place in enumerate(self._copied):
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
        for at, place in enumerate(self._copied):
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
                    f"{self._store.path}: {changed} of {len(found)} rows of {place.name} changed."
                )

    def unmoved(self) -> Mapping[str, str]:
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
                values = [self._but_copies(name, each) for each in _names(connection, name)]
                found[name] = sqlite.table_digest(connection, name, values)
        schema = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        found.update({f"the definition of {name}": sql for name, sql in schema if name not in ours})
        return found

    def _but_copies(self, table: str, column: str) -> str:
        """Return a column's value as SQL, NULL in the rows in which it moves along."""
        place = Place(table, column)
        if place not in self._copied:
            return quoted(column)
        moved = f"SELECT row FROM temp.emberd_copied_{self._copied.index(place)}"
        return f"iif(_rowid_ IN ({moved}), NULL, {quoted(column)})"

    def digest(self) -> str:
        return sqlite.digest(self._connection)

    def commit(self) -> None:
        self._connection.execute("COMMIT")
        sqlite.shorten_log(self._connection)


def _is_text(raw: bytes, coding: str) -> bool:
    try:
        raw.decode(coding)
    except UnicodeDecodeError:
        return False
    return True


def tables(path: Path) -> set[str]:
    """Return the names of the tables of a database, when it has a vec0 table, else nothing."""
    if not path.is_file():
        return set()
    with sqlite.opened(path) as connection:
        if not _vec0_tables(connection):
            return set()
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _vec0_tables(connection: apsw.Connection) -> dict[str, str]:
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql LIKE '%vec0%'")
    return {name: sql for name, sql in found if vec0.is_vec0(sql)}


def _layout_of(path: Path, connection: apsw.Connection, table: str, ddl: str) -> Layout:
    """Read a vec0 table's DDL, and hold what was read against the table that is there."""
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
    if _names(connection, table) != expected:
        raise _not_understood(path, table, "its columns are others than its DDL was read to have")
    said = Counter(str(column.kind) for column in columns)
    said["a text key"] = bool(key and key.type == "text")
    said["texts"] = sum((each.kind, each.type) == ("metadata", "text") for each in columns)
    if _parts(connection, table, list(shadows.values())) != said:
        raise _not_understood(path, table, "sqlite-vec keeps other columns than its DDL says")
    vectors = [column for column in columns if column.kind == "vector"]
    if [column.type for column in vectors] != ["float"]:
        kinds = ", ".join(f"{each.name} {each.type}[{each.dimensions}]" for each in vectors)
        raise NotAStoreError(
            f"{path}: {table} has these vector columns: {kinds}; a store has one of float32.",
            hint="Quantized vectors and several of one row cannot be moved yet.",
        )
    return Layout(
        table=table,
        ddl=ddl,
        key=expected[0],
        key_type=key.type if key else "integer",
        vector=vectors[0],
        others=tuple(column for column in columns if column not in vectors),
        shadows=frozenset(shadows),
    )


def _names(connection: apsw.Connection, table: str) -> list[str]:
    return [
        name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


def _parts(connection: apsw.Connection, table: str, shadows: Sequence[str]) -> Counter[str]:
    """Count what sqlite-vec keeps of each kind of column."""
    ids = connection.execute(
        "SELECT type FROM pragma_table_info(?) WHERE name = 'id'", (f"{table}_rowids",)
    ).get
    chunks, auxiliary = (_names(connection, f"{table}_{name}") for name in ("chunks", "auxiliary"))
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
        f"{path}: the definition of {table} is not understood: {why}.",
        hint="Make the table again as docs/migrating-a-store.md describes one, and copy its rows.",
    )
