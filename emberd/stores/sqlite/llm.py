"""Store kind `llm`: a collection in the `embeddings.db` of the command `llm`.

Its tables are those of `llm/embeddings_migrations.py` and its vectors those of `llm.encode` in llm
0.36: float32, little-endian. `collections.model` says which model llm asks, so it changes in the
same transaction.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import apsw

from emberd.errors import NotAStoreError
from emberd.stores.base import Key, Stamp
from emberd.stores.choice import chosen
from emberd.stores.sqlite import database
from emberd.stores.sqlite.blob import BlobStore
from emberd.stores.sqlite.blob_replace import BlobReplacement
from emberd.stores.sqlite.blob_table import BlobTable, described
from emberd.stores.sqlite.replace import SqliteReplacement
from emberd.stores.sqlite.table import column_names, stamp_in

COLUMNS = {
    "collections": {"id", "name", "model"},
    "embeddings": {"collection_id", "id", "embedding", "content", "content_hash"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection(BlobTable):
    """The rows of a collection; llm calls emberd's models by their names after `prefix`."""

    number: int
    collection: str
    model: str
    prefix: str

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.collection


class LlmReplacement(BlobReplacement[Collection]):
    """The open transaction."""

    def _replace(self, vectors: Iterable[tuple[Key, bytes]], dimensions: int, stamp: Stamp) -> None:
        super()._replace(vectors, dimensions, stamp)
        self._connection.execute(
            "UPDATE collections SET model = ? WHERE id = ?",
            (self._layout.prefix + stamp.model, self._layout.number),
        )

    def _kept(self, table: str, column: str) -> str:
        kept = super()._kept(table, column)
        if (table, column) != ("collections", "model"):
            return kept
        return f"iif(id = {self._layout.number}, NULL, {kept})"


class LlmStore(BlobStore):
    """A collection.

    Args:
        path: the database, or the folder that it is in.
        collection: its name; required if there are several.
        prefix: what llm's plugin puts before the names of emberd's models.
    """

    kind: ClassVar[str] = "llm"
    part_option: ClassVar[str] = "collection"
    replacement: ClassVar[type[SqliteReplacement[Any]]] = LlmReplacement

    def __init__(
        self, path: Path, *, collection: str | None = None, prefix: str = "emberd/"
    ) -> None:
        super().__init__(_file(path), text="content")
        self._collection = collection
        self._prefix = prefix

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether llm's tables are there."""
        with suppress(NotAStoreError):
            if _file(path).is_file():
                with database.opened(_file(path)) as connection:
                    return _is_llm(connection)
        return False

    def stamp(self) -> Stamp | None:
        """Read it, unless llm has made the collection anew since, for another model."""
        with database.opened(self.path) as connection:
            layout = self.layout(connection)
            stamp = stamp_in(connection, layout.name)
            return stamp if stamp and layout.prefix + stamp.model == layout.model else None

    def layout(self, connection: apsw.Connection) -> Collection:
        """Find the collection."""
        if not _is_llm(connection):
            raise NotAStoreError(
                f"{self.path} does not have the tables of llm.",
                hint="It is the file that `llm collections path` names.",
            )
        found = {
            str(name): (int(number), str(model))
            for number, name, model in connection.execute("SELECT id, name, model FROM collections")
        }
        collection = chosen(
            self._collection, found, place=self.path, what="collection", option="collection",
            makes="`llm embed-multi` makes one.",
        )  # fmt: skip
        number, model = found[collection]
        table = Collection(
            table="embeddings",
            column="embedding",
            key="id",
            format="f32",
            scope=f"collection_id = {number}",
            number=number,
            collection=collection,
            model=model,
            prefix=self._prefix,
        )
        return described(self.path, connection, table)


def _file(path: Path) -> Path:
    return path / "embeddings.db" if path.is_dir() else path


def _is_llm(connection: apsw.Connection) -> bool:
    return all(columns <= {*column_names(connection, table)} for table, columns in COLUMNS.items())
