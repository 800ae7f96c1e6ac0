"""A vec0 table of sqlite-vec, used through apsw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw
import numpy as np

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate import stores
from tests.migrate.kinds.base import Rows
from tests.migrate.kinds.sqlite_file import copied, put_in_place, things

TABLES = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)"
STAMPED = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_spaces'"
WAIT_MS = 60_000


class Subject:
    """One file."""

    name: ClassVar[str] = "sqlite-vec"

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "notes.db", folder / "made.db"
        options = {"table": "vec_notes", "text": "notes.body"}
        self.entry: dict[str, Any] = {
            "kind": "sqlite-vec", "path": str(self.path), "options": options,
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def key(self, number: int) -> Key:
        """Return a rowid."""
        return number + 1

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the file, and a copy of it."""
        database = stores.connect(self._made, journal="wal")
        size = len(rows[0][2])
        database.execute(
            f"{TABLES}; CREATE VIRTUAL TABLE vec_notes USING vec0(embedding float[{size}])"
        )
        with database:
            for row in rows:
                _insert(database, *row)
        database.close()
        self.reset()

    def reset(self) -> None:
        """Copy it."""
        put_in_place(self._made, self.path)

    def session(self) -> "Session":
        """Open a connection."""
        return Session(self.path)

    def copied(self) -> Rows:
        """Read the copies that undos have made."""
        return copied(self.path, Session)

    def things(self) -> int:
        """Count tables and indexes."""
        return things(self.path)


class Session:
    """A connection."""

    def __init__(self, path: Path) -> None:
        self._database = stores.connect(path)
        self._database.set_busy_timeout(WAIT_MS)

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Replace it in one transaction."""
        with _transaction(self._database) as database:
            _delete(database, key)
            _insert(database, key, text, vector)

    def delete(self, key: Key) -> None:
        """Delete it in one transaction."""
        with _transaction(self._database) as database:
            _delete(database, key)

    def rows(self) -> Rows:
        """Join both tables."""
        found = self._database.execute(
            "SELECT v.rowid, n.body, v.embedding FROM vec_notes v JOIN notes n ON n.id = v.rowid"
        )
        return {key: (text, np.frombuffer(raw, "<f4")) for key, text, raw in found}

    def is_migrated(self) -> bool:
        """Look for the table of stamps."""
        return bool(self._database.execute(STAMPED).get)

    def close(self) -> None:
        """Close it."""
        self._database.close()


class _transaction:  # noqa: N801 - reads like a function
    """One that has the write lock from its begin on, so that it never fails halfway."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database

    def __enter__(self) -> apsw.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def __exit__(self, failed: object, *_: object) -> None:
        self._database.execute("ROLLBACK" if failed else "COMMIT")


def _insert(database: apsw.Connection, key: Key, text: str, vector: Matrix) -> None:
    database.execute("INSERT INTO notes VALUES (?, ?)", (key, text))
    database.execute(
        "INSERT INTO vec_notes(rowid, embedding) VALUES (?, ?)", (key, vector.tobytes())
    )


def _delete(database: apsw.Connection, key: Key) -> None:
    database.execute("DELETE FROM notes WHERE id = ?", (key,))
    database.execute("DELETE FROM vec_notes WHERE rowid = ?", (key,))
