"""A collection of LangChain's PGVector, used through LangChain, beside another collection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows
from tests.migrate.kinds.pgvector import KEPT, count_tables, drop_kept, is_stamped, read
from tests.migrate.postgres_server import PostgresServer, connect

TABLES = ("langchain_pg_embedding", "langchain_pg_collection")
ROWS = """
SELECT e.id, e.document, e.embedding FROM {schema}langchain_pg_embedding e
JOIN langchain_pg_collection c ON c.uuid = e.collection_id WHERE c.name = '{name}'"""
OTHERS = [("other-1", "one"), ("other-2", "two")]


class Given(Embeddings):
    """What LangChain wants; nobody asks it, as the vectors are given."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Refuse."""
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        """Refuse."""
        raise NotImplementedError


def collection(url: str, name: str) -> PGVector:
    """Open a collection as a program does; it is made if there is none."""
    return PGVector(
        embeddings=Given(), collection_name=name, use_jsonb=True,
        connection=url.replace("postgresql:", "postgresql+psycopg:"),
    )  # fmt: skip


class Subject:
    """A collection in a database of its own server."""

    name: ClassVar[str] = "langchain-pgvector"

    def __init__(self, folder: Path) -> None:
        del folder
        self._server = PostgresServer()
        self._rows: Sequence[tuple[Key, str, Matrix]] = ()

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.url = self._server.create("langchain")
        path = self.url.replace("postgresql:", "postgresql+psycopg:")
        self.entry: dict[str, Any] = {
            "kind": "langchain-pgvector", "path": path, "options": {"collection": "notes"},
        }  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def key(self, number: int) -> Key:
        """Return an id as LangChain keeps it, a text."""
        return f"n{number}"

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the collections."""
        self._rows = rows
        self.reset()

    def reset(self) -> None:
        """Drop all that is there, and make the collections again; the other one is of 2 numbers."""
        with connect(self.url) as connection:
            drop_kept(connection)
            for table in TABLES:
                connection.execute(f"DROP TABLE IF EXISTS {table}".encode())
        other = Session(self.url, "other")
        for key, text in OTHERS:
            other.put(key, text, np.ones(2, np.float32))
        other.close()
        session = self.session()
        session.put_all(self._rows)
        session.close()

    def session(self) -> "Session":
        """Open the collection."""
        return Session(self.url, "notes")

    def copied(self) -> Rows:
        """Read the tables that were there before an undo."""
        found: Rows = {}
        with connect(self.url) as connection:
            for (schema,) in connection.execute(KEPT).fetchall():
                if schema.startswith("emberd_undone_"):
                    found |= read(connection, ROWS.format(schema=f"{schema}.", name="notes"))
        return found

    def things(self) -> int:
        """Count tables."""
        return count_tables(self.url)


class Session:
    """LangChain's object, and a connection for what it has no call for."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._store = collection(url, name)
        self._connection = connect(url)

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Add it under its id, which replaces one that is there."""
        self.put_all([(key, text, vector)])

    def put_all(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Add many."""
        keys, texts, vectors = zip(*rows, strict=True)
        self._store.add_embeddings(
            list(texts), [vector.tolist() for vector in vectors],
            metadatas=[{"of": self._name}] * len(rows), ids=list(keys),
        )  # fmt: skip

    def delete(self, key: Key) -> None:
        """Delete it."""
        self._store.delete([str(key)])

    def rows(self) -> Rows:
        """Select the collection's."""
        return read(self._connection, ROWS.format(schema="", name=self._name))

    def is_migrated(self) -> bool:
        """Look for a stamp."""
        return is_stamped(self._connection)

    def close(self) -> None:
        """Close both."""
        self._connection.close()
        assert self._store._engine
        self._store._engine.dispose()
