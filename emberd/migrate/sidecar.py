"""The sidecar: new vectors beside the store, each with the hash of its text.

It is also the journal: what is in it is done. A stopped run continues with what is missing, and a
text that has changed in the meantime has another hash.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import apsw

from emberd.errors import StoreError
from emberd.stores.base import Key, Row
from emberd.stores.files import delete_database
from emberd.stores.in_order import merged, order_of, paged
from emberd.stores.sqlite import database
from emberd.stores.sqlite.errors import explained
from emberd.vectors import Rows

PAGE_BYTES = 16384  # several vectors per page, so that little of it stays empty
READ = 512  # rows read at once, with their vectors
LOG_BYTES = 8 * 2**20  # the most that its write-ahead log takes
ROW_BYTES = 96  # what a row takes besides its vector: key, hash, and SQLite's overhead


def bytes_of(rows: int, vector_bytes: int) -> int:
    """Return the most disk that a sidecar takes."""
    return rows * (vector_bytes + ROW_BYTES) + LOG_BYTES


class Staged(NamedTuple):
    """A new vector, and the hash of the text that it was made of.

    `vector` is empty if vectors were not asked for.
    """

    key: Key
    hash: bytes
    vector: bytes

    def is_of(self, row: Row) -> bool:
        """Whether it was made of a row's present text."""
        return self.hash == hash_of(row.text or "")

    def is_in(self, row: Row) -> bool:
        """Whether a row has just this vector, for its present text."""
        return self.is_of(row) and self.vector == row.vector


class Sidecar:
    """One file, `staged.db`; a context manager. Raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: apsw.Connection = database.connect(path, create=True)
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
        delete_database(self.path)

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

    def lacking(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows, in the order of their keys, whose present text has no vector here."""
        if not rows:
            return []
        with _explained(self.path):
            found: Any = self._db.execute(
                "SELECT key, hash, x'' FROM staged WHERE key BETWEEN ? AND ? ORDER BY key",
                (rows[0].key, rows[-1].key),
            )
            both = merged(rows, map(Staged._make, found))
            return [row for row, ours in both if row and not (ours and ours.is_of(row))]

    def beside(
        self, rows: Iterable[Row], *, vectors: bool = True
    ) -> Iterator[tuple[Row | None, Staged | None]]:
        """Yield each row of a store with what is here for its key, or one of them alone.

        Both are read once, in the order of their keys, however many there are.

        Raises:
            StoreError: the rows are not in that order.
        """
        return merged(_in_order(rows), self._all(vectors=vectors))

    def _all(self, *, vectors: bool = True) -> Iterator[Staged]:
        vector = "vector" if vectors else "x''"

        def read(where: str, after: tuple[Key, ...]) -> list[Staged]:
            with _explained(self.path):
                found: Any = self._db.execute(
                    f"SELECT key, hash, {vector} FROM staged {where} ORDER BY key LIMIT {READ}",  # noqa: S608
                    after,
                )
                return [*map(Staged._make, found)]

        return paged(read, READ)

    def vectors(self) -> Iterator[tuple[Key, bytes]]:
        """Yield all keys with their vectors, in the order of the keys."""
        return ((each.key, each.vector) for each in self._all())

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop the vectors of rows that are no longer there."""
        with _explained(self.path), self._db:
            self._db.executemany("DELETE FROM staged WHERE key = ?", ((key,) for key in keys))

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


def _in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows. Raises `StoreError` if they are not in the order of their keys."""
    last: Key | None = None
    for row in rows:
        if last is not None and order_of(row.key) <= order_of(last):
            raise StoreError(
                f"The store's rows are not in the order of their keys: {row.key!r} is late.",
                hint="Please report this, with the kind of the store.",
            )
        last = row.key
        yield row


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


def hash_of(text: str) -> bytes:
    """Return a 16-byte hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
