"""Connections to Postgres, by psycopg, and errors that say what happened and what to do.

psycopg is the extra `pgvector`; it is imported when the first connection is made.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from emberd.config.paths import without_password
from emberd.errors import (
    DiskFullError,
    EmberdError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreKindError,
)
from emberd.installing import pip

if TYPE_CHECKING:
    from psycopg import Connection as Connection
    from psycopg import Error

CONNECT_S = 10
SCHEMES = re.compile(r"postgres(ql)?(\+\w+)?://", re.IGNORECASE)
DRIVER = re.compile(r"\+\w+(?=://)")
SETTINGS = b"""
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL row_security = off; SET LOCAL synchronous_commit = on;
DO $$ BEGIN PERFORM set_config('transaction_timeout', '0', true);
EXCEPTION WHEN OTHERS THEN NULL; END $$;
DO $$ BEGIN PERFORM set_config('client_connection_check_interval', '1s', true);
EXCEPTION WHEN OTHERS THEN NULL; END $$"""  # the last two are not known to every server


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as a literal in SQL, for statements that take no parameters."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def one(connection: "Connection[Any]", sql: str, *values: Any) -> Any:  # noqa: ANN401 - a column
    """Return the first column of a query's first row, None if it has none."""
    row = connection.execute(sql.encode(), values or None).fetchone()
    return row[0] if row else None


def every(connection: "Connection[Any]", sql: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """Return a query's rows, which must be few."""
    return connection.execute(sql.encode(), values or None).fetchall()


def run(connection: "Connection[Any]", sql: str, *values: Any) -> int:  # noqa: ANN401
    """Execute a statement; return how many rows it wrote."""
    return connection.execute(sql.encode(), values or None).rowcount


def try_lock(connection: "Connection[Any]", table: str, *, within_s: float) -> bool | None:
    """Lock a table for everybody; return whether it could be done within that time.

    None: it never can, as somebody who reads it waits for a lock of this transaction. What it
    holds stays as it is.
    """
    from psycopg import errors

    run(connection, "SAVEPOINT unlocked")
    run(connection, f"SET LOCAL lock_timeout = '{within_s}s'")
    try:
        run(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        run(connection, "ROLLBACK TO unlocked")
        return None if isinstance(error, errors.DeadlockDetected) else False
    return True


@contextmanager
def connected(url: str, *, write: bool = False) -> Iterator["Connection[Any]"]:
    """Open a connection and a transaction, which is rolled back unless it has been committed.

    A transaction that reads sees the database as it is now until the end. No row is hidden from it
    by a policy: a role that does not see all rows gets an error. The server notices within a second
    when this process has died.

    Raises:
        StoreKindError: psycopg is not installed.
        StoreError: the server cannot be reached, or refuses.
    """
    try:
        import psycopg
    except ImportError:
        raise StoreKindError(
            "Postgres is spoken to by psycopg, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[pgvector]')}`.",
        ) from None
    shown = without_password(url)
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:  # whose text may have a part of a password
        raise NotAStoreError(
            f"{shown} is not the URL of a Postgres database.",
            hint="Write it as postgresql://USER@HOST:PORT/DATABASE, with %XX for special characters"
            " (RFC 3986).",
        ) from None
    with explained(shown), closing(_open(url, shown)) as connection:
        begin = "READ COMMITTED READ WRITE" if write else "REPEATABLE READ READ ONLY"
        connection.execute(f"BEGIN ISOLATION LEVEL {begin}".encode())
        connection.execute(SETTINGS)
        yield connection


def _open(url: str, shown: str) -> "Connection[Any]":
    import psycopg

    try:
        return psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_S, client_encoding="utf8",
            application_name="emberd", prepare_threshold=None,  # for poolers of transactions
        )  # fmt: skip
    except psycopg.OperationalError as error:
        why = " ".join(str(error).split())
        raise StoreError(
            f"{shown} cannot be reached: {why}.",
            hint="Is the server running, and are user and database right? A password can be in"
            " PGPASSWORD, ~/.pgpass, or a service file.",
        ) from None


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turn an error of Postgres into one of ours that names the database."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise _explanation(shown, error) from None


def _explanation(shown: str, error: "Error") -> EmberdError:
    from psycopg import OperationalError, errors

    what = f"{shown}: {error.diag.message_primary or type(error).__name__}."
    match error:
        case errors.LockNotAvailable() | errors.DeadlockDetected():
            return StoreBusyError(
                f"{shown}: the table is in use by another transaction.",
                hint="Wait until it has ended, or end it, then run this again.",
            )
        case errors.InsufficientPrivilege():
            return StoreError(
                what,
                hint="A check needs SELECT on the table. A run needs its owner, with CREATE and"
                " TEMPORARY on the database: it puts a new table in the place of the old one.",
            )
        case errors.DiskFull():
            return DiskFullError(what, hint="Nothing was changed. Free some space on the server.")
        case errors.ReadOnlySqlTransaction():
            return StoreError(what, hint="This server only reads; use the URL of the primary.")
        case OperationalError() if error.sqlstate is None:
            return StoreError(
                f"{shown}: the connection was lost. What was not committed is undone.",
                hint="Run this again when the server is back.",
            )
    return StoreError(what)
