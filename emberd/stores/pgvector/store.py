"""Store kind `pgvector`: a table of Postgres with a column of the extension pgvector."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emberd.config.paths import without_password
from emberd.errors import StoreError
from emberd.stores.base import Cost, Key, Lacking, Replacement, Restoration, Row, Shape, Stamp
from emberd.stores.pgvector.kept import PgvectorRestoration, Token, stamp_of
from emberd.stores.pgvector.layout import OURS, Layout, Wanted, layout_of
from emberd.stores.pgvector.lock import lock, schema_named
from emberd.stores.pgvector.postgres import DRIVER, SCHEMES, connected, every, one, quoted, run
from emberd.stores.pgvector.replace import PgvectorReplacement
from emberd.stores.pgvector.rows import digest_with_definition, rows_of

if TYPE_CHECKING:
    from emberd.stores.pgvector.postgres import Connection

COPIED_BYTES_PER_S = 20e6  # of vectors and rows, into a table and through its digests
INDEXED_PER_S = 500.0  # vectors of 384 numbers that HNSW takes in, on a core
READ_PER_S = 150_000.0  # rows whose texts are compared


class PgvectorStore:
    """Any table with a column of the type `vector`.

    Args:
        url: the database, as libpq takes it: postgresql://user@host:port/database.
        table: the table, `SCHEMA.TABLE` or `TABLE`; required if several have vectors.
        vector: its vector column; required if it has several.
        text: its column with the text that was embedded; required if it has several texts.
        id: a unique column, of the type integer, bigint, text or uuid; by default the primary key.
    """

    kind: ClassVar[str] = "pgvector"
    on_server: ClassVar[bool] = True
    on_disk: ClassVar[bool] = False
    parts_apart: ClassVar[bool] = True
    path: None = None
    settings: Path | None = None

    def __init__(
        self,
        url: str,
        *,
        table: str | None = None,
        vector: str | None = None,
        text: str | None = None,
        id: str | None = None,
    ) -> None:
        self._url = DRIVER.sub("", url)  # SQLAlchemy's URLs name one
        self.address = without_password(self._url)
        self.wanted = Wanted(table=table, vector=vector, text=text, id=id)
        self._part: str | None = None
        self._keep: str | None = None

    @classmethod
    def recognises(cls, place: str) -> bool:
        """Whether it is the URL of a Postgres database."""
        return bool(SCHEMES.match(str(place)))

    @property
    def part(self) -> str:
        """The table and the column: a database may have several."""
        if self._part is None:
            with self._reading() as (_, layout):
                self._part = self._part_of(layout)
        return self._part

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        with self._reading() as (connection, layout):
            vector, text = f"t.{quoted(layout.vector)}", f"t.{quoted(layout.text)}"
            ((rows, bare, size),) = every(
                connection,
                f"SELECT count({vector}), count(*) FILTER (WHERE {vector} IS NULL"
                f" AND {text} <> ''), mode() WITHIN GROUP (ORDER BY"
                f" {layout.extension}.vector_dims({vector}))"
                f" FROM {layout.name} t WHERE {layout.condition}",
            )
            return Shape(rows=rows, dimensions=layout.declared or size or 0, without_vector=bare)

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield rows; see `Store`."""
        with self._reading() as (connection, layout):
            yield from rows_of(connection, layout, after=after, vectors=vectors)

    def lacking(self) -> Lacking:
        """Ask the server for the rows that lack one of the two; see `Store`."""
        with self._reading() as (connection, layout):
            vector, text = f"t.{quoted(layout.vector)}", f"t.{quoted(layout.text)}"

            def keys(condition: str) -> list[Key]:
                found = every(
                    connection,
                    f"SELECT {layout.key_order}{'::text' if layout.key_type == 'uuid' else ''}"
                    f" FROM {layout.name} t WHERE {layout.condition} AND {condition}"
                    f" ORDER BY {layout.key_order}",
                )
                return [key for (key,) in found]

            return Lacking(
                text=keys(f"{vector} IS NOT NULL AND coalesce({text}, '') = ''"),
                vector=keys(f"{vector} IS NULL AND {text} <> ''"),
            )

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Ask the table's own index, by the distance that it is for; without one, the cosine."""
        numbers = np.frombuffer(vector, "<f4").tolist()
        with self._reading() as (connection, layout):
            self._before_search(connection)
            key = f"t.{quoted(layout.key)}{'::text' if layout.key_type == 'uuid' else ''}"
            found = every(
                connection,
                f"SELECT {key} FROM {layout.name} t WHERE {layout.has_vector}"
                f" ORDER BY t.{quoted(layout.vector)} {layout.operator(layout.nearest)}"
                f" '{numbers}'::{layout.extension}.vector LIMIT {count}",
            )
            return [key for (key,) in found]

    def stamp(self) -> Stamp | None:
        """Read it from the table `emberd.spaces`."""
        with self._reading() as (connection, layout):
            found = stamp_of(connection, self._part_of(layout))
        return Stamp.from_json(found) if found else None

    def cost(self, dimensions: int) -> Cost:
        """Estimate it from the table's size; the server keeps the old table."""
        shape = self.inspect()
        with self._reading() as (connection, layout):
            heap = int(one(connection, "SELECT pg_table_size(%s::oid)", layout.oid))
            indexes = int(
                one(
                    connection,
                    "SELECT count(*) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c"
                    " ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam"
                    " WHERE i.indrelid = %s AND a.amname IN ('hnsw', 'ivfflat')",
                    layout.oid,
                )
            )
        copied = shape.rows * 4 * dimensions + heap
        return Cost(
            backup_bytes=0,  # on the server, which `caveats` says
            swap_bytes=0,
            locked_s=0.2
            + copied / COPIED_BYTES_PER_S
            + shape.rows / READ_PER_S
            + indexes * shape.rows * dimensions / 384 / INDEXED_PER_S,
        )

    @property
    def caveats(self) -> Sequence[str]:
        """What the server needs, and which moment readers notice."""
        with self._reading() as (connection, layout):
            size = one(
                connection, "SELECT pg_size_pretty(2 * pg_total_relation_size(%s::oid))", layout.oid
            )
        return (
            f"Room on the server's own disk: a run needs about {size}, as the old table is kept.",
            "A transaction at the level REPEATABLE READ that began before the swap and first reads"
            " the table after it finds it empty.",
        )

    def digest(self) -> str:
        """Let the server read the whole table, because a backup is all of it."""
        with self._reading() as (connection, layout):
            return digest_with_definition(connection, layout.oid, layout.vector)

    def backup(self, target: Path) -> None:
        """Note where the old table will be: the commit that replaces it moves it there."""
        self._keep = schema_named("backup")
        with self._reading() as (connection, layout):
            part = self._part_of(layout)
            Token(
                kind=self.kind, schema=self._keep, table=layout.table, of=part,
                digest=digest_with_definition(connection, layout.oid, layout.vector),
                stamp=stamp_of(connection, part),
            ).write(target)  # fmt: skip

    def check_backup(self, backup: Path) -> None:
        """Compare the table that was kept with its digest."""
        token = Token.read(backup)
        with self._reading() as (connection, layout):
            if token.of != self._part_of(layout):
                raise StoreError(f"it is of {token.of}, not of {self._part_of(layout)}.")
            kept = one(connection, "SELECT to_regclass(%s)::oid", token.name)
            if kept is None:
                raise StoreError(f"the table {token.name} is gone.")
            if digest_with_definition(connection, int(kept), layout.vector) != token.digest:
                raise StoreError(f"the table {token.name} is not what it was.")

    def discard_backup(self, backup: Path) -> None:
        """Drop the table that was kept, and its schema."""
        token = Token.read(backup)
        with connected(self._url, write=True) as connection:
            ours = one(connection, "SELECT %s ~ %s", token.schema, OURS)
            there = one(connection, "SELECT to_regnamespace(%s)", quoted(token.schema))
            if ours and there:
                run(connection, f"DROP TABLE IF EXISTS {token.name}")
                run(connection, f"DROP SCHEMA {quoted(token.schema)}")
                run(connection, "COMMIT")

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        """Hold a lock under which others read, but do not write."""
        self._keep = None
        with connected(self._url, write=True) as connection:
            layout = self._locked(connection)
            yield PgvectorReplacement(  # type: ignore[misc]  # it lacks what is optional
                connection, layout, part=self._part_of(layout), shown=self.address,
                keep=lambda: self._keep,
            )  # fmt: skip

    @contextmanager
    def restoring(self, backup: Path) -> Iterator[Restoration]:
        """Hold that lock, and the old table."""
        token = Token.read(backup)
        with connected(self._url, write=True) as connection:
            layout = self._locked(connection)
            run(connection, f"LOCK TABLE {token.name} IN ACCESS EXCLUSIVE MODE")
            yield PgvectorRestoration(
                connection, layout, token, part=self._part_of(layout), shown=self.address
            )

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: this kind has no settings."""
        del model, dimensions
        return text

    # -- internal, and for subclasses ---------------------------------------------------------

    def _part_of(self, layout: Layout) -> str:
        return layout.part

    def _before_search(self, connection: "Connection[Any]") -> None:
        """Settings for a search."""

    def _locked(self, connection: "Connection[Any]") -> Layout:
        layout = layout_of(connection, self.address, self.wanted)
        lock(connection, layout, self.address)
        return layout_of(connection, self.address, self.wanted)  # it may have been replaced

    @contextmanager
    def _reading(self) -> "Iterator[tuple[Connection[Any], Layout]]":
        with connected(self._url) as connection:
            yield connection, layout_of(connection, self.address, self.wanted)
