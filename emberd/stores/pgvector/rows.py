"""Rows of a table in Postgres: read in order, sent as COPY's binary format, and their digest."""

import json
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from emberd.stores.base import Key, Row
from emberd.stores.pgvector.layout import Layout
from emberd.stores.pgvector.postgres import every, literal, one, quoted
from emberd.stores.pgvector.postgres_table import definition, name_of

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

FETCHED = 2000  # rows at a time, without their vectors
SENT = 500  # with them
HEAD, TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"  # of COPY's binary format


def rows_of(
    connection: "Connection[Any]", layout: Layout, *, after: Key | None, vectors: bool
) -> Iterator[Row]:
    """Yield the rows that have a vector, in the order of their keys, a few at a time."""
    vector = f", t.{quoted(layout.vector)}" if vectors else ""
    value = str(after) if isinstance(after, int) else literal(str(after))
    later = "" if after is None else f"AND {layout.key_order} > {value}"
    with connection.cursor(name="emberd_rows") as cursor:
        cursor.itersize = SENT if vectors else FETCHED
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


def send(
    connection: "Connection[Any]", table: str, key_type: str, vectors: Iterable[tuple[Key, bytes]]
) -> int:
    """Send keys, of this SQL type, and vectors to a table of these two; return how many."""
    given, left = 0, iter(vectors)
    begin = f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()
    with connection.cursor() as cursor, cursor.copy(begin) as copy:
        copy.write(HEAD)
        while some := list(islice(left, SENT)):
            copy.write(b"".join(_sent(key_type, *row) for row in some))
            given += len(some)
        copy.write(TAIL)
    return given


def _sent(key_type: str, key: Key, vector: bytes) -> bytes:
    """Return a row of two columns in COPY's binary format."""
    if key_type == "bigint":
        raw = struct.pack(">q", key)
    else:
        raw = UUID(str(key)).bytes if key_type == "uuid" else str(key).encode()
    numbers = np.frombuffer(vector, "<f4").astype(">f4").tobytes()
    sizes = struct.pack(">ihh", 4 + len(numbers), len(numbers) // 4, 0)
    return struct.pack(">hi", 2, len(raw)) + raw + sizes + numbers
