"""What a collection held when it was copied: a digest of each row, in a file of the migration.

By it, rows that somebody writes to the old collection meanwhile are told from those that somebody
writes to the new one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import apsw

from emberd.stores.base import Key
from emberd.stores.beside.engine import Record
from emberd.stores.in_order import paged
from emberd.stores.sqlite import database
from emberd.stores.sqlite.errors import explained

READ = 4096  # rows at a time
ROW_BYTES = 64  # what a row takes


class Snapshot:
    """One file, or one that SQLite deletes by itself; a context manager. Raises `StoreError`."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path("a temporary file")
        with explained(self.path):
            self._db = database.connect(path, create=True) if path else apsw.Connection("")
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "normal")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS rows(key PRIMARY KEY, digest BLOB) WITHOUT ROWID"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close(True)

    def put(self, records: Iterable[Record]) -> None:
        """Note what rows hold now."""
        with explained(self.path), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)",
                ((record.key, record.digest) for record in records),
            )

    def drop(self, keys: Iterable[Key]) -> None:
        """Forget rows."""
        with explained(self.path), self._db:
            self._db.executemany("DELETE FROM rows WHERE key = ?", ((key,) for key in keys))

    def get(self, key: Key) -> bytes | None:
        """Return the digest of a row; None if it was not there."""
        with explained(self.path):
            found: bytes | None = self._db.execute(
                "SELECT digest FROM rows WHERE key = ?", (key,)
            ).get
        return found

    def records(self) -> Iterator[Record]:
        """Yield everything in the order of the keys, a few thousand at a time."""

        def read(where: str, after: tuple[Key, ...]) -> list[Record]:
            with explained(self.path):
                found: Any = self._db.execute(
                    f"SELECT key, digest FROM rows {where} ORDER BY key LIMIT {READ}",  # noqa: S608
                    after,
                )
                return [Record(key, None, digest) for key, digest in found]

        return paged(read, READ)
