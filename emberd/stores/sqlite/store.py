"""Stores in an SQLite database: vectors in one table, their texts in a column or from a query.

What is locked, backed up and restored is the whole database. A kind says where its vectors are
(`VectorTable`), how they are replaced (`SqliteReplacement`) and searched.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import apsw

from emberd.dtypes import row_bytes
from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.stores.base import (
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
from emberd.stores.in_order import order_of
from emberd.stores.sqlite import database
from emberd.stores.sqlite.copies import Place, copies_in, places
from emberd.stores.sqlite.rehearsal import rehearse
from emberd.stores.sqlite.replace import SqliteReplacement
from emberd.stores.sqlite.table import SET_ASIDE, VectorTable, stamp_in

T = TypeVar("T", bound=VectorTable)

TEXTS = "emberd_texts"  # not names that users choose: a WITH hides a table of the same name
VECTORS = "emberd_vectors"
REHEARSED_ROWS = 3000
HOW = "Say where the texts are: `--option text=TABLE.COLUMN`, or `--option query=SELECT ...`."


class SqliteStore(ABC, Generic[T]):
    """A store in a database.

    Args:
        path: the database.
        query: a SELECT of two columns, key and text; None: the kind knows where the texts are.
        also: `TABLE.COLUMN` with copies of the vectors, to be replaced too; commas between several.
    """

    settings: Path | None = None
    replacement: ClassVar[type[SqliteReplacement[Any]]]
    """What replaces the vectors."""
    new_vectors: ClassVar[str]
    """The DDL of a table such as the kind's, named v, with the columns rowid and e; `{dimensions}`
    stands for the size of a vector."""

    def __init__(self, path: Path, *, query: str | None = None, also: str | None = None) -> None:
        self.path = path
        self._query = query
        self._also = [each.strip() for each in also.split(",")] if also else []

    # -- what a kind has of its own -----------------------------------------------------------

    @abstractmethod
    def layout(self, connection: apsw.Connection) -> T:
        """Find the vectors. Raises NotAStoreError."""

    @abstractmethod
    def _texts_query(self, layout: T) -> str:
        """Return a SELECT of keys and texts, if there is no `query`. Raises NotAStoreError."""

    def clean(self, text: str) -> str:
        """Return the part of a stored text that was embedded: all of it."""
        return text

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: unless a kind says otherwise, it has no settings."""
        del model, dimensions
        return text

    # -- reading ------------------------------------------------------------------------------

    @property
    def part(self) -> str:
        """Its vectors' name: a database may have several, and a backup covers all of them."""
        with self._reading() as (_, layout):
            return layout.name

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        with self._reading() as (connection, layout):

            def count(sql: str) -> int:
                return int(
                    connection.execute(f"{self._with(layout)} SELECT count(*) FROM {sql}").get
                )

            rows = count(f"{TEXTS} AS t CROSS JOIN {VECTORS} AS v ON v.key = t.key")
            all_vectors = count(VECTORS)
            shape = Shape(
                rows=rows,
                dimensions=layout.dimensions,
                without_vector=count(TEXTS) - rows,
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

    @contextmanager
    def watching(self) -> Iterator[Callable[[], bool]]:
        """Ask SQLite whether anybody has committed since; see `passes.watched`."""
        with database.opened(self.path) as connection:
            before = connection.pragma("data_version")
            yield lambda: bool(connection.pragma("data_version") != before)

    def halved(self) -> Iterator[Row]:
        """Find vectors that were set aside and have a text now; see `Store`."""
        with self._reading() as (connection, layout):
            if not connection.table_exists("main", SET_ASIDE):
                return
            found = connection.execute(
                f"{self._with(layout)} SELECT t.key, t.text FROM {TEXTS} AS t"
                f" WHERE t.key IN (SELECT key FROM {SET_ASIDE} WHERE vectors = ?)"
                f" AND NOT EXISTS (SELECT 1 FROM {VECTORS} AS v WHERE v.key = t.key)",
                (layout.name,),
            )
            for key, text in found:
                if isinstance(text, str) and self.clean(text):
                    yield Row(key, self.clean(text))

    def lacking(self) -> Lacking:
        """Compare the keys of texts and vectors; see `Store`."""
        with self._reading() as (connection, layout):
            rows = self._rows(connection, layout, after=None, vectors=False)
            empty = [row.key for row in rows if not row.text]
            alone = self._textless(connection, layout)
            vectorless = connection.execute(
                f"{self._with(layout)} SELECT key FROM {TEXTS} WHERE key NOT IN"
                f" (SELECT key FROM {VECTORS})"
            )
            lacking = sorted([*empty, *alone], key=order_of)
            return Lacking(text=lacking, vector=[key for (key,) in vectorless])

    def copies(self) -> list[Copy]:
        """Look at every column of every table; see `Store`."""
        with self._reading() as (connection, layout):
            self._also_places(connection, layout)
            return copies_in(
                connection, layout.vectors, self._places(connection, layout), self._also
            )

    def stamp(self) -> Stamp | None:
        """Read it from the table `emberd_spaces`."""
        with self._reading() as (connection, layout):
            return stamp_in(connection, layout.name)

    def cost(self, dimensions: int) -> Cost:
        """Fill a table of this size elsewhere, and scale up what that took."""
        began_s = time.perf_counter()
        rows = sum(1 for _ in self.rows(vectors=False))
        scan_s = time.perf_counter() - began_s
        rehearsal = rehearse(max(1, min(rows, REHEARSED_ROWS)), dimensions, self.new_vectors)
        with self._reading() as (_, layout):
            now_bytes = row_bytes(layout.dimensions, layout.dtype)
        here, wider = database.size(self.path), max(0, row_bytes(dimensions, "float") - now_bytes)
        log_bytes = rehearsal.log_bytes * rows // rehearsal.rows
        return Cost(
            backup_bytes=here,
            swap_bytes=log_bytes * (1 + len(self._also)) + wider * rows,
            # What does not change is read before and after, and everything once at the end.
            locked_s=rehearsal.fill_s * rows / rehearsal.rows
            + (rehearsal.copy_s_per_byte + 2 * rehearsal.digest_s_per_byte) * here
            + 3 * scan_s,
        )

    def digest(self) -> str:
        """Read the whole database, because a backup covers all of it too."""
        with self._reading() as (connection, _):
            return database.digest(connection)

    # -- replacing ----------------------------------------------------------------------------

    def backup(self, target: Path) -> None:
        """Use SQLite's own backup, in one step."""
        database.copy(self.path, target)

    def check_backup(self, backup: Path) -> None:
        """Have SQLite check all of it; the vectors must be there."""
        with database.opened_backup(backup) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                raise StoreError(f"{backup} is damaged: {found}.")
            self._require_vectors(connection, backup)

    def _require_vectors(self, connection: apsw.Connection, path: Path) -> None:
        """Raise StoreError if an undamaged database is none of this kind."""
        del path
        self.layout(connection)

    def restoring(self, backup: Path) -> AbstractContextManager[Restoration]:
        """Use SQLite's own backup in the other direction."""
        return database.restoring(self.path, backup)

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        """Hold the write lock of the database; readers see it unchanged."""
        with database.opened(self.path, write=True) as connection:
            if connection.readonly("main"):  # BEGIN IMMEDIATE would not fail
                raise apsw.ReadOnlyError
            # Only vectors change, so no trigger of the user may take that for an edit.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            connection.execute("BEGIN IMMEDIATE")
            layout = self.layout(connection)
            yield self.replacement(
                connection,
                layout,
                path=self.path,
                rows=lambda: self._rows(connection, layout, after=None, vectors=False),
                textless=lambda: self._textless(connection, layout),
                also=self._also_places(connection, layout),
            )

    def _places(self, connection: apsw.Connection, layout: T) -> list[Place]:
        """Return the columns that may hold copies of the vectors."""
        own = (layout.table, layout.column)
        return [
            place for place in places(connection, layout.ours) if (place.table, place.column) != own
        ]

    def _also_places(self, connection: apsw.Connection, layout: T) -> list[Place]:
        """Return the columns that the option `also` names.

        Raises:
            NotAStoreError: there is no such column.
        """
        there = {each.name: each for each in self._places(connection, layout) if each.has_rowids}
        unknown = [name for name in self._also if name not in there]
        if unknown:
            raise NotAStoreError(
                f"also={unknown[0]} is not a column of a table with rowids in {self.path}.",
                hint="Write it as TABLE.COLUMN, spelled as in the definition of the table.",
            )
        return [there[name] for name in self._also]

    # -- internal -----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[tuple[apsw.Connection, T]]:
        with database.opened(self.path) as connection:
            connection.execute("BEGIN")
            yield connection, self.layout(connection)

    def _with(self, layout: T) -> str:
        """Return the WITH clause that makes tables of keys and texts, and of keys and vectors."""
        texts = self._query.strip().rstrip(";") if self._query else self._texts_query(layout)
        return f"WITH {TEXTS}(key, text) AS ({texts}), {VECTORS}(key, vector) AS ({layout.query})"

    def _rows(
        self, connection: apsw.Connection, layout: T, *, after: Key | None, vectors: bool
    ) -> Iterator[Row]:
        # CROSS JOIN reads texts in the order of their keys, and looks up the vector of each. The
        # other way round, SQLite would sort everything first.
        found = connection.execute(
            f"{self._with(layout)} SELECT t.key, t.text, {'v.vector' if vectors else 'NULL'}"
            f" FROM {TEXTS} AS t CROSS JOIN {VECTORS} AS v ON v.key = t.key"
            f" {'' if after is None else 'WHERE t.key > ?'} ORDER BY t.key",
            () if after is None else (after,),
        )
        try:
            for key, text, stored in found:
                yield Row(
                    key, self.clean(text) if isinstance(text, str) else None, layout.read(stored)
                )
        except UnicodeDecodeError:
            raise self._not_text(connection, layout) from None

    def _textless(self, connection: apsw.Connection, layout: T) -> Iterator[Key]:
        """Yield the keys of vectors to which no text belongs, not even an empty one."""
        found = connection.execute(
            f"{self._with(layout)} SELECT key FROM {VECTORS}"
            f" WHERE key NOT IN (SELECT key FROM {TEXTS} WHERE key IS NOT NULL)"
        )
        return (key for (key,) in found)

    def _not_text(self, connection: apsw.Connection, layout: T) -> StoreRowsError:
        """Return the error that names the rows whose texts cannot be decoded."""
        coding = connection.pragma("encoding")
        found = connection.execute(
            f"{self._with(layout)} SELECT t.key, CAST(t.text AS BLOB)"
            f" FROM {TEXTS} AS t CROSS JOIN {VECTORS} AS v ON v.key = t.key"
            " WHERE typeof(t.text) = 'text' ORDER BY t.key"
        )
        keys = [key for key, raw in found if not _is_text(raw, coding)]
        where = "the query" if self._query else self._texts_in(layout)
        first = ", ".join(repr(key) for key in keys[:5]) + (", ..." if keys[5:] else "")
        return StoreRowsError(
            f"{self.path}: the text of {len(keys)} rows of {where} is not {coding} ({first}).",
            hint=f"Rewrite those texts in {coding}, or delete the rows and their vectors.",
        )

    def _texts_in(self, layout: T) -> str:
        """Return where the texts are, for a message."""
        return f"{layout.table}.{layout.texts[0]}" if layout.texts else layout.table


def _is_text(raw: bytes, coding: str) -> bool:
    try:
        raw.decode(coding)
    except UnicodeDecodeError:
        return False
    return True
