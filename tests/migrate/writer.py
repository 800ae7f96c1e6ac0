"""A program that writes to a cmem store: adds, changes and deletes memories.

    python -m tests.migrate.writer DATABASE FOLDER --journal truncate --pause 0.005 --halves

FOLDER has `texts.json`, `old.npy` and `new.npy`, the texts' vectors in two spaces. It takes the
model that fits, as a program does whose server's default moved with the store: the new one while
the store has a stamp; with `--stubborn` always the old one. With `--halves` some rows are written
in two transactions that lie 20 ms apart: the vector first and then its text, or the other way
round; with `--vectors-first` all rows are written the first way. The transaction that completes a
row notes its turn in the table `turns`. It ends when FOLDER/stop is there, and leaves `done.json`,
what it wrote.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np

from emberd.vectors import Matrix
from tests.migrate import stores

STAMPED = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_spaces'"
APART_S = 0.02
WAIT_MS = 60_000


class Writer:
    """One connection that stays open, as a program's does."""

    def __init__(self, database: apsw.Connection, folder: Path, *, stubborn: bool) -> None:
        self._database = database
        self.texts: list[str] = json.loads((folder / "texts.json").read_text())
        self._spaces: list[Matrix] = [np.load(folder / f"{name}.npy") for name in ("old", "new")]
        self._stubborn = stubborn

    def delete(self, turn: int, key: int) -> None:
        """Delete a row."""
        with self._transaction(turn):
            self._forget(key)

    def write(self, turn: int, key: int, at: int) -> None:
        """Add or change a row, in one transaction."""
        with self._transaction(turn):
            self._forget(key)
            self._text(key, at)
            self._vector(key, at)

    def write_in_halves(self, turn: int, key: int, at: int, *, vector_first: bool) -> None:
        """Add or change a row, in two transactions."""
        first, second = self._text, self._vector
        if vector_first:
            first, second = second, first
        with self._transaction(None):
            self._forget(key)
            first(key, at)
        time.sleep(APART_S)
        with self._transaction(turn):
            second(key, at)

    @contextmanager
    def _transaction(self, turn: int | None) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        yield
        if turn is not None:
            self._database.execute("INSERT INTO turns VALUES (?)", (turn,))
        self._database.execute("COMMIT")

    def _forget(self, key: int) -> None:
        self._database.execute("DELETE FROM memories WHERE id = ?", (key,))
        self._database.execute("DELETE FROM vec_memories WHERE rowid = ?", (key,))

    def _text(self, key: int, at: int) -> None:
        self._database.execute(
            "INSERT INTO memories(id, content) VALUES (?, ?)", (key, self.texts[at])
        )

    def _vector(self, key: int, at: int) -> None:
        # Asked of the database itself: what the connection remembers of its tables may be older.
        stamped = 0 if self._stubborn else self._database.execute(STAMPED).get
        self._database.execute(
            "INSERT INTO vec_memories(rowid, embedding) VALUES (?, ?)",
            (key, self._spaces[stamped][at].tobytes()),
        )


def keep_writing(
    path: Path,
    folder: Path,
    *,
    journal: str | None = None,
    pause_s: float = 0.0,
    halves: bool = False,
    vectors_first: bool = False,
    stubborn: bool = False,
) -> None:
    """Write until told to stop."""
    database = stores.connect(path, journal=journal)
    database.set_busy_timeout(WAIT_MS)
    writer = Writer(database, folder, stubborn=stubborn)
    written: list[tuple[int, int | None]] = []  # key, and which text: None when it was deleted
    while not (folder / "stop").exists():
        turn = len(written) + 1
        at = turn % len(writer.texts)
        key = 10_000 + at if turn % 3 else 1 + at % 200
        if not turn % 7:
            writer.delete(turn, key)
        elif vectors_first or (halves and turn % 4 < 2):
            writer.write_in_halves(turn, key, at, vector_first=vectors_first or not turn % 4)
        else:
            writer.write(turn, key, at)
        written.append((key, at if turn % 7 else None))
        time.sleep(pause_s)
    (folder / "done.json").write_text(json.dumps({"written": written}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--journal")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--halves", action="store_true")
    parser.add_argument("--vectors-first", action="store_true")
    parser.add_argument("--stubborn", action="store_true")
    asked = parser.parse_args()
    keep_writing(
        asked.database, asked.folder, journal=asked.journal, pause_s=asked.pause,
        halves=asked.halves, vectors_first=asked.vectors_first, stubborn=asked.stubborn,
    )  # fmt: skip
