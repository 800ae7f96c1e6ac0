"""SQLite for stores and sidecars: opens, copies and restores databases, and digests their content.

The sqlite3 module of many Pythons cannot load extensions; apsw always can.
"""

import hashlib
import marshal
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import sqlite_vec

from emberd.errors import StoreError
from emberd.replacing import replacing
from emberd.stores.sqlite.errors import explained

PATIENCE_S = 10.0  # how long to wait for somebody else's transaction
LOOK_S = 0.002
AS_VALUES = 2  # of marshal's versions, the last that looks at values alone, not at references
HALF_DONE = (apsw.SQLITE_READONLY_ROLLBACK, apsw.SQLITE_READONLY_RECOVERY)


def connect(path: Path, *, write: bool = False, create: bool = False) -> apsw.Connection:
    """Open a database with sqlite-vec loaded. Raises `StoreError`.

    What a process that died left half done is rolled back first, as any writer would.
    """
    flags = apsw.SQLITE_OPEN_READWRITE if write or create else apsw.SQLITE_OPEN_READONLY
    with explained(path):
        connection = _open(path, flags | (apsw.SQLITE_OPEN_CREATE if create else 0))
        if not write and not create and _is_half_done(connection):
            connection.close(True)
            _roll_back(path)
            connection = _open(path, flags)
    return connection


def _open(path: Path | str, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_handler(_patience())
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    # "content" is a column or, if there is none, an error; never the text 'content'.
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    return connection


def _is_half_done(connection: apsw.Connection) -> bool:
    """Whether a journal must be rolled back first, which a reader may not do."""
    try:
        connection.pragma("schema_version")  # any read looks for one
    except apsw.ReadOnlyError as error:
        if getattr(error, "extendedresult", 0) in HALF_DONE:
            return True
        connection.close(True)
        raise
    except BaseException:
        connection.close(True)
        raise
    return False


def _roll_back(path: Path) -> None:
    writer = _open(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        writer.pragma("schema_version")
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.IOError):
        raise StoreError(
            f"A process that died left {path} half changed, and that cannot be rolled back, because"
            " the file or its folder is read-only.",
            hint="Correct the permissions, then run this again.",
        ) from None
    finally:
        writer.close(True)


def _patience() -> Callable[[int], bool]:
    """Return a busy handler that tries every 2 ms.

    SQLite's own tries every 100 ms, and hardly ever finds a gap between the transactions of a
    program that writes without a pause.
    """
    since_s = 0.0

    def waits_on(tries: int) -> bool:
        nonlocal since_s
        if not tries:
            since_s = time.monotonic()
        time.sleep(LOOK_S)
        return time.monotonic() - since_s < PATIENCE_S

    return waits_on


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[apsw.Connection]:
    """Open a connection that is closed afterwards, with errors explained."""
    connection = connect(path, write=write)
    try:
        with explained(path):
            yield connection
    finally:
        connection.close(True)  # what is not committed is rolled back


@contextmanager
def opened_backup(path: Path) -> Iterator[apsw.Connection]:
    """Open a database that nobody changes, with errors explained; creates no files."""
    with explained(path):
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = _open(f"{path.absolute().as_uri()}?immutable=1", flags)
        try:
            yield connection
        finally:
            connection.close(True)


def copy(source: Path, target: Path) -> None:
    """Copy a database to a new file in one step; small steps might never end beside writers."""
    with opened(source) as connection:
        connection.pragma("cache_size", 16)  # pages; none is read twice
        _copy(connection, source, target)


def _copy(connection: apsw.Connection, source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        with replacing(target, temporary=partial):
            made = connect(partial, write=True)  # an empty file is an empty database
            try:
                with explained(partial), made.backup("main", connection, "main") as backup:
                    backup.step(-1)
            finally:
                made.close(True)
            shutil.copymode(source, partial)  # what only its owner may read stays so
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror}.",
            hint="Correct the permissions, or make room.",
        ) from None


class Restoring:
    """A locked database that is about to be replaced by a backup: see `Restoration`."""

    def __init__(
        self, path: Path, reader: apsw.Connection, begin: Callable[[], apsw.Backup]
    ) -> None:
        self._path = path
        self._reader = reader
        self._begin = begin

    def copy(self, target: Path) -> None:
        """Copy it as it is."""
        _copy(self._reader, self._path, target)

    def digest(self) -> str:
        """Read all of it."""
        return digest(self._reader)

    def commit(self) -> None:
        """Put every page in place in one transaction."""
        with self._begin() as backup:
            backup.step(-1)


@contextmanager
def restoring(path: Path, backup: Path) -> Iterator[Restoring]:
    """Lock out writers until the end, to copy a database as it is and then to restore a backup.

    SQLite's backup refuses a destination with an open transaction, so no transaction can hold the
    lock. With a write-ahead log, the backup itself holds it once it has begun, and others can still
    read. With a rollback journal, that would keep out the connection that makes the copy. Instead,
    a connection in exclusive mode keeps its lock from one transaction to the next, and readers wait
    too. (With a log, that lock is only granted if nobody else has the database open.)
    """
    with opened_backup(backup) as given, opened(path, write=True) as store:
        if store.readonly("main"):  # otherwise both ways would fail too late
            raise apsw.ReadOnlyError

        def begin() -> apsw.Backup:
            return store.backup("main", given, "main")

        if store.pragma("journal_mode") == "wal":
            with begin() as begun, opened(path) as reader:
                begun.step(0)
                yield Restoring(path, reader, lambda: begun)
        else:
            store.pragma("locking_mode", "exclusive")
            store.execute("BEGIN EXCLUSIVE; COMMIT")
            yield Restoring(path, store, begin)
        shorten_log(store)


def shorten_log(connection: apsw.Connection) -> None:
    """Shrink a log that has grown as large as the database, unless a reader needs it."""
    with suppress(apsw.Error):
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def digest(connection: apsw.Connection) -> str:
    """Return a digest of everything in a database; any change gives another digest.

    Values are read as bytes, because a text may not be UTF-8. A virtual table is covered by its
    shadow tables.
    """
    whole = hashlib.blake2b(digest_size=16)
    for table in list(connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name")):
        whole.update(repr(table).encode())
    kinds = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type != 'view'"
    for (name,) in list(connection.execute(f"{kinds} AND type != 'virtual' ORDER BY name")):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")]
        values = ", ".join(f"CAST({quoted(column)} AS BLOB)" for column in columns)
        whole.update(name.encode())
        for row in connection.execute(f"SELECT {values} FROM {quoted(name)}"):
            for value in row:
                if value is None:
                    whole.update(b"-")
                else:
                    whole.update(b"%d:" % len(value))
                    whole.update(value)
    return whole.hexdigest()


def table_digest(connection: apsw.Connection, name: str, values: Sequence[str]) -> str:
    """Return a digest of these values (SQL) of a table that does not depend on the row order.

    It is exact to the bit: a number differs from its text, and a text need not be UTF-8.
    """
    kinds = "||".join(f"substr(typeof({each}), 1, 2)" for each in values)
    exact = ", ".join(
        f"CASE typeof({each}) WHEN 'text' THEN CAST({each} AS BLOB) ELSE {each} END"
        for each in values
    )
    total = rows = 0
    for row in connection.execute(f"SELECT {kinds}, {exact} FROM {quoted(name)}"):
        rows += 1
        written = marshal.dumps(row, AS_VALUES)
        total += int.from_bytes(hashlib.blake2b(written, digest_size=16).digest())
    return f"{rows} rows, {total % 2**128:032x}"


def size(path: Path) -> int:
    """Return the bytes of a database and its write-ahead log."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'
