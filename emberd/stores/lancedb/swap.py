"""The swap of a Lance table's column of vectors, and its undo: one version each.

`fill` writes the new column into files of its own, beside those of the other columns. The version
that is committed has these files in place of the old column, under its name and with a new number,
so an index of the old vectors is not used for the new ones. Lance takes it only if nobody has
committed another version since; then it is made again on top of that one. Rows that were written in
between are in it without a vector, and noted in the column's metadata until they have one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.file import LanceFileReader
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from emberd.errors import StoreBusyError, StoreError
from emberd.stores import arrow
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.lancedb.table import INDEXES, LATE, LanceTable
from emberd.stores.scratch import BATCH, Vectors, positions

if TYPE_CHECKING:
    from emberd.stores.lancedb.store import LanceDBStore

NEW = "emberd_new"  # the column, until it gets the old one's name
TRIES = 1000  # to commit, beside writers that commit all the time
KEEP_ROWS = {"Append", "Delete", "Update", "CreateIndex", "ReserveFragments"}  # and columns


class LanceReplacement:
    """A version of the table; see `emberd.stores.base.Replacement`.

    `scratch` is a folder for a temporary file; `tag` returns the name under which Lance keeps the
    version that the swap replaces.
    """

    def __init__(self, table: LanceTable, scratch: Path, *, tag: Callable[[], str | None]) -> None:
        self._table = table
        self._scratch = scratch
        self._tag = tag
        self._stamp: Stamp | None = None
        self._files: dict[int, Any] = {}  # of the new column, by the number of the fragment
        self._nulls: dict[
            str, Any
        ] = {}  # such files without vectors, by the others of the fragment
        self._schema: LanceSchema | None = None  # with both columns

    def rows(self) -> Iterator[Row]:
        """Yield the rows of this version."""
        return self._table.rows(after=None, vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Write the new column for each fragment; nothing of it is seen before `commit`."""
        table = self._table
        sweep(table)
        kind = arrow.resized(table.field.type, dimensions)
        schema = pa.schema([pa.field(NEW, kind)])
        with Vectors(4 * dimensions, self._scratch) as placed:
            placed.put(positions(table.keys.after(None), vectors))
            first = 0
            for fragment in table.dataset.get_fragments():
                count = fragment.count_rows()
                batches = _batches(placed, first, count, schema)
                reader = pa.RecordBatchReader.from_batches(schema, batches)
                made, self._schema = fragment.merge_columns(reader)
                self._files[made.id] = made.files[-1]
                first += count
        if self._schema is None:  # no rows, so its numbers of columns mean nothing yet
            both = table.dataset.schema.append(schema.field(NEW))
            self._schema = LanceSchema.from_pyarrow(both)
        self._stamp = stamp

    def unmoved(self) -> Mapping[str, str]:
        """Return the files that hold the other columns, which stay, and their definitions."""
        dataset, vector = self._table.dataset, self._table.vector
        schema = self._schema.to_pyarrow() if self._schema else dataset.schema
        found = {
            f"fragment {each.fragment_id}": repr((each.data_files(), each.deletion_file()))
            for each in dataset.get_fragments()
        }
        kept = [field for field in schema if field.name not in (vector, NEW)]
        return {**found, "the other columns": repr([(each, each.metadata) for each in kept])}

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Give vectors to rows that have none, in one version; others are left as they are."""
        table, given = self._table, dict(vectors)
        texts = {row.key: row.text for row in table.late() if row.key in given}
        pairs = [(key, raw) for key, raw in given.items() if key in texts]
        if not pairs:
            return
        keys = [key for key, _ in pairs]
        schema = table.dataset.schema
        values, missing = arrow.matrix_of([raw for _, raw in pairs])
        source = pa.table(
            [
                pa.array(keys, schema.field(table.id).type),
                pa.array([texts[key] for key in keys], schema.field(table.text).type),
                arrow.vector_array(values, missing, table.field.type),
            ],
            names=[table.id, table.text, table.vector],
        )
        same = f"target.`{table.vector}` IS NULL AND source.`{table.text}` = target.`{table.text}`"
        table.dataset.merge_insert(table.id).when_matched_update_all(same).execute(source)

    def digest(self) -> str:
        """Return what the digest is as long as nobody writes after the swap."""
        assert self._stamp  # `fill` was called
        return f"{self._stamp.migration} and 0"

    def commit(self) -> None:
        """Commit the version that has the new column, then make its index again."""
        if self._stamp is None:  # rows were only completed, and are committed
            return
        for _ in range(TRIES):
            latest = self._table.latest()
            self._require_same_rows(latest)
            if tag := self._tag():
                latest.tag(tag, latest.version)
            fragments, late = self._fragments(latest)
            operation = lance.LanceOperation.Merge(fragments, self._renamed(latest, late))
            try:
                lance.LanceDataset.commit(
                    latest.dataset, operation, read_version=latest.version, max_retries=0,
                    commit_message=self._stamp.migration,
                )  # fmt: skip
            except CommitConflictError:
                continue
            break
        else:
            raise StoreBusyError(f"{self._table.folder} is written to all the time.")
        make_indexes(self._table.latest())

    def _require_same_rows(self, latest: LanceTable) -> None:
        """Raise `StoreBusyError` if rows were moved since, so that the new files do not fit."""
        made = self._table.operations(self._table.version + 1, latest.version)
        other = next((name for name in made if name not in KEEP_ROWS), None)
        if other:
            raise StoreBusyError(
                f"{self._table.folder} was rewritten meanwhile ({other}), by a compaction or a"
                " change of its columns.",
                hint="Run this again when that is over; what is embedded is kept.",
            )

    def _fragments(self, latest: LanceTable) -> tuple[list[FragmentMetadata], list[int]]:
        """Return the fragments with the new column, and which are newer: they have NULLs there."""
        before = {
            each.fragment_id: each.data_files() for each in self._table.dataset.get_fragments()
        }
        found, late = [], []
        for fragment in latest.dataset.get_fragments():
            number, files = fragment.fragment_id, fragment.data_files()
            if repr(before.get(number)) == repr(files):
                file = self._files[number]
            else:
                late.append(number)
                file = self._nulls.get(repr(files)) or self._empty_column(fragment)
                self._nulls[repr(files)] = file
            found.append(replace(fragment.metadata, files=[*fragment.metadata.files, file]))
        return found, late

    def _empty_column(self, fragment: "lance.LanceFragment") -> Any:  # noqa: ANN401 - Lance's
        """Write the new column of a fragment that is newer than the others, all NULL."""
        assert self._schema  # `fill` was called
        schema = pa.schema([self._schema.to_pyarrow().field(NEW)])
        count = fragment.count_rows()
        nulls = (
            pa.record_batch(
                [pa.nulls(min(BATCH, count - at), schema.field(NEW).type)], schema=schema
            )
            for at in range(0, count, BATCH)
        )
        made, _ = fragment.merge_columns(pa.RecordBatchReader.from_batches(schema, nulls))
        return made.files[-1]

    def _renamed(self, latest: LanceTable, late: list[int]) -> LanceSchema:
        """Return the schema with the new column in the place, and under the name, of the old."""
        assert self._schema and self._stamp  # `fill` was called
        name = self._table.vector
        notes = {
            **arrow.stamped(self._table.field.metadata, self._stamp),
            LATE: json.dumps({"version": latest.version, "fragments": late}).encode(),
            INDEXES: json.dumps(latest.indexes() or latest.wanted_indexes()).encode(),
        }
        # The fields are messages of protobuf, as the format has them: 2 is the name, 10 an entry of
        # the metadata, which has 1 and 2, key and value.
        make, (metadata, *fields) = _reduced(self._schema)
        tops = [field.name() for field in self._schema.fields()]
        if len(fields) != len(_all(self._schema)):
            raise StoreError(f"{self._table.folder}: its columns cannot be read.")
        starts = dict(zip(_all(self._schema), fields, strict=True))
        new = starts[(NEW,)].replace(_part(2, NEW.encode()), _part(2, name.encode()), 1)
        new += b"".join(_part(10, _part(1, key) + _part(2, value)) for key, value in notes.items())
        kept = [new if path == (name,) else raw for path, raw in starts.items() if path != (NEW,)]
        schema: LanceSchema = make(metadata, *kept)
        made = schema.to_pyarrow()
        if made.names != tops[:-1] or arrow.stamp_in(made.field(name).metadata) != self._stamp:
            raise StoreError(f"{self._table.folder}: its columns cannot be written as planned.")
        return schema


class LanceRestoration:
    """The table, to be put back to a version; see `emberd.stores.base.Restoration`."""

    def __init__(self, store: "LanceDBStore", table: LanceTable, tag: str) -> None:
        self._store = store
        self._table = table
        self._tag = tag
        self._copy: str | None = None

    def copy(self, target: Path) -> None:
        """Have Lance keep the present version under a tag."""
        self._copy = self._store.keep(target)

    def digest(self) -> str:
        """Return the digest of the version before."""
        return self._table.latest().digest()

    def commit(self) -> None:
        """Restore the version as a new one; the copy has all that was there just before."""
        version = self._table.tagged(self._tag)
        if version is None:
            raise StoreError(f"{self._table.folder} no longer has the tag {self._tag}.")
        latest = self._table.latest()
        made = lance.LanceDataset.commit(
            latest.dataset, lance.LanceOperation.Restore(version), read_version=latest.version
        )
        if self._copy:
            self._table.tag(self._copy, made.version - 1)


def make_indexes(table: LanceTable) -> None:
    """Make the indexes on the vectors again that the swap dropped; one that fails is left out.

    Until then, Lance compares with every row: right, but slow. `LanceTable.caveats` says so.
    """
    for index in table.wanted_indexes():
        sub = index["sub_vectors"]
        with suppress(ValueError, OSError, RuntimeError, KeyError):
            table.dataset.create_index(
                table.vector, index["type"], name=index["name"], metric=index["metric"],
                num_partitions=index["partitions"],
                num_sub_vectors=sub if sub and table.dimensions % sub == 0 else None,
                **({"num_bits": index["bits"]} if index["bits"] else {}),
            )  # fmt: skip


def sweep(table: LanceTable) -> None:
    """Delete files of new columns that no version has, of a fill that was killed.

    Nobody else's file has just this column, and no other migration of the table is under way.
    """
    data = table.folder / "data"
    unknown = {file.name for file in data.glob("*.lance")} - table.files()
    ours = {name for name in unknown if _columns(data / name) == [NEW]}
    if ours:
        for version in table.dataset.versions():
            ours -= table.at(version["version"]).files()
    for name in ours:
        (data / name).unlink(missing_ok=True)


def _columns(file: Path) -> list[str]:
    """Return the names of a data file's columns; none if it is not complete."""
    try:
        return list(LanceFileReader(str(file)).metadata().schema.names)
    except (ValueError, OSError, RuntimeError):
        return []


def _batches(
    placed: Vectors, first: int, count: int, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the vectors of a fragment as they lie in it."""
    for at in range(0, count, BATCH):
        values, missing = placed.read(first + at, min(BATCH, count - at))
        column = arrow.vector_array(values, missing, schema.field(NEW).type)
        yield pa.record_batch([column], schema=schema)


def _reduced(schema: LanceSchema) -> tuple[Any, Any]:
    """Return what a schema is pickled as: a function, its metadata, and each field's message."""
    found: Any = schema.__reduce__()
    return found[0], found[1]


def _all(schema: LanceSchema) -> list[tuple[str, ...]]:
    """Return the paths of all columns, each followed by those inside it."""
    found: list[tuple[str, ...]] = []

    def walk(fields: Any, above: tuple[str, ...]) -> None:  # noqa: ANN401 - Lance's
        for field in fields:
            path = (*above, field.name())
            found.append(path)
            walk(field.children(), path)

    walk(schema.fields(), ())
    return found


def _part(number: int, raw: bytes) -> bytes:
    """Return a field of a message of protobuf, of bytes."""
    return _number(number << 3 | 2) + _number(len(raw)) + raw


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
