"""Store kind `sqlite-vec`: a vec0 table, and texts from a table's column or a query."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import apsw

from emberd.dtypes import Dtype
from emberd.errors import NotAStoreError, StoreError
from emberd.stores.base import Key
from emberd.stores.choice import chosen
from emberd.stores.sqlite import database
from emberd.stores.sqlite.database import quoted
from emberd.stores.sqlite.store import HOW, SqliteStore
from emberd.stores.sqlite.table import column_names
from emberd.stores.sqlite.vec0_layout import TYPES, Layout, layout_of, vec0_tables
from emberd.stores.sqlite.vec0_replace import Vec0Replacement

LANGCHAIN = {"text", "metadata", "text_embedding"}


class SqliteVecStore(SqliteStore[Layout]):
    """Any vec0 table.

    Args:
        path: the database.
        table: the vec0 table; required if there are several.
        text: `TABLE.COLUMN` of the texts; by default the vec0 table's own text column, or that of
            LangChain's SQLiteVec, whose copies of the vectors are then replaced too.
        id: the column of that TABLE that holds the vec0 table's key; by default its rowid.
        query: instead of `text`, a SELECT of two columns, key and text.
        also: `TABLE.COLUMN` with copies of the vectors, to be replaced too; commas between several.
    """

    kind: ClassVar[str] = "sqlite-vec"
    dtypes: ClassVar[Sequence[Dtype]] = tuple(TYPES)
    replacement = Vec0Replacement
    new_vectors = "CREATE VIRTUAL TABLE v USING vec0(e float[{dimensions}])"

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
        super().__init__(path, query=query, also=also)
        self._table = table
        self._text = text
        self._id = id

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a database with a vec0 table."""
        with suppress(NotAStoreError):
            return bool(tables(path))
        return False

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Ask the vec0 table itself."""
        with self._reading() as (connection, layout):
            found = connection.execute(
                f"SELECT {quoted(layout.key)} FROM {quoted(layout.table)}"
                f" WHERE {quoted(layout.column)} MATCH {layout.as_vector('?')}"
                " AND k = ? ORDER BY distance",
                (vector, count),
            )
            return [key for (key,) in found]

    def _require_vectors(self, connection: apsw.Connection, path: Path) -> None:
        if not vec0_tables(connection):
            raise StoreError(f"{path} has no vec0 table.")

    def _texts_in(self, layout: Layout) -> str:
        return self._text or super()._texts_in(layout)

    def _texts_query(self, layout: Layout) -> str:
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

    def layout(self, connection: apsw.Connection) -> Layout:
        """Find the vec0 table."""
        found = vec0_tables(connection)
        table = chosen(
            self._table, found, place=self.path, what="vec0 table", option="table",
            makes="A store is a database with a vec0 table, made by sqlite-vec.",
        )  # fmt: skip
        if not (self._text or self._query or self._also):
            self._as_langchain_has_it(connection, table)
        return layout_of(self.path, connection, table, found[table])

    def _as_langchain_has_it(self, connection: apsw.Connection, table: str) -> None:
        """Take text and copies from where `SQLiteVec` of langchain-community 0.4 has them."""
        name = table.removesuffix("_vec")
        if name != table and {*column_names(connection, name)} >= LANGCHAIN:
            self._text, self._also = f"{name}.text", [f"{name}.text_embedding"]


def tables(path: Path) -> set[str]:
    """Return the names of a database's tables if it has a vec0 table, otherwise none."""
    if not path.is_file():
        return set()
    with database.opened(path) as connection:
        if not vec0_tables(connection):
            return set()
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
