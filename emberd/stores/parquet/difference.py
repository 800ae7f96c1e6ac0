"""Two states of an old file, and its new one, row by row: what was written too late for a swap.

What the old file has now that its copy had not goes into the new file, except rows that somebody
has changed there too, as that is newer. Rows are compared on disk, so memory does not grow.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import StoreError
from emberd.stores import arrow
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.parquet.files import Broken, Columns, keys_in
from emberd.stores.parquet.rewrite import settled, writer_like
from emberd.stores.scratch import BATCH

# `has` says whether there is a vector; `digest` is of all else, and NULL where a state has no such
# row. What is new `elsewhere` was written there by somebody, and later.
CHANGED = """
SELECT old.key, old.text, old.has AND old.text <> '' FROM old
LEFT JOIN copied USING (key) LEFT JOIN new USING (key)
WHERE ((old.digest, old.has) IS NOT (copied.digest, copied.has) AND new.digest IS copied.digest
       AND (old.digest, old.has) IS NOT (new.digest, new.has)
       AND key NOT IN (SELECT key FROM elsewhere))
   OR (old.digest IS new.digest AND old.has AND NOT new.has)
"""
ADDED = "SELECT 1 FROM old LEFT JOIN new USING (key) WHERE new.digest IS NULL"
GONE = """
SELECT key FROM copied JOIN new USING (key)
WHERE new.digest = copied.digest AND key NOT IN (SELECT key FROM old)
"""
WRITTEN = """
SELECT 1 FROM new LEFT JOIN copied USING (key) LEFT JOIN old USING (key)
WHERE new.digest IS NOT copied.digest AND new.digest IS NOT old.digest
"""


class Difference:
    """A context manager.

    Args:
        columns: of the store.
        plain: the plain name of the file.
        old: what is kept, now; None if it was deleted.
        copied: what the swap has copied of it; None if there was no such file.
        new: what is in the store; None if there is nothing.
        others: returns the files of the store that were written since the swap, but for `new`.
    """

    def __init__(
        self, columns: Columns, plain: str, *, old: Path | None, copied: Path | None,
        new: Path | None, others: Callable[[], Iterable[Path]],
    ) -> None:  # fmt: skip
        self._columns = columns
        self._plain = plain
        self.old = old
        self.new = new
        self._db = apsw.Connection("")  # a temporary file, gone when it is closed
        self._db.pragma("journal_mode", "off")
        self._db.execute("CREATE TABLE elsewhere(key PRIMARY KEY)")
        for state, file in (("old", old), ("copied", copied), ("new", new)):
            self._db.execute(
                f"CREATE TABLE {state}(key PRIMARY KEY, digest BLOB, text TEXT, has INTEGER)"
            )
            if file:
                self._put_into(f"{state} VALUES (?, ?, ?, ?)", self._rows(file))
        if columns.id is None:
            if self._db.execute(WRITTEN).get:  # nothing tells rows of two writers apart
                self._db.execute("DELETE FROM old; DELETE FROM copied")
        elif self._db.execute(ADDED).get:
            for file in others():
                self._put_into("elsewhere VALUES (?)", self._keys(file))

    def _put_into(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._db:
            self._db.executemany(f"INSERT OR REPLACE INTO {table}", rows)

    def close(self) -> None:
        """Free its disk."""
        self._db.close()

    def _rows(self, file: Path) -> Iterator[tuple[Key, bytes, str | None, bool]]:
        columns, first = self._columns, 0
        with parquet.ParquetFile(file) as opened:
            columns.require_in(opened.schema_arrow, file)
            for batch in opened.iter_batches(batch_size=BATCH):
                keys = keys_in(batch, columns, self._plain, first)
                texts = arrow.texts_of(batch.column(columns.text))
                has = batch.column(columns.vector).is_valid().to_pylist()
                others = sorted({*batch.schema.names} - {columns.vector})
                rows = batch.select(others).to_pylist()
                for key, row, text, there in zip(keys, rows, texts, has, strict=True):
                    yield key, hashlib.blake2b(repr(row).encode()).digest(), text, there
                first += len(batch)

    def _keys(self, file: Path) -> Iterator[tuple[Key]]:
        with suppress(*Broken), parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=BATCH, columns=[self._columns.id]):
                yield from ((key,) for key in arrow.keys_of(batch.column(0), str(file)))

    def lacking(self) -> Iterator[Row]:
        """Yield the rows that have to be embedded."""
        for key, text, wants in self._db.execute(CHANGED):
            if wants:
                yield Row(key, text)

    def plan(self, given: Mapping[Key, bytes]) -> tuple[set[Key], set[Key], bool]:
        """Return which rows to put, and to delete, with these vectors; and if that is all."""
        changed = list(self._db.execute(CHANGED))
        put = {key for key, _, wants in changed if key in given or not wants}
        gone = {key for (key,) in self._db.execute(GONE)} if self.new else set()
        return put, gone, len(put) == len(changed)

    def write(
        self, target: Path, put: set[Key], gone: set[Key], given: Mapping[Key, bytes], stamp: Stamp
    ) -> bool:
        """Write the new file with these changes; False if no row is left.

        A row group of each file is in memory at a time, with the rows to put.
        """
        late = self._late(put, given, stamp.dimensions)
        like = self.new or self.old
        assert like  # there is something to write
        with parquet.ParquetFile(like) as opened:
            before = opened.schema_arrow if self.new else late.schema
            schema = _both(before, late.schema, like)
            schema = schema.with_metadata(arrow.stamped(opened.schema_arrow.metadata, stamp))
            late, rows = _as(late, schema), 0
            keys = keys_in(late, self._columns, self._plain, 0)
            if self._columns.id is None:  # numbers of rows, which are in order
                keys = sorted(put)
            places = {key: at for at, key in enumerate(keys)}
            with writer_like(opened, target, schema) as writer:
                first = 0
                for number in range(opened.num_row_groups if self.new else 0):
                    table = opened.read_row_group(number)
                    found = keys_in(table, self._columns, self._plain, first)
                    first += len(table)
                    wanted = [
                        len(table) + places.pop(key) if key in places else at
                        for at, key in enumerate(found)
                        if key not in gone
                    ]
                    both = pa.concat_tables([_as(table, schema), late])
                    writer.write_table(
                        both.take(pa.array(wanted, pa.int64())), row_group_size=max(1, len(wanted))
                    )
                    rows += len(wanted)
                rest = late.take(pa.array(sorted(places.values()), pa.int64()))
                writer.write_table(rest)
        settled(target, like)
        return bool(rows + len(rest))

    def _late(self, put: set[Key], given: Mapping[Key, bytes], dimensions: int) -> pa.Table:
        """Return the rows to put, with their new vectors."""
        columns, first, tables = self._columns, 0, []
        if self.old is None:
            assert self.new  # or there is nothing to do
            return parquet.read_schema(self.new).empty_table()
        with parquet.ParquetFile(self.old) as opened:
            for number in range(opened.num_row_groups):
                table = opened.read_row_group(number)
                keys = keys_in(table, columns, self._plain, first)
                first += len(table)
                tables.append(
                    self._vectors(
                        table.filter(pa.array([key in put for key in keys], pa.bool_())),
                        [given.get(key) for key in keys if key in put],
                        dimensions,
                    )
                )
            if not tables:
                tables = [self._vectors(opened.schema_arrow.empty_table(), [], dimensions)]
        return pa.concat_tables(tables)

    def _vectors(self, table: pa.Table, raw: list[bytes | None], dimensions: int) -> pa.Table:
        place = table.schema.get_field_index(self._columns.vector)
        values = np.zeros((len(raw), dimensions), np.float32)
        missing = np.array([each is None for each in raw], np.bool_)
        for at, each in enumerate(raw):
            if each is not None:
                values[at] = np.frombuffer(each, "<f4")
        field = table.schema.field(place)
        kind = arrow.resized(field.type, dimensions)
        column = arrow.vector_array(values, missing, kind)
        return table.set_column(place, field.with_type(kind).with_nullable(True), column)


def _both(one: pa.Schema, other: pa.Schema, file: Path) -> pa.Schema:
    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise StoreError(
            f"{file}: its columns have been given other types while it was replaced ({error}).",
            hint="Run this again once no program changes the columns.",
        ) from None


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema; NULL in those that it has not."""
    columns: list[Any] = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
