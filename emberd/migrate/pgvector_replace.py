"""Replaces a table's vectors in one transaction: another table beside it takes its place.

Writers wait from the beginning. Readers go on with the old table while the new one is filled and
its indexes are built, and wait only while the names are exchanged. The old table, moved to a schema
of its own, is the backup.
"""

import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import numpy as np

from emberd.errors import StoreBusyError, StoreError, StoreRowsError
from emberd.migrate.base import Key, Row, Stamp
from emberd.migrate.notes import replace_text
from emberd.migrate.pgvector_layout import Layout
from emberd.migrate.postgres import every, explained, literal, one, quoted, run
from emberd.migrate.postgres_table import (
    carry_over,
    create_beside,
    definition,
    name_of,
    obstacles,
    of_one_size,
    take_place,
)

if TYPE_CHECKING:
    from psycopg import Connection

FETCHED = 2000  # rows at a time
SENT = 500
LOCK_S = 5  # how long to wait for transactions that write
MOMENT_S = 2  # how long new readers are kept waiting for the old ones, at a time
MOMENTS = 40
STAMPS = "emberd.spaces"
SIDE = "pg_temp.emberd_side"
HEAD, TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"  # of COPY's binary format


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is in a backup's file: where the old table is, and what the stamp was.

    `schema` and `name` are the table, `of` the store's part, `digest` of what it then held.
    """

    kind: str
    schema: str
    table: str
    of: str
    digest: str
    stamp: str | None

    def write(self, path: Path) -> None:
        """Write it in one step. Raises `StoreError`."""
        replace_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it. Raises `StoreError`."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            raise StoreError(f"{path} is not the note of a table that was kept.") from None

    @property
    def name(self) -> str:
        """The table, quoted for SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"


def rows_of(
    connection: "Connection[Any]", layout: Layout, *, after: Key | None, vectors: bool
) -> Iterator[Row]:
    """Yield the rows that have a vector, in the order of their keys, a few at a time."""
    vector = f", t.{quoted(layout.vector)}" if vectors else ""
    value = str(after) if isinstance(after, int) else literal(str(after))
    later = "" if after is None else f"AND {layout.key_order} > {value}"
    with connection.cursor(name="emberd_rows") as cursor:
        cursor.itersize = FETCHED
        cursor.execute(
            f"SELECT {layout.key_order}, t.{quoted(layout.text)}::text{vector}"
            f" FROM {layout.name} t WHERE {layout.has_vector} {later}"
            f" ORDER BY {layout.key_order}".encode(),
            binary=True,
        )
        for key, text, *rest in cursor:
            yield Row(_key(key), text, _little_endian(rest[0]) if rest else b"")


def _key(key: int | str | UUID) -> Key:
    return str(key) if isinstance(key, UUID) else key


def _little_endian(sent: bytes) -> bytes:
    """Return the numbers of a vector as pgvector sends it: after 4 bytes, big-endian."""
    return np.frombuffer(sent, ">f4", offset=4).astype("<f4").tobytes()


def digest_of(
    connection: "Connection[Any]", oid: int, but: str | None = None, where: str = "true"
) -> str:
    """Return a digest of a table's rows, whatever their order, made by the server.

    It covers every column but one, of the rows for which `where` is true.
    """
    columns = every(
        connection,
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum",
        oid,
    )
    row = ", ".join(f"t.{quoted(name)}" for (name,) in columns if name != but)
    hashed = f"('x' || left(md5(record_send(ROW({row}))), 16))::bit(64)::bigint"
    return str(
        one(
            connection,
            f"SELECT count(*) || ':' || coalesce(sum({hashed}), 0)"
            f" FROM {name_of(connection, oid)} t WHERE {where}",
        )
    )


def digest_with_definition(connection: "Connection[Any]", oid: int, vector: str) -> str:
    """Return a digest of a table's rows and of what it is."""
    about = json.dumps(dict(definition(connection, oid, vector)), sort_keys=True)
    hashed = one(connection, "SELECT md5(%s::text)", about)
    size = one(
        connection,
        "SELECT atttypmod FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attname = %s",
        oid,
        vector,
    )
    return f"{digest_of(connection, oid)}:{hashed}:{size}"


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
    import psycopg

    name = name_of(connection, old)
    for left in reversed(range(MOMENTS)):
        run(connection, "SAVEPOINT moment")
        run(connection, f"SET LOCAL lock_timeout = '{MOMENT_S}s'")
        try:
            run(connection, f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
            break
        except psycopg.errors.DeadlockDetected:
            left = 0  # noqa: PLW2901 - it waits for our lock itself
            run(connection, "ROLLBACK TO moment")
        except psycopg.errors.LockNotAvailable:
            run(connection, "ROLLBACK TO moment")
        if not left:
            holders = every(
                connection,
                "SELECT DISTINCT a.pid, a.application_name FROM pg_catalog.pg_locks l"
                " JOIN pg_catalog.pg_stat_activity a USING (pid) WHERE l.relation = %s"
                " AND l.granted AND a.pid <> pg_backend_pid() ORDER BY 1",
                old,
            )
            who = ", ".join(f"pid {pid} {program}".strip() for pid, program in holders)
            raise StoreBusyError(
                f"{shown}: transactions that have read {name} do not end ({who}). Nothing was"
                " changed.",
                hint="End them, or a program that reads and then writes in one transaction for"
                " the time of the swap; then run this again. What is embedded is kept.",
            )
        time.sleep(MOMENT_S / 4)
    take_place(connection, old, new, keep)


def put_stamp(connection: "Connection[Any]", part: str, stamp: str | None) -> None:
    """Write or delete the stamp of a store."""
    if one(connection, f"SELECT to_regclass('{STAMPS}')") is None:
        run(connection, "CREATE SCHEMA IF NOT EXISTS emberd")
        run(connection, f"CREATE TABLE {STAMPS} (store text PRIMARY KEY, stamp text NOT NULL)")
        # Whoever reads vectors may know whose they are.
        run(connection, "GRANT USAGE ON SCHEMA emberd TO PUBLIC")
        run(connection, f"GRANT SELECT ON {STAMPS} TO PUBLIC")
    if stamp is None:
        run(connection, f"DELETE FROM {STAMPS} WHERE store = %s", part)
    else:
        run(
            connection,
            f"INSERT INTO {STAMPS} VALUES (%s, %s) ON CONFLICT (store) DO UPDATE"
            " SET stamp = excluded.stamp",
            part,
            stamp,
        )


def stamp_of(connection: "Connection[Any]", part: str) -> str | None:
    """Read the stamp of a store."""
    if one(connection, f"SELECT to_regclass('{STAMPS}')") is None:
        return None
    found: str | None = one(connection, f"SELECT stamp FROM {STAMPS} WHERE store = %s", part)
    return found


class PgvectorReplacement:
    """The open transaction; see `emberd.migrate.base.Replacement`.

    Args:
        connection: holds the lock.
        layout: the table.
        part: the store's, under which its stamp is kept.
        shown: the database, for messages.
        keep: returns the schema in which the old table is kept; None to drop it.
    """

    def __init__(
        self,
        connection: "Connection[Any]",
        layout: Layout,
        *,
        part: str,
        shown: str,
        keep: Callable[[], str | None],
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._part = part
        self._shown = shown
        self._keep = keep
        self._new: int | None = None

    @property
    def _table(self) -> int:
        """The table as it will be."""
        return self._layout.oid if self._new is None else self._new

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`."""
        with explained(self._shown):
            yield from rows_of(self._connection, self._layout, after=None, vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Fill another table, with everything as it is in this one, but with these vectors."""
        layout, connection = self._layout, self._connection
        with explained(self._shown):
            if layout.declared != dimensions:
                self._require_any_size()
            given = self._send(vectors)
            new = create_beside(
                connection, layout.oid, f"emberd_new_{_random(connection)}", layout.vector,
                layout.type_for(dimensions),
            )  # fmt: skip
            self._copy(new)
            carry_over(connection, layout.oid, new)
            run(connection, f"ANALYZE {name_of(connection, new)}")
            put_stamp(connection, self._part, stamp.to_json())
            there = one(
                connection,
                f"SELECT count(*) FROM {name_of(connection, new)} t WHERE {layout.has_vector}",
            )
        if there != given:
            raise StoreError(f"{self._shown}: {there} of {given} vectors are in the new table.")
        self._new = new

    def _require_any_size(self) -> None:
        layout = self._layout
        others = one(
            self._connection,
            f"SELECT count(*) FROM {layout.name} t"
            f" WHERE t.{quoted(layout.vector)} IS NOT NULL AND NOT {layout.condition}",
        )
        if others and layout.declared:
            raise StoreRowsError(
                f"{self._shown}: {others} other rows of {layout.name} have vectors of"
                f" {layout.declared} dimensions, and a column vector({layout.declared}) cannot have"
                " both.",
                hint="Remove the size of the column's type, with ALTER TABLE ... ALTER COLUMN"
                f" {quoted(layout.vector)} TYPE vector; then run this again.",
            )
        found = of_one_size(self._connection, layout.oid, layout.vector)
        if found:
            raise StoreError(
                f"{self._shown}: the size of the vectors is in the definition of"
                f" {', '.join(found)}.",
                hint="Drop it, run this again, and create it for the new size.",
            )

    def _send(self, vectors: Iterable[tuple[Key, bytes]]) -> int:
        """Send the vectors to a table that ends with the transaction; return how many."""
        layout, connection = self._layout, self._connection
        key = {"int": "bigint", "uuid": "uuid", "text": "text"}[layout.key_type]
        run(
            connection,
            f"CREATE TEMPORARY TABLE emberd_side (key {key}, vector {layout.extension}.vector)"
            " ON COMMIT DROP",
        )
        run(connection, f"ALTER TABLE {SIDE} ALTER COLUMN vector SET STORAGE EXTERNAL")
        given, left = 0, iter(vectors)
        begin = f"COPY {SIDE} FROM STDIN (FORMAT BINARY)".encode()
        with connection.cursor() as cursor, cursor.copy(begin) as copy:
            copy.write(HEAD)
            while some := list(islice(left, SENT)):
                copy.write(b"".join(_sent(key, *row) for row in some))
                given += len(some)
            copy.write(TAIL)
        run(connection, f"ANALYZE {SIDE}")
        return given

    def _copy(self, new: int) -> None:
        """Copy all rows, with the new vectors in place of the old ones."""
        layout = self._layout
        columns = every(
            self._connection,
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            layout.oid,
        )
        old = f"t.{quoted(layout.vector)}"
        values = ", ".join(
            f"CASE WHEN {layout.condition} THEN s.vector ELSE {old} END"
            if name == layout.vector
            else f"t.{quoted(name)}"
            for (name,) in columns
        )
        run(
            self._connection,
            f"INSERT INTO {name_of(self._connection, new)}"
            f" ({', '.join(quoted(name) for (name,) in columns)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {values} FROM {layout.name} t LEFT JOIN {SIDE} s"
            f" ON s.key = {layout.key_order}",
        )

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of all columns but one, of other rows' vectors, and the definition."""
        layout = self._layout
        with explained(self._shown):
            found = {
                f"rows of {layout.name}": digest_of(self._connection, self._table, layout.vector),
                **definition(self._connection, self._table, layout.vector),
            }
            if layout.condition != "true":
                found["other rows' vectors"] = digest_of(
                    self._connection, self._table, where=f"NOT {layout.condition}"
                )
            return found

    def digest(self) -> str:
        """Return what the store's digest is once this is committed."""
        with explained(self._shown):
            return digest_with_definition(self._connection, self._table, self._layout.vector)

    def commit(self) -> None:
        """Exchange the tables, and commit."""
        with explained(self._shown):
            if self._new is not None:
                keep = self._keep()
                exchange(self._connection, self._layout.oid, self._new, keep, self._shown)
            run(self._connection, "COMMIT")


class PgvectorRestoration:
    """The open transaction; see `emberd.migrate.base.Restoration`.

    Args:
        connection: holds the lock.
        layout: the table as it is.
        token: where the table is that takes its place.
        part: the store's.
        shown: the database, for messages.
    """

    def __init__(
        self, connection: "Connection[Any]", layout: Layout, token: Token, *, part: str, shown: str
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._token = token
        self._part = part
        self._shown = shown
        self._copy: str | None = None

    def copy(self, target: Path) -> None:
        """Note where the table will be kept that is there now; it is moved by `commit`."""
        with explained(self._shown):
            self._copy = f"emberd_undone_{_random(self._connection)}"
            stamp = stamp_of(self._connection, self._part)
        Token(
            kind=self._token.kind, schema=self._copy, table=self._layout.table, of=self._part,
            digest=self.digest(), stamp=stamp,
        ).write(target)  # fmt: skip

    def digest(self) -> str:
        """Return the digest of what is there now."""
        with explained(self._shown):
            return digest_with_definition(self._connection, self._layout.oid, self._layout.vector)

    def commit(self) -> None:
        """Exchange the tables, restore the stamp, and commit."""
        connection = self._connection
        with explained(self._shown):
            old = one(connection, "SELECT %s::regclass::oid", self._token.name)
            put_stamp(connection, self._part, self._token.stamp)
            exchange(connection, self._layout.oid, int(old), self._copy, self._shown)
            run(connection, "COMMIT")


def _random(connection: "Connection[Any]") -> str:
    return str(one(connection, "SELECT left(replace(gen_random_uuid()::text, '-', ''), 12)"))


def _sent(key_type: str, key: Key, vector: bytes) -> bytes:
    """Return a row of two columns in COPY's binary format."""
    if key_type == "bigint":
        raw = struct.pack(">q", key)
    else:
        raw = UUID(str(key)).bytes if key_type == "uuid" else str(key).encode()
    numbers = np.frombuffer(vector, "<f4").astype(">f4").tobytes()
    sizes = struct.pack(">ihh", 4 + len(numbers), len(numbers) // 4, 0)
    return struct.pack(">hi", 2, len(raw)) + raw + sizes + numbers
