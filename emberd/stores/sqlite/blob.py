"""Store kind `blob`: a column of vectors in any table of an SQLite database."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import apsw
import numpy as np

from emberd.dtypes import NUMPY, Dtype
from emberd.errors import NotAStoreError, StoreError, StoreKindError
from emberd.stores.base import Key, Shape
from emberd.stores.sqlite import database
from emberd.stores.sqlite.blob_replace import BlobReplacement
from emberd.stores.sqlite.blob_table import (
    DTYPES,
    BlobColumn,
    BlobTable,
    column_of,
    described,
    key_of,
    ordinary_tables,
    vector_columns,
)
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.replace import SqliteReplacement
from emberd.stores.sqlite.store import SqliteStore
from emberd.stores.sqlite.table import column_names

SEARCHED = 256  # vectors in memory at once
WHICH = "Name it with `--option vector=TABLE.COLUMN`."


class BlobStore(SqliteStore[BlobTable]):
    """A column of vectors.

    Args:
        path: the database.
        table: the table; required if several have vectors.
        vector: its column of vectors, also as `TABLE.COLUMN`; required if there are several.
        text: its column of texts, or `TABLE.COLUMN` of another table whose primary key (or rowid)
            is the key of the vectors; required unless there is one column of texts.
        id: the column that is the key; by default the primary key if that is one column, otherwise
            the rowid.
        format: `f32` or `f16`, little-endian, or `json`, an array of numbers.
        query: instead of `text`, a SELECT of two columns, key and text.
        also: `TABLE.COLUMN` with copies of the vectors, to be replaced too; commas between several.
    """

    kind: ClassVar[str] = "blob"
    part_option: ClassVar[str] = "vector"
    replacement: ClassVar[type[SqliteReplacement[Any]]] = BlobReplacement
    new_vectors = "CREATE TABLE v(e BLOB)"

    def __init__(  # noqa: PLR0913 - the options of the kind
        self,
        path: Path,
        *,
        table: str | None = None,
        vector: str | None = None,
        text: str | None = None,
        id: str | None = None,
        format: str | None = None,
        query: str | None = None,
        also: str | None = None,
    ) -> None:
        super().__init__(path, query=query, also=also)
        self._table = table
        self._vector = vector
        self._text = text
        self._id = id
        if format not in (None, *DTYPES):
            raise StoreKindError(
                f"A store of kind {self.kind} has no format {format!r}.",
                hint=f"The formats are {', '.join(DTYPES)}.",
            )
        self._format = format

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether one column of its tables holds float32 vectors, and the table one of texts."""
        if not path.is_file():
            return False
        with suppress(NotAStoreError), database.opened(path) as connection:
            connection.execute("BEGIN")
            layout = cls(path).layout(connection)
            return len(layout.texts) == 1 and len(ordinary_tables(connection)) == 1
        return False

    @property
    def dtypes(self) -> Sequence[Dtype]:
        """What the numbers are: a format that programs read does not change."""
        with self._reading() as (_, layout):
            return (layout.dtype,)

    def inspect(self) -> Shape:
        """Count rows; see `Store`. Raises also if a key is neither a number nor a text."""
        with self._reading() as (connection, layout):
            strange = connection.execute(
                f"SELECT count(*) FROM ({layout.query})"
                " WHERE typeof(key) NOT IN ('integer', 'text')"
            ).get
            if strange:
                raise NotAStoreError(
                    f"{self.path}: {strange} vectors of {layout.table} have a {layout.key} that is"
                    " neither an integer nor a text.",
                    hint="Name another key with `--option id=COLUMN`, or `--option id=rowid`.",
                )
        return super().inspect()

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Compare with every vector, by cosine, as no index is there to ask."""
        return self.search_all([vector], count)[0]

    def search_all(self, vectors: Sequence[bytes], count: int) -> Sequence[Sequence[Key]]:
        """Do what `search` does for each of these, of one size, and read all rows once."""
        best: list[list[tuple[float, Key]]] = [[] for _ in vectors]
        with self._reading() as (connection, layout):
            read, numbers, size = layout.read, NUMPY[layout.dtype], len(vectors[0])
            wanted = np.stack([np.frombuffer(each, numbers) for each in vectors]).astype(np.float32)
            stored = connection.execute(layout.query)
            while some := list(islice(stored, SEARCHED)):
                found = [(key, raw) for key, each in some if len(raw := read(each)) == size]
                joined = b"".join([raw for _, raw in found])
                rows = np.frombuffer(joined, numbers).astype(np.float32, copy=False)
                rows = rows.reshape(len(found), wanted.shape[1])
                lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
                # not `@`, whose threads wait for each other for longer than so few rows take
                alike = np.einsum("qd,rd->qr", wanted, rows)
                alike /= np.where(lengths > 0, lengths, np.inf)
                nearest = np.argsort(-alike, axis=1, kind="stable")[:, :count]
                for among, cosines, places in zip(best, alike, nearest, strict=True):
                    among += [(float(cosines[at]), found[at][0]) for at in places]
                    among.sort(key=lambda each: -each[0])
                    del among[count:]
        return [[key for _, key in among] for among in best]

    def check_backup(self, backup: Path) -> None:
        """Have SQLite check all of it; the vectors must be there."""
        try:
            super().check_backup(backup)
        except NotAStoreError as error:
            raise StoreError(f"{backup} has no such vectors: {error.message}") from None

    # -- where things are ---------------------------------------------------------------------

    def layout(self, connection: apsw.Connection) -> BlobTable:
        """Find the column of vectors, its format and its key."""
        found = self._column(connection)
        format = self._format or found.format
        if format is None and found.stored:
            raise NotAStoreError(
                f"{self.path}: what {found.name} holds does not look like vectors of float32.",
                hint="Say what it is: `--option format=f32`, `f16` or `json`.",
            )
        if found.stored:
            self._format = format  # whatever is written meanwhile
        key = self._id or key_of(connection, found.table)
        table = BlobTable(table=found.table, column=found.column, key=key, format=format or "f32")
        return described(self.path, connection, table)

    def _column(self, connection: apsw.Connection) -> BlobColumn:
        """Return the column of vectors that the options name, or the only one."""
        tables = ordinary_tables(connection)
        table, column = self._table, self._vector
        if column and not table and "." in column:
            table, _, column = column.partition(".")
        if table and table not in tables:
            raise NotAStoreError(
                f"{self.path} has no table {table}, only: {', '.join(tables) or 'none'}.",
                hint=f"Name one of those. {WHICH}",
            )
        if column:
            return self._named(connection, [table] if table else tables, column)
        found = vector_columns(connection, [table] if table else tables)
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise NotAStoreError(
                f"{self.path}: {len(found)} columns are certainly vectors of float32 ({names}), not"
                " one.",
                hint=WHICH
                if found
                else f"{WHICH} For vectors in another form, add `--option format=f16` or `json`.",
            )
        self._table, self._vector = found[0].table, found[0].column  # not looked for again
        return found[0]

    def _named(self, connection: apsw.Connection, tables: Sequence[str], column: str) -> BlobColumn:
        having = [table for table in tables if column in column_names(connection, table)]
        if len(having) != 1:
            names = ", ".join(having) or "none"
            raise NotAStoreError(
                f"{self.path}: {len(having)} tables have a column {column} ({names}), not one.",
                hint=WHICH,
            )
        return column_of(connection, having[0], column)

    def _texts_query(self, layout: BlobTable) -> str:
        """Return the SELECT of keys and texts, from the table itself or another one."""
        table, column = layout.table, self._text
        own = (*layout.beside, layout.key)
        if column and column not in own:
            table, dot, column = column.rpartition(".")
            if not dot:
                raise NotAStoreError(
                    f"{self.path}: {layout.table} has no column {self._text} besides its vectors.",
                    hint=f"Its columns: {', '.join(own)}. For another table, write TABLE.COLUMN.",
                )
        if table != layout.table:
            return self._texts_elsewhere(table, column or "")
        if column is None:
            if len(layout.texts) != 1:
                names = ", ".join(layout.texts) or "none"
                raise NotAStoreError(
                    f"{self.path}: {len(layout.texts)} columns of {layout.table} may have the texts"
                    f" ({names}), not one.",
                    hint="Say which was embedded: `--option text=COLUMN`, `text=TABLE.COLUMN` of"
                    " another table, or `query=SELECT ...` of keys and texts.",
                )
            column = layout.texts[0]
        return (
            f"SELECT {quoted(layout.key)}, {quoted(column)} FROM {quoted(table)}"
            f" WHERE {layout.scope}"
        )

    def _texts_elsewhere(self, table: str, column: str) -> str:
        with database.opened(self.path) as connection:
            if table not in ordinary_tables(connection) or column not in column_names(
                connection, table
            ):
                raise NotAStoreError(
                    f"{self.path} has no column {table}.{column}.",
                    hint="Write it as TABLE.COLUMN, spelled as in the definition of the table.",
                )
            key = key_of(connection, table)
        return f"SELECT {quoted(key)}, {quoted(column)} FROM {quoted(table)}"

    def _texts_in(self, layout: BlobTable) -> str:
        return self._text or super()._texts_in(layout)
