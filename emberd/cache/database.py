"""The file: an SQLite database that workers of all models share, and that never grows too large.

Keys and vectors are apart: looking for a key, or noting that it was used, touches no vector. Any
number of processes read at any time (WAL); whoever writes waits for the others.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

VERSION = 1  # raise it when the tables change: a file of another version is emptied
PAGE_BYTES = 2**15  # a float32 vector of 1,024 dimensions: 4.6 KiB each, instead of 5.4 with 16 KiB
WAL_BYTES = 4 * 2**20
SPARE_BYTES = 2 * WAL_BYTES  # the log beside the file counts, too
READER_CACHE = "-512"  # KiB
RETRY_S = 0.005
EVICTED = 20  # a twentieth of the file at once
LOOKUPS = (1, 16, 256)  # keys of a query: few numbers, so that few are compiled

TABLES = """
CREATE TABLE IF NOT EXISTS spaces(
  id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
  fingerprint TEXT NOT NULL, hits INTEGER NOT NULL DEFAULT 0, misses INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS entries(
  key BLOB PRIMARY KEY, id INTEGER NOT NULL, space INTEGER NOT NULL, used INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors(id INTEGER PRIMARY KEY, value BLOB NOT NULL);
"""
FIND = "SELECT key, value FROM entries JOIN vectors USING (id) WHERE key IN ({})"


@dataclass(frozen=True, slots=True)
class Space:
    """Where vectors belong together; `identity` says everything that decides them but the text."""

    identity: str
    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the cache holds of a space, and how often texts were found in it or not."""

    model: str
    fingerprint: str
    hits: int
    misses: int
    entries: int


class Reader:
    """Finds rows by their keys. Never waits: what is locked is not found."""

    def __init__(self, file: Path) -> None:
        """Open a file that exists. Raises apsw.Error."""
        self._connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection.pragma("cache_size", READER_CACHE)
        self._connection.pragma("query_only", True)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, object]:
        """Return the rows that there are, by key. Raises apsw.Error."""
        found: dict[bytes, object] = {}
        most = LOOKUPS[-1]
        for at in range(0, len(keys), most):
            some = keys[at : at + most]
            count = next(count for count in LOOKUPS if count >= len(some))
            query = FIND.format(",".join("?" * count))
            found.update(
                self._connection.execute(query, (*some, *(None for _ in range(count - len(some)))))
            )
        return found

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class Database:
    """The file, for writing. It is created with mode 0600, and emptied if it is damaged.

    `most_bytes` limits it together with its log; None leaves it as it is. `busy_s` is how long to
    wait for others.
    """

    def __init__(self, file: Path, most_bytes: int | None, busy_s: float = 5.0) -> None:
        """Open or create it. Raises OSError, apsw.Error."""
        self.file = file
        self._most_bytes = most_bytes
        self._busy_s = busy_s
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with suppress(PermissionError):  # another user's; then opening it may fail, too
            os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        self._connection = apsw.Connection(str(file))
        try:
            self._connection.set_busy_timeout(round(busy_s * 1000))
            try:
                self._prepare()
            except (apsw.NotADBError, apsw.CorruptError):
                self.reset()
            if self._connection.pragma("user_version") != VERSION:
                self.reset()
            if most_bytes is not None:
                with self._writing():
                    self._make_room(0)
                self._shrink()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.pragma
        run("page_size", PAGE_BYTES)
        run("auto_vacuum", "INCREMENTAL")
        run("journal_mode", "WAL")
        run("synchronous", "NORMAL")
        run("journal_size_limit", WAL_BYTES)
        run("wal_autocheckpoint", WAL_BYTES // int(run("page_size")))
        if not self._connection.execute("SELECT count(*) FROM sqlite_schema").get:
            with self._writing():
                self._connection.execute(TABLES)
                run("user_version", VERSION)

    def reset(self) -> None:
        """Empty the file, whatever is in it, also while others have it open. Raises apsw.Error.

        Source: sqlite.org/c3ref/c_dbconfig_defensive.html, SQLITE_DBCONFIG_RESET_DATABASE.
        """
        self._connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1)
        try:
            self._connection.execute("VACUUM")
        finally:
            self._connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 0)
        self._prepare()
        self._empty_log()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which waits for those of others at its beginning and nowhere else."""
        self._begin()
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # some errors have ended it
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _begin(self) -> None:
        """Begin a transaction once the log is short; only who may write knows that it stays so."""
        until_s = time.monotonic() + self._busy_s
        while True:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._log_bytes() <= WAL_BYTES:
                return
            self._connection.execute("ROLLBACK")
            if time.monotonic() > until_s:
                raise apsw.BusyError("the log is too long, and others do not let it be emptied")
            if not self._empty_log():
                time.sleep(RETRY_S)

    # -- vectors ----------------------------------------------------------------------------

    def put(self, space: Space, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep rows by their keys; whatever was used longest ago makes room.

        Raises:
            apsw.Error: it cannot be written, or not now; the file is as it was.
        """
        given, now_s = list(rows), round(time.time())
        run = self._connection.execute
        with self._writing():
            self._make_room(sum(len(row) for _, row in given))
            number = self._number_of(space)
            for key, row in given:
                found = run("SELECT id FROM entries WHERE key = ?", (key,)).get
                run("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (found, row))
                place = found or self._connection.last_insert_rowid()
                run(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                    (key, place, number, now_s),
                )
        self._shrink()

    def note(self, space: Space, used: Iterable[bytes], hits: int, misses: int) -> None:
        """Note which keys were used now, and how many texts were found or not.

        Raises:
            apsw.Error: it cannot be written.
        """
        now_s = round(time.time())
        with self._writing():
            self._connection.executemany(
                "UPDATE entries SET used = ? WHERE key = ?", ((now_s, key) for key in used)
            )
            self._connection.execute(
                "UPDATE spaces SET hits = hits + ?, misses = misses + ? WHERE id = ?",
                (hits, misses, self._number_of(space)),
            )

    def _number_of(self, space: Space) -> int:
        run = self._connection.execute
        number = run("SELECT id FROM spaces WHERE identity = ?", (space.identity,)).get
        if number is None:
            run(
                "INSERT INTO spaces(identity, model, fingerprint) VALUES (?, ?, ?)",
                (space.identity, space.model, space.fingerprint),
            )
            number = self._connection.last_insert_rowid()
        return int(number)

    # -- its size ---------------------------------------------------------------------------

    def _pages(self) -> tuple[int, int, int]:
        """Return how many pages it has, how many of them are used, and how many it may have."""
        run = self._connection.pragma
        count = int(run("page_count"))
        most = max(16, (self._most_bytes or 0) - SPARE_BYTES) // int(run("page_size"))
        return count, count - int(run("freelist_count")), max(16, most)

    def _make_room(self, more_bytes: int) -> None:
        """Delete what was used longest ago, so that so many bytes more have room."""
        if self._most_bytes is None:
            return
        run = self._connection.execute
        more = 16 + 2 * more_bytes // int(self._connection.pragma("page_size"))
        _, used, most = self._pages()
        while used + more > most:
            entries = run("SELECT count(*) FROM entries").get
            if not entries:
                return
            share = max((used + more - most) / used, 1 / EVICTED)
            count = int(entries * share) + 1
            self._delete("SELECT key, id FROM entries ORDER BY used, id LIMIT ?", count)
            _, used, most = self._pages()

    def _delete(self, query: str, value: object) -> int:
        """Delete the entries whose keys and ids a query gives; return how many they were."""
        gone = self._connection.execute(query, (value,)).fetchall()
        many = self._connection.executemany
        many("DELETE FROM entries WHERE key = ?", ((key,) for key, _ in gone))
        many("DELETE FROM vectors WHERE id = ?", ((number,) for _, number in gone))
        return len(gone)

    def _shrink(self) -> None:
        """Give back to the file system what is over the limit; with a new limit, it may be much."""
        count, _, most = self._pages()
        if self._most_bytes is not None and count > most:
            self._vacuum(count - most)
        if self._log_bytes() > WAL_BYTES:  # SQLite alone would not wait for others to let it
            self._empty_log()  # or the next to write does

    def _log_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return self.file.with_name(f"{self.file.name}-wal").stat().st_size
        return 0

    def _empty_log(self) -> bool:
        """Empty it; False if others read, or are about to empty it."""
        with suppress(apsw.BusyError):
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return True
        return False

    def _vacuum(self, pages: int) -> None:
        self._connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    # -- what commands ask ------------------------------------------------------------------

    def held(self) -> list[Held]:
        """Return what it holds of each space, the largest first. Raises apsw.Error."""
        rows = self._connection.execute(
            "SELECT model, fingerprint, hits, misses, count(key) FROM spaces"
            " LEFT JOIN entries ON space = spaces.id GROUP BY spaces.id ORDER BY 5 DESC, model"
        )
        return [Held(*row) for row in rows]

    def forget(self, fingerprints: Iterable[str]) -> int:
        """Delete all vectors of these spaces; return how many they were. Raises apsw.Error."""
        count = 0
        with self._writing():
            for fingerprint in fingerprints:
                query = "SELECT id FROM spaces WHERE fingerprint = ?"
                for (number,) in self._connection.execute(query, (fingerprint,)).fetchall():
                    count += self._delete("SELECT key, id FROM entries WHERE space = ?", number)
                    self._connection.execute("DELETE FROM spaces WHERE id = ?", (number,))
        self._vacuum(0)  # all pages that are free
        self._empty_log()
        return count

    def close(self) -> None:
        """Close it."""
        self._connection.close()
