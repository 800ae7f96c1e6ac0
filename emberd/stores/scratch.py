"""What does not fit into memory, in temporary files: keys in their order, and vectors by position.

A kind whose rows lie in another order than that of their keys needs both: it walks the keys in
order, and fills the vectors in as the rows lie. The files have no name, so a kill leaves none.
"""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import apsw
import numpy as np
import numpy.typing as npt

from emberd.errors import StoreError
from emberd.stores.base import Key
from emberd.vectors import Matrix

CACHE_KIB = 65536  # of SQLite's pages in memory
BATCH = 2048  # rows read at a time


class Keys:
    """Keys with the position of their row, and perhaps its text, sorted by SQLite on disk.

    Integers come first, in their order; then strings, by code point. Positions count from 0.
    """

    def __init__(self, rows: Iterable[tuple[Key, int, str | None]]) -> None:
        self._db = apsw.Connection("")  # a temporary file, gone when it is closed
        self._db.pragma("cache_size", -CACHE_KIB)
        self._db.pragma("journal_mode", "off")
        self._db.execute("CREATE TABLE rows(key, at INTEGER PRIMARY KEY, text TEXT)")
        try:
            with self._db:
                self._db.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            self._db.execute("CREATE INDEX by_key ON rows(key, at)")
        except apsw.FullError:
            raise StoreError(
                "There is no room to sort the keys of the rows.",
                hint="Set TMPDIR to a folder with more room, then run this again.",
            ) from None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM rows").get)

    def at(self, at: int) -> Key:
        """Return the key of a position that has one."""
        key: Key = self._db.execute("SELECT key FROM rows WHERE at = ?", (at,)).get
        return key

    def place(self, key: Key, text: str) -> int | None:
        """Return the position of a key that has this text; None if there is none."""
        found = self._db.execute("SELECT at FROM rows WHERE key = ? AND text = ?", (key, text)).get
        return None if found is None else int(found)

    def after(self, key: Key | None) -> Iterator[tuple[Key, int]]:
        """Yield keys and positions in the order of the keys, from the first one after `key`."""
        return ((key, at) for key, at, _ in self.texts(key))

    def texts(self, key: Key | None) -> Iterator[tuple[Key, int, str | None]]:
        """Do what `after` does, with the texts."""
        where, values = ("", ()) if key is None else ("WHERE key > ?", (key,))
        yield from self._db.execute(
            f"SELECT key, at, text FROM rows {where} ORDER BY key, at",  # noqa: S608 - no names
            values,
        )


def positions(
    keys: Iterable[tuple[Key, int]], vectors: Iterable[tuple[Key, bytes]]
) -> Iterator[tuple[int, bytes]]:
    """Yield the position and vector of each key that has a vector; both come in one order.

    Raises:
        StoreError: a vector has no row, or one key has several rows.
    """
    rows = iter(keys)
    given = None
    for given, raw in vectors:
        at = next((at for key, at in rows if key == given), None)
        if at is None:
            raise StoreError(
                f"There is no row {given!r} for a vector, or there are several.",
                hint="Make the keys unique, then run this again.",
            )
        yield at, raw


class Vectors:
    """Vectors of one size by the position of their row, in a file; a context manager.

    `size` is that of a vector in bytes, `folder` where the file is to be.
    """

    def __init__(self, size: int, folder: Path) -> None:
        where = folder if folder.is_dir() and os.access(folder, os.W_OK) else None
        self._size = size
        # Without a name from the start; where the system has no such files, by the name of what
        # the next command deletes if this one is killed just then.
        made = tempfile.TemporaryFile(dir=where, suffix=".partial", buffering=0)  # noqa: SIM115
        self._file = made.fileno()
        self._close = weakref.finalize(self, made.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which frees its disk."""
        self._close()

    def put(self, vectors: Iterable[tuple[int, bytes]]) -> None:
        """Write vectors at their positions."""
        for at, raw in vectors:
            # The 1 says that there is one.
            os.pwrite(self._file, b"\1" + raw, at * (self._size + 1))

    def read(self, at: int, count: int) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """Return the vectors `(count, D)`, float32, from a position on, and which are missing."""
        record = self._size + 1
        raw = os.pread(self._file, count * record, at * record).ljust(count * record, b"\0")
        found = np.frombuffer(raw, np.uint8).reshape(count, record)
        return found[:, 1:].copy().view("<f4"), found[:, 0] == 0  # a copy is aligned
