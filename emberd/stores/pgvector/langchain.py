"""Store kind `langchain-pgvector`: a collection of LangChain's class `PGVector`.

All its collections are in one table, whose column `embedding` has the type `vector`, of any size
unless `embedding_length` was given. Each collection is a store of its own here. Source:
langchain_postgres/vectorstores.py of langchain-postgres 0.0.19.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from emberd.errors import NotAStoreError
from emberd.stores.choice import chosen
from emberd.stores.pgvector.layout import Layout, Wanted
from emberd.stores.pgvector.postgres import every, one, quoted, run
from emberd.stores.pgvector.store import PgvectorStore

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

TABLE, COLLECTIONS = "langchain_pg_embedding", "langchain_pg_collection"


class LangchainPgvectorStore(PgvectorStore):
    """A collection.

    Args:
        url: the database, as LangChain takes it, too: postgresql+psycopg://user@host:port/database.
        collection: the collection's name; required if there are several.
        schema: the schema of LangChain's tables; by default the one in the search path.
    """

    kind: ClassVar[str] = "langchain-pgvector"

    def __init__(
        self, url: str, *, collection: str | None = None, schema: str | None = None
    ) -> None:
        super().__init__(url)
        self._collection = collection
        self._name = ""
        self._tables = f"{schema}." if schema else ""
        self.wanted = Wanted(
            table=f"{self._tables}{TABLE}", vector="embedding", text="document", id=None,
            condition=self._condition,
        )  # fmt: skip

    @classmethod
    def recognises(cls, place: str) -> bool:
        """Return false: it has to be named, as its table is one of the kind `pgvector`, too."""
        del place
        return False

    def _condition(self, connection: "Connection[Any]") -> str:
        schema = quoted(self._tables[:-1]) + "." if self._tables else ""
        table = f"{schema}{quoted(COLLECTIONS)}"
        if one(connection, "SELECT to_regclass(%s)", table) is None:
            raise NotAStoreError(
                f"{self.address} has no table {self._tables}{COLLECTIONS}.",
                hint="Name the schema of LangChain's tables with `--option schema=NAME`; for a"
                " table of `PGVectorStore` use the kind pgvector.",
            )
        found = {name: key for key, name in every(connection, f"SELECT uuid, name FROM {table}")}
        self._name = chosen(
            self._collection, found, place=self.address, what="collection", option="collection"
        )
        return f"(t.collection_id IS NOT DISTINCT FROM '{found[self._name]}')"

    def _part_of(self, layout: Layout) -> str:
        return f"{layout.schema}.{layout.table}.{self._name}"

    def _before_search(self, connection: "Connection[Any]") -> None:
        """Have every row compared: an index of all collections may find only others' rows."""
        run(connection, "SET LOCAL enable_indexscan = off")
