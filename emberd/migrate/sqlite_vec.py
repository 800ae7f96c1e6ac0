"""Store kind `sqlite-vec`: a vec0 table, and texts in a column of a table or by a query."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import apsw

from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.migrate import sqlite
from emberd.migrate.base import Cost, Key, Replacement, Restoration, Row, Shape, Stamp
from emberd.migrate.sqlite import quoted

STAMPS = "emberd_spaces"
REHEARSED_ROWS = 3000
HOW = "Say where the texts are: `--option text=TABLE.COLUMN`, or `--option query=SELECT ...`."


@dataclass(frozen=True, slots=True)
class Layout:
    """A vec0 table as its DDL describes it. `others` are the columns beside key and vector."""

    table: str
    ddl: str
    key: str
    column: str
    dimensions: int
    others: tuple[str, ...]
    texts: tuple[str, ...]  # its own text columns
    size_at: tuple[int, int]  # where in the DDL the dimension stands

    @property
    def text_column(self) -> str | None:
        """Its own text column, when it has exactly one."""
        return self.texts[0] if len(self.texts) == 1 else None

    def ddl_with(self, dimensions: int) -> str:
        """Return the DDL with another dimension and nothing else changed."""
        start, end = self.size_at
        return f"{self.ddl[:start]}{dimensions}{self.ddl[end:]}"


class SqliteVecStore:
    """Any vec0 table.

    Args:
        path: the database.
        table: the vec0 table; needed when there are several.
        text: `TABLE.COLUMN` of the texts; without it the vec0 table's own text column.
        id: the column of that TABLE that holds the vec0 table's key; its rowid without it.
        query: instead of `text`: a SELECT of two columns, key and text.
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
    ) -> None:
        self.path = path
        self._table = table
        self._text = text
        self._id = id
        self._query = query

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
            t, v = self._texts(layout), f"{quoted(layout.table)} AS v"
            same = f"v.{quoted(layout.key)} = t.key"

            def count(sql: str) -> int:
                return int(connection.execute(f"WITH t(key, text) AS ({t}) {sql}").get)

            rows = count(f"SELECT count(*) FROM t CROSS JOIN {v} ON {same}")
            all_vectors = count(f"SELECT count(*) FROM {v}")
            shape = Shape(
                rows=rows,
                dimensions=layout.dimensions,
                without_vector=count("SELECT count(*) FROM t") - rows,
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

    def halved(self, backup: Path) -> Iterator[Row]:
        """Look for the keys of the backup's vectors without a text; see `Store`."""
        with sqlite.opened_backup(backup) as connection:
            layout = self._layout(connection)
            alone = connection.execute(
                f"SELECT {quoted(layout.key)} FROM {quoted(layout.table)}"
                f" EXCEPT SELECT key FROM (WITH t(key, text) AS ({self._texts(layout)})"
                " SELECT key FROM t)"
            )
            keys = json.dumps([key for (key,) in alone])
        with self._reading() as (connection, layout):
            found = connection.execute(
                f"WITH t(key, text) AS ({self._texts(layout)}) SELECT t.key, t.text FROM t"
                " WHERE t.key IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1"
                f" FROM {quoted(layout.table)} AS v WHERE v.{quoted(layout.key)} = t.key)",
                (keys,),
            )
            for key, text in found:
                if isinstance(text, str) and self.clean(text):
                    yield Row(key, self.clean(text))

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
            swap_bytes=log_bytes * rows // sample + 4 * wider * rows,
            locked_s=fill_s * rows / sample + copy_s * here + 3 * scan_s,
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
            connection.execute("BEGIN IMMEDIATE")
            yield _Replacing(self, connection, self._layout(connection))

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Nothing: this kind has no settings."""
        del model, dimensions
        return text

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
            f"WITH t(key, text) AS ({self._texts(layout)}) SELECT t.key, t.text, {vector}"
            f" FROM t CROSS JOIN {quoted(layout.table)} AS v ON v.{quoted(layout.key)} = t.key"
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
            f"WITH t(key, text) AS ({self._texts(layout)}) SELECT t.key, CAST(t.text AS BLOB)"
            f" FROM t CROSS JOIN {quoted(layout.table)} AS v ON v.{quoted(layout.key)} = t.key"
            " WHERE typeof(t.text) = 'text' ORDER BY t.key"
        )
        keys = [key for key, raw in found if not _is_text(raw, coding)]
        own = f"{layout.table}.{layout.text_column}"
        where = "the query" if self._query else self._text or own
        first = ", ".join(repr(key) for key in keys[:5]) + (", ..." if keys[5:] else "")
        return StoreRowsError(
            f"{self.path}: the text of {len(keys)} rows of {where} is not {coding} ({first}).",
            hint=f"Write those texts as {coding}, or delete those rows and their vectors.",
        )

    def _texts(self, layout: Layout) -> str:
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
        if layout.text_column:
            return (
                f"SELECT {quoted(layout.key)}, {quoted(layout.text_column)}"
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
        return _parse(self.path, table, found[table])


class _Replacing:
    """The open transaction. Virtual tables cannot be renamed: drop, create, fill."""

    def __init__(self, store: SqliteVecStore, connection: apsw.Connection, layout: Layout) -> None:
        self._store = store
        self._connection = connection
        self._layout = layout

    def rows(self) -> Iterator[Row]:
        return self._store._rows(self._connection, self._layout, after=None, vectors=False)  # noqa: SLF001

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        layout, execute = self._layout, self._connection.execute
        table, key = quoted(layout.table), quoted(layout.key)
        others = "".join(f", {quoted(name)}" for name in layout.others)
        if others:  # metadata, auxiliary columns and partition keys move along
            execute(f"CREATE TEMP TABLE kept AS SELECT {key} AS emberd_key{others} FROM {table}")
            execute("CREATE INDEX temp.kept_keys ON kept(emberd_key)")
        execute(f"DROP TABLE {table}")
        execute(layout.ddl_with(dimensions))
        insert = f"INSERT INTO {table}({key}, {quoted(layout.column)}{others})"
        if others:
            insert += f" SELECT ?1, ?2{others} FROM kept WHERE emberd_key = ?1"
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
        if others:
            execute("DROP TABLE temp.kept")
        execute(
            f"CREATE TABLE IF NOT EXISTS {STAMPS}(vectors TEXT PRIMARY KEY, stamp TEXT NOT NULL)"
        )
        execute(f"INSERT OR REPLACE INTO {STAMPS} VALUES (?, ?)", (layout.table, stamp.to_json()))

    def complete(self, vectors: Iterable[tuple[Key, bytes]], backup: Path) -> None:
        table, key = quoted(self._layout.table), quoted(self._layout.key)
        others = [quoted(name) for name in self._layout.others]
        columns = ", ".join([key, quoted(self._layout.column), *others])
        places = ", ".join("?" * (2 + len(others)))
        kept = f"SELECT {', '.join(others) or '1'} FROM {table} WHERE {key} = ?"
        with sqlite.opened_backup(backup) as connection:
            for each, vector in vectors:
                beside = connection.execute(kept, (each,)).fetchall()[0] if others else ()
                self._connection.execute(
                    f"INSERT INTO {table}({columns}) VALUES ({places})", (each, vector, *beside)
                )

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
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql LIKE '%using%vec0%'")
    return {
        name: sql
        for name, sql in found
        if re.match(r"create\s+virtual\s+table\b.*\busing\s+vec0\b", sql, re.I | re.S)
    }


def _parse(path: Path, table: str, ddl: str) -> Layout:
    """Read the columns of a vec0 table from its DDL."""
    opening = re.search(r"\busing\s+vec0\s*\(", ddl, re.I)
    start = opening.end() if opening else 0
    key, texts, vectors, others = "rowid", [], [], []
    for part in re.finditer(r"[^,]+", ddl[start : ddl.rindex(")")]):
        words = re.match(r"\s*\+?\s*(\w+)\s+([^=].*)", part[0], re.S)
        if not words:
            continue  # an option of the table, such as chunk_size=1024
        name, about = words[1], words[2]
        size = re.match(r"(\w+)\s*\[\s*(\d+)\s*\]", about)
        if size:
            at = start + part.start() + words.start(2)
            vectors.append((name, size[1].lower(), (at + size.start(2), at + size.end(2)), size[2]))
        elif re.search(r"\bprimary\s+key\b", about, re.I):
            key = name
        else:
            others.append(name)
            if re.match(r"text\b", about, re.I) and "partition" not in about.lower():
                texts.append(name)
    if len(vectors) != 1 or vectors[0][1] not in ("float", "f32"):
        kinds = ", ".join(f"{name} {kind}[{size}]" for name, kind, _, size in vectors) or "none"
        raise NotAStoreError(
            f"{path}: {table} has these vector columns: {kinds}; a store has one of float32.",
            hint="Quantized vectors and several of one row cannot be moved yet.",
        )
    name, _, size_at, size_text = vectors[0]
    return Layout(
        table=table,
        ddl=ddl,
        key=key,
        column=name,
        dimensions=int(size_text),
        others=tuple(others),
        texts=tuple(texts),
        size_at=size_at,
    )
