"""Locks on a table of Postgres, and the moment in which another one takes its place."""

import secrets
import time
from typing import TYPE_CHECKING, Any

from emberd.errors import StoreBusyError, StoreError
from emberd.stores.pgvector.layout import Layout
from emberd.stores.pgvector.postgres import every, one, run, try_lock
from emberd.stores.pgvector.postgres_table import name_of, obstacles, take_place

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

LOCK_S = 5  # how long to wait for transactions that write
MOMENT_S = 2  # how long new readers are kept waiting for the old ones, at a time
MOMENTS = 40


def schema_named(what: str) -> str:
    """Return a new name for a schema of ours, as `layout.OURS` describes them."""
    return f"emberd_{what}_{secrets.token_hex(6)}"


def lock(connection: "Connection[Any]", layout: Layout, shown: str) -> None:
    """Keep writers out until the end of the transaction; make sure another table can follow.

    Raises:
        StoreBusyError: a transaction that has written to it has not ended.
        StoreError: something depends on the table that would be left behind.
    """
    run(connection, f"SET LOCAL lock_timeout = '{LOCK_S}s'")
    run(connection, f"LOCK TABLE {layout.name} IN SHARE ROW EXCLUSIVE MODE")
    found = obstacles(connection, layout.oid, layout.vector)
    if found:
        raise StoreError(
            f"{shown}: another table cannot take the place of {layout.name}, because of"
            f" what would stay with the old one: {', '.join(found)}.",
            hint="Drop it for the time of the migration and create it again afterwards; or copy the"
            " rows to a table of their own. A partitioned table cannot be migrated.",
        )
    may = one(
        connection,
        "SELECT has_database_privilege(current_database(), 'CREATE') AND"
        " has_database_privilege(current_database(), 'TEMPORARY') AND pg_has_role(c.relowner,"
        " 'MEMBER') FROM pg_catalog.pg_class c WHERE c.oid = %s",
        layout.oid,
    )
    if not may:
        raise StoreError(
            f"{shown}: this role may not replace the table {layout.name}.",
            hint="A run needs the table's owner, with CREATE and TEMPORARY on the database.",
        )


def exchange(
    connection: "Connection[Any]", old: int, new: int, keep: str | None, shown: str
) -> None:
    """Wait for the readers of the old table, then let the new one take its place.

    Raises:
        StoreBusyError: a reader does not end.
    """
    name = name_of(connection, old)
    for _ in range(MOMENTS):
        locked = try_lock(connection, name, within_s=MOMENT_S)
        if locked is not False:
            break
        time.sleep(MOMENT_S / 4)  # for those who wait behind us
    if not locked:
        holders = every(
            connection,
            "SELECT DISTINCT a.pid, a.application_name FROM pg_catalog.pg_locks l"
            " JOIN pg_catalog.pg_stat_activity a USING (pid) WHERE l.relation = %s"
            " AND l.granted AND a.pid <> pg_backend_pid() ORDER BY 1",
            old,
        )
        who = ", ".join(f"pid {pid} {program}".strip() for pid, program in holders)
        raise StoreBusyError(
            f"{shown}: transactions that have read {name} do not end ({who}). Nothing was changed.",
            hint="End them, or a program that reads and then writes in one transaction for"
            " the time of the swap; then run this again. What is embedded is kept.",
        )
    take_place(connection, old, new, keep)
