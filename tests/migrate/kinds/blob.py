"""Drives a table of notes with a column of BLOBs, with Python's own sqlite3, as a program would."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows
from tests.migrate.kinds.sqlite_file import copied, put_in_place, things

TABLE = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT, embedding BLOB, seen REAL)"
PUT = "INSERT OR REPLACE INTO notes(id, body, embedding, seen) VALUES (?, ?, ?, 0.5)"
STAMPED = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_spaces'"


def connect(path: Path) -> sqlite3.Connection:
    """Open it; each statement is a transaction."""
    return sqlite3.connect(path, timeout=60, isolation_level=None)


class Subject:
    """A database in a folder."""

    name: ClassVar[str] = "blob"

    def __init__(self, folder: Path, *, journal: str = "wal") -> None:
        self.path = folder / "notes.db"
        self._made = folder / "made.db"
        self._journal = journal
        options = {"vector": "notes.embedding", "text": "body"}
        self.entry: dict[str, Any] = {"kind": "blob", "path": str(self.path), "options": options}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def key(self, number: int) -> Key:
        """The number itself."""
        return number

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the database, and keep a copy for `reset`."""
        database = connect(self._made)
        database.execute(f"PRAGMA journal_mode = {self._journal}")
        database.execute(TABLE)
        database.execute("BEGIN")
        database.executemany(PUT, [(key, text, vector.tobytes()) for key, text, vector in rows])
        database.execute("COMMIT")
        database.close()
        self.reset()

    def reset(self) -> None:
        """Copy it back, without what emberd has beside it."""
        put_in_place(self._made, self.path)

    def session(self) -> "Session":
        """Open it."""
        return Session(self.path)

    def copied(self) -> Rows:
        """Read the copies that undos have made."""
        return copied(self.path, Session)

    def things(self) -> int:
        """Count tables and indexes."""
        return things(self.path)


class Session:
    """A program that has the database open."""

    def __init__(self, path: Path) -> None:
        self._database = connect(path)

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Write a row in one transaction."""
        self._database.execute(PUT, (key, text, vector.tobytes()))

    def delete(self, key: Key) -> None:
        """Delete a row."""
        self._database.execute("DELETE FROM notes WHERE id = ?", (key,))

    def rows(self) -> Rows:
        """Read everything in one transaction."""
        found = self._database.execute("SELECT id, body, embedding FROM notes").fetchall()
        return {key: (text, np.frombuffer(raw, "<f4")) for key, text, raw in found}

    def is_migrated(self) -> bool:
        """Whether the stamp's table is there."""
        return bool(self._database.execute(STAMPED).fetchone()[0])

    def close(self) -> None:
        """Close it."""
        self._database.close()
