"""The sidecar: new vectors beside the store, each with the hash of its text.

It is also the journal: what is in it is done. A stopped run continues with what is missing, and a
text that has changed in the meantime has another hash.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import apsw

from emberd.errors import StoreError
from emberd.migrate import sqlite
from emberd.migrate.base import Key, Row
from emberd.migrate.sqlite_errors import explained
from emberd.vectors import Rows

PAGE_BYTES = 16384  # several vectors per page, so that little of it stays empty
LOG_BYTES = 8 * 2**20  # the most that its write-ahead log takes
ROW_BYTES = 96  # what a row takes besides its vector: key, hash, and SQLite's overhead


def bytes_of(rows: int, vector_bytes: int) -> int:
    """Return the most disk that a sidecar takes."""
    return rows * (vector_bytes + ROW_BYTES) + LOG_BYTES


class Sidecar:
    """One file, `staged.db`; a context manager. Raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: apsw.Connection = sqlite.connect(path, create=True)
        with _explained(path):
            self._db.pragma("page_size", PAGE_BYTES)
            self._db.pragma("journal_mode", "wal")
            # a power cut may cost the last batches, never the file
            self._db.pragma("synchronous", "normal")
            self._db.pragma("wal_autocheckpoint", LOG_BYTES // 2 // PAGE_BYTES)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS about(key TEXT PRIMARY KEY, value TEXT);"
                "CREATE TABLE IF NOT EXISTS staged(key PRIMARY KEY, hash BLOB, vector BLOB)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it stays."""
        self._db.close(True)

    def delete(self) -> None:
        """Close the file and remove it."""
        self.close()
        delete(self.path)

    @property
    def about(self) -> dict[str, str]:
        """What it was made for: store, model, fingerprint, dimensions, migration."""
        with _explained(self.path):
            return dict(self._db.execute("SELECT key, value FROM about"))

    def begin(self, about: dict[str, str]) -> None:
        """Forget everything and begin another migration."""
        with _explained(self.path), self._db:
            self._db.execute("DELETE FROM staged; DELETE FROM about")
            self._db.executemany("INSERT INTO about VALUES (?, ?)", about.items())

    def __len__(self) -> int:
        with _explained(self.path):
            return int(self._db.execute("SELECT count(*) FROM staged").get)

    def lacking(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows whose present text has no vector here."""
        return [row for row in rows if not self.has(row)]

    def has(self, row: Row) -> bool:
        """Whether the vector of a row's present text is here."""
        with _explained(self.path):
            kept = self._db.execute("SELECT hash FROM staged WHERE key = ?", (row.key,)).get
        return bool(kept == hash_of(row.text or ""))

    def holds(self, row: Row) -> bool:
        """Whether exactly this vector is here, for the row's present text."""
        with _explained(self.path):
            kept = self._db.execute("SELECT hash, vector FROM staged WHERE key = ?", (row.key,))
            return bool(kept.get == (hash_of(row.text or ""), row.vector))

    def has_key(self, key: Key) -> bool:
        """Whether any vector is here for this key."""
        with _explained(self.path):
            return bool(self._db.execute("SELECT count(*) FROM staged WHERE key = ?", (key,)).get)

    def put(self, rows: Sequence[Row], vectors: Rows) -> None:
        """Save a vector for each row; they are permanent when this returns."""
        with _explained(self.path), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO staged VALUES (?, ?, ?)",
                (
                    (row.key, hash_of(row.text or ""), vector)
                    for row, vector in zip(rows, packed(vectors), strict=True)
                ),
            )

    def vector(self, key: Key) -> bytes:
        """Return one vector."""
        with _explained(self.path):
            found = self._db.execute("SELECT vector FROM staged WHERE key = ?", (key,)).get
        if found is None:
            raise StoreError(
                f"{self.path} has no vector for row {key!r}.", hint="Run the migration again."
            )
        return bytes(found)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Like `sqlite_errors.explained`, for a file that can be deleted without loss."""
    with explained(path):
        try:
            yield
        except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
            raise StoreError(
                f"{path}, which keeps the new vectors until the swap, is damaged: {error}.",
                hint="Delete it, then run this again to embed every row again.",
            ) from None


def packed(vectors: Rows) -> Iterator[bytes]:
    """Yield the little-endian bytes of each row of a matrix of any dtype."""
    return (vector.tobytes() for vector in vectors.astype(vectors.dtype.newbyteorder("<")))


def delete(path: Path) -> None:
    """Remove a database that nobody has open."""
    for what in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{what}").unlink(missing_ok=True)


def hash_of(text: str) -> bytes:
    """Return a 16-byte hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
