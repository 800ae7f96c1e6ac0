"""Measures how long it takes to fill a table of vectors here, with a small temporary one."""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw

from emberd.stores.sqlite import database
from emberd.stores.sqlite.errors import explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What filling a table of `rows` took: seconds, and bytes of write-ahead log."""

    rows: int
    fill_s: float
    log_bytes: int
    copy_s_per_byte: float
    digest_s_per_byte: float


def rehearse(rows: int, dimensions: int, ddl: str) -> Rehearsal:
    """Fill a temporary table with `rows` vectors of zeros, read each; copy and digest the database.

    `ddl` creates it; see `SqliteStore.new_vectors`.
    """
    with TemporaryDirectory(prefix="emberd-rehearsal-") as folder:
        file = Path(folder, "rehearsal.db")
        connection = database.connect(file, create=True)
        with explained(file):
            connection.pragma("journal_mode", "wal")
            connection.pragma("wal_autocheckpoint", 0)
            connection.execute(ddl.format(dimensions=dimensions))
            vector = bytes(4 * dimensions)
            began_s = time.perf_counter()
            with connection:
                connection.executemany(
                    "INSERT INTO v(rowid, e) VALUES (?, ?)", ((key, vector) for key in range(rows))
                )
            fill_s = time.perf_counter() - began_s
            log_bytes = database.size(file)
            began_s = time.perf_counter()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            for key in range(rows):  # as a swap asks the sidecar for hash and vector
                connection.execute("SELECT rowid FROM v WHERE rowid = ?", (key,)).get  # noqa: B018
                connection.execute("SELECT e FROM v WHERE rowid = ?", (key,)).get  # noqa: B018
            fill_s += time.perf_counter() - began_s
            began_s = time.perf_counter()
            database.digest(connection)
            digest_s = time.perf_counter() - began_s
        connection.close()
        began_s = time.perf_counter()
        database.copy(file, Path(folder, "copy.db"))
        copy_s, size = time.perf_counter() - began_s, database.size(file)
    return Rehearsal(
        rows=rows, fill_s=fill_s, log_bytes=log_bytes,
        copy_s_per_byte=copy_s / size, digest_s_per_byte=digest_s / size,
    )  # fmt: skip
