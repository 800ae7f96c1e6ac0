"""What a migration keeps in Postgres: the old table, under a name in a token, and the stamp."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from emberd.errors import BackupError
from emberd.stores.files import replace_text
from emberd.stores.pgvector.layout import Layout
from emberd.stores.pgvector.lock import exchange, schema_named
from emberd.stores.pgvector.postgres import explained, one, quoted, run
from emberd.stores.pgvector.rows import digest_with_definition

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

STAMPS = "emberd.spaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is in a backup's file: where the old table is, and what the stamp was.

    `schema` and `name` are the table, `of` the store's part, `digest` of what it then held.
    """

    kind: str
    schema: str
    table: str
    of: str
    digest: str
    stamp: str | None

    def write(self, path: Path) -> None:
        """Write it in one step. Raises `StoreError`."""
        replace_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it. Raises `BackupError`."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            raise BackupError(f"{path} is not the note of a table that was kept.") from None

    @property
    def name(self) -> str:
        """The table, quoted for SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"


def put_stamp(connection: "Connection[Any]", part: str, stamp: str | None) -> None:
    """Write or delete the stamp of a store."""
    if one(connection, f"SELECT to_regclass('{STAMPS}')") is None:
        run(connection, "CREATE SCHEMA IF NOT EXISTS emberd")
        run(connection, f"CREATE TABLE {STAMPS} (store text PRIMARY KEY, stamp text NOT NULL)")
        # Whoever reads vectors may know whose they are.
        run(connection, "GRANT USAGE ON SCHEMA emberd TO PUBLIC")
        run(connection, f"GRANT SELECT ON {STAMPS} TO PUBLIC")
    if stamp is None:
        run(connection, f"DELETE FROM {STAMPS} WHERE store = %s", part)
    else:
        run(
            connection,
            f"INSERT INTO {STAMPS} VALUES (%s, %s) ON CONFLICT (store) DO UPDATE"
            " SET stamp = excluded.stamp",
            part,
            stamp,
        )


def stamp_of(connection: "Connection[Any]", part: str) -> str | None:
    """Read the stamp of a store."""
    if one(connection, f"SELECT to_regclass('{STAMPS}')") is None:
        return None
    found: str | None = one(connection, f"SELECT stamp FROM {STAMPS} WHERE store = %s", part)
    return found


class PgvectorRestoration:
    """The open transaction; see `emberd.stores.base.Restoration`.

    Args:
        connection: holds the lock.
        layout: the table as it is.
        token: where the table is that takes its place.
        part: the store's.
        shown: the database, for messages.
    """

    def __init__(
        self, connection: "Connection[Any]", layout: Layout, token: Token, *, part: str, shown: str
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._token = token
        self._part = part
        self._shown = shown
        self._copy: str | None = None

    def copy(self, target: Path) -> None:
        """Note where the table will be kept that is there now; it is moved by `commit`."""
        with explained(self._shown):
            self._copy = schema_named("undone")
            stamp = stamp_of(self._connection, self._part)
        Token(
            kind=self._token.kind, schema=self._copy, table=self._layout.table, of=self._part,
            digest=self.digest(), stamp=stamp,
        ).write(target)  # fmt: skip

    def digest(self) -> str:
        """Return the digest of what is there now."""
        with explained(self._shown):
            return digest_with_definition(self._connection, self._layout.oid, self._layout.vector)

    def commit(self) -> None:
        """Exchange the tables, restore the stamp, and commit."""
        connection = self._connection
        with explained(self._shown):
            old = one(connection, "SELECT %s::regclass::oid", self._token.name)
            put_stamp(connection, self._part, self._token.stamp)
            exchange(connection, self._layout.oid, int(old), self._copy, self._shown)
            run(connection, "COMMIT")
