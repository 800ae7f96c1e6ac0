"""A table of Postgres with an HNSW index, used through psycopg."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows
from tests.migrate.postgres_server import PostgresServer, connect

PUT = """
INSERT INTO notes (id, body, embedding) VALUES (%s, %s, %s)
ON CONFLICT (id) DO UPDATE SET body = excluded.body, embedding = excluded.embedding"""
ROWS = "SELECT id, body, embedding FROM {schema}notes"
INDEX = "CREATE INDEX notes_near ON notes USING hnsw (embedding vector_cosine_ops)"
KEPT = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^emberd_(backup|undone)_' ORDER BY 1"


class Subject:
    """One database of a server of its own; `indexed`: with an HNSW index."""

    name: ClassVar[str] = "pgvector"
    indexed = True

    def __init__(self, folder: Path) -> None:
        del folder
        self._server = PostgresServer()
        self._rows: Sequence[tuple[Key, str, Matrix]] = ()

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.url = self._server.create("notes")
        self.entry: dict[str, Any] = {"kind": "pgvector", "path": self.url}
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def key(self, number: int) -> Key:
        """Return a bigint."""
        return number + 1

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the table."""
        self._rows = rows
        self.reset()

    def reset(self) -> None:
        """Drop all that is there, and make the table again."""
        with connect(self.url) as connection:
            drop_kept(connection)
            connection.execute("DROP TABLE IF EXISTS notes")
            size = len(self._rows[0][2])
            connection.execute(
                "CREATE TABLE notes (id bigserial PRIMARY KEY, embedding"
                f" vector({size}) NOT NULL, body text)".encode()
            )
            with connection.cursor().copy("COPY notes (id, body, embedding) FROM STDIN") as copy:
                for key, text, vector in self._rows:
                    copy.write_row((key, text, str(vector.tolist())))
            if self.indexed:
                connection.execute(INDEX)

    def session(self) -> "Session":
        """Open a connection."""
        return Session(self.url)

    def copied(self) -> Rows:
        """Read the tables that were there before an undo."""
        found: Rows = {}
        with connect(self.url) as connection:
            for (schema,) in connection.execute(KEPT).fetchall():
                if schema.startswith("emberd_undone_"):
                    found |= read(connection, ROWS.format(schema=f"{schema}."))
        return found

    def things(self) -> int:
        """Count tables."""
        return count_tables(self.url)


class Session:
    """A connection."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url)

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Insert it, or replace it."""
        self._connection.execute(PUT, (key, text, str(vector.tolist())))

    def delete(self, key: Key) -> None:
        """Delete it."""
        self._connection.execute("DELETE FROM notes WHERE id = %s", (key,))

    def rows(self) -> Rows:
        """Select all."""
        return read(self._connection, ROWS.format(schema=""))

    def is_migrated(self) -> bool:
        """Look for a stamp."""
        return is_stamped(self._connection)

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def read(connection: Any, sql: str) -> Rows:  # noqa: ANN401 - of psycopg
    """Return the rows of a query: key, text, vector."""
    return {
        key: (text, np.array(json.loads(vector), "<f4"))
        for key, text, vector in connection.execute(sql.encode())
    }


def is_stamped(connection: Any) -> bool:  # noqa: ANN401
    """Whether there is a stamp in the database."""
    there = connection.execute("SELECT to_regclass('emberd.spaces')").fetchone()[0]
    return bool(there and connection.execute("SELECT FROM emberd.spaces").rowcount)


def count_tables(url: str) -> int:
    """Count the tables that are not the server's, nor that of the stamps."""
    with connect(url) as connection:
        found = connection.execute(
            "SELECT FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'emberd')"
        )
        return int(found.rowcount)


def drop_kept(connection: Any) -> None:  # noqa: ANN401
    """Drop everything that emberd has made."""
    for (schema,) in connection.execute(KEPT).fetchall():
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    connection.execute("DROP SCHEMA IF EXISTS emberd CASCADE")
