"""Parquet files, one or a folder of them: what is there, its rows by key, and writing one anew.

All rows are read once for each state of the files: keys and texts are sorted in a temporary file,
and vectors are kept in another, by position. So a pass goes on undisturbed when files change.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import NotAStoreError, StoreError
from emberd.migrate import arrow
from emberd.migrate.base import Key, Lacking, Row, Shape, Stamp
from emberd.migrate.scratch import BATCH, Keys, Vectors

ENDS = (".parquet", ".pq")
LISTINGS = 20  # of a folder that changes all the time
ITSELF = "."  # the name of a store's only file
Signature = tuple[int, int, int]  # size, time of the last change, inode
Broken = (pa.ArrowInvalid, OSError)


@dataclass(frozen=True)
class Columns:
    """The columns of a store; without `id`, file and number of the row are the key."""

    vector: str
    text: str
    id: str | None


def tree(place: Path) -> dict[str, Signature]:
    """Return all files of a store by name, in the order of their rows' keys."""
    if not place.is_dir():
        found = {ITSELF: place}
    else:
        found = {each.relative_to(place).as_posix(): each for each in _listed(place)}
    known = {}
    for name in sorted(found, key=lambda name: f"{name}:"):
        try:
            status = found[name].stat()
        except FileNotFoundError:  # deleted by now
            continue
        if found[name].is_file():
            known[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return known


def _listed(place: Path) -> set[Path]:
    """Return what is in a folder: listings that agree, as one may miss a file being renamed."""
    before: set[Path] | None = None
    for _ in range(LISTINGS):
        found = set(place.rglob("*"))
        if found == before:
            break
        before = found
    return found


def is_data(name: str) -> bool:
    """Whether a file of a store holds rows; readers leave those with `_` or `.` out."""
    parts = name.split("/")
    return name == ITSELF or (name.endswith(ENDS) and not any(p[0] in "._" for p in parts))


def within(place: Path, name: str) -> Path:
    """Return the path of a file of a store."""
    return place if name == ITSELF else place / name


def digest_of(files: Mapping[str, Signature]) -> str:
    """Return a digest of names, sizes and times."""
    listed = repr([(name, size, time) for name, (size, time, _) in files.items()])
    return hashlib.blake2b(listed.encode(), digest_size=16).hexdigest()


def columns_in(schema: pa.Schema, options: Mapping[str, str | None], where: str) -> Columns:
    """Return the columns that options name, or that are there. Raises `NotAStoreError`."""
    vector = arrow.column(schema, options["vector"], "vector", where)
    arrow.require_float32(schema, vector, where)
    text = arrow.column(schema, options["text"], "text", where)
    named = options["id"]
    if named is None and "id" in schema.names and arrow.is_key(schema.field("id").type):
        named = "id"
    return Columns(vector, text, named and arrow.column(schema, named, "id", where))


def stamp_of(place: Path) -> Stamp | None:
    """Return the stamp of the first file that has one: files that others added have none."""
    for name in filter(is_data, tree(place)):
        try:
            stamp = arrow.stamp_in(parquet.read_schema(within(place, name)).metadata)
        except Broken:  # it is being written, or gone
            continue
        if stamp:
            return stamp
    return None


@dataclass
class Part:
    """One file in a snapshot: its rows begin at position `first`."""

    name: str
    first: int
    rows: int
    signature: Signature


@dataclass
class Batch:
    """Some rows of one file, in their order; `vectors` are None where there is none."""

    first: int
    keys: list[Key]
    texts: list[str | None]
    vectors: list[bytes | None]


def called(place: Path, name: str) -> str:
    """Return how the keys of a file's rows begin, if they have no column."""
    return place.name if name == ITSELF else name


def keys_in(table: Any, columns: Columns, name: str, first: int) -> list[Key]:  # noqa: ANN401 - Arrow's
    """Return the keys of some rows of a file; `first` is the number of the first one."""
    if columns.id:
        return arrow.keys_of(table.column(columns.id), name)
    return [f"{name}:{first + of:012}" for of in range(len(table))]


def batches(file: Path, columns: Columns, name: str) -> Iterator[Batch]:
    """Read a file; `name` is how its rows' keys begin, if they have no column."""
    with parquet.ParquetFile(file) as opened:
        wanted = list(filter(None, (columns.vector, columns.text, columns.id)))
        missing = [each for each in wanted if each not in opened.schema_arrow.names]
        if missing:
            raise NotAStoreError(
                f"{file} has no column {missing[0]}, but other files of the store have.",
                hint="Keep such files in another folder.",
            )
        first = 0
        for read in opened.iter_batches(batch_size=BATCH, columns=wanted):
            keys = keys_in(read, columns, name, first)
            texts = arrow.texts_of(read.column(columns.text))
            yield Batch(first, keys, list(texts), arrow.vectors_of(read.column(columns.vector)))
            first += len(read)


@dataclass
class Snapshot:
    """The rows of a store as they were at one moment, by key; `scratch` is for temporary files."""

    place: Path
    options: Mapping[str, str | None]
    scratch: Path
    files: dict[str, Signature] = field(init=False)
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = tree(self.place)
        names = [name for name in self.files if is_data(name)]
        self._lacking: dict[str, list[Key]] = {"text": [], "vector": []}
        self._without_text = self._size = 0
        self.schema, self.columns = self._described(names)
        self._vectors: Vectors | None = None
        self.keys = Keys(self._scan(names))

    def _described(self, names: list[str]) -> tuple[pa.Schema, Columns]:
        for name in names:
            try:
                schema = parquet.read_schema(within(self.place, name))
            except FileNotFoundError:
                continue
            except Broken as error:
                if len(names) > 1 and not isinstance(error, PermissionError):
                    continue  # it is being written
                raise NotAStoreError(
                    f"{within(self.place, name)} cannot be read: {error}."
                ) from None
            return schema, columns_in(schema, self.options, str(self.place))
        raise NotAStoreError(
            f"{self.place} has no Parquet file.",
            hint="A store of this kind is a file, or a folder of files that end in .parquet.",
        )

    def _scan(self, names: list[str]) -> Iterator[tuple[Key, int, str | None]]:
        at = 0
        for name in names:
            first = at
            file = within(self.place, name)
            try:
                for batch in batches(file, self.columns, called(self.place, name)):
                    self._keep(at, batch.vectors)
                    for of, key in enumerate(batch.keys):
                        text, raw = batch.texts[of], batch.vectors[of]
                        self._without_text += raw is not None and text is None
                        if raw is not None:
                            yield key, at + of, text
                            if not text:
                                self._lacking["text"].append(key)
                        elif text is not None:
                            self._lacking["vector"].append(key)
                    at += len(batch.keys)
            except (FileNotFoundError, pa.ArrowInvalid):
                if name == ITSELF:
                    raise
                # Gone, or being written: what was read of it is in no part, so it gets no vector.
            self.parts.append(Part(name, first, at - first, self.files[name]))

    def _keep(self, at: int, vectors: list[bytes | None]) -> None:
        """Keep vectors; those of another size than the first are kept apart, as they are wrong."""
        sizes = [len(raw) for raw in vectors if raw is not None]
        if self._vectors is None and sizes:
            kind = self.schema.field(self.columns.vector).type
            fixed = pa.types.is_fixed_size_list(kind)
            self._size = 4 * kind.list_size if fixed else sizes[0]
            self._vectors = Vectors(self._size, self.scratch)
            self._odd: dict[int, bytes] = {}
        for of, raw in enumerate(vectors):
            if raw is not None and len(raw) != self._size:
                self._odd[at + of] = raw
        if self._vectors:
            pairs = ((at + of, raw) for of, raw in enumerate(vectors) if raw is not None)
            self._vectors.put((where, raw) for where, raw in pairs if len(raw) == self._size)

    def rows(self, *, after: Key | None, vectors: bool) -> Iterator[Row]:
        """Yield the rows with a vector, in the order of their keys."""
        for key, at, text in self.keys.texts(after):
            raw = b""
            if vectors:
                assert self._vectors  # this row has one
                raw = self._odd.get(at) or self._vectors.read(at, 1)[0].tobytes()
            yield Row(key, text, raw)

    @property
    def dimensions(self) -> int:
        """Of its vectors; 0 if there is none, and their size is nowhere stated."""
        kind = self.schema.field(self.columns.vector).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else self._size // 4

    def shape(self) -> Shape:
        """Count rows."""
        return Shape(
            rows=len(self.keys) - self._without_text,
            dimensions=self.dimensions,
            without_vector=len(self._lacking["vector"]),
            without_text=self._without_text,
        )

    def lacking(self) -> Lacking:
        """Return the keys of rows with only one of text and vector."""
        order = {name: sorted(keys, key=lambda key: (isinstance(key, str), key))
                 for name, keys in self._lacking.items()}  # fmt: skip
        return Lacking(**order)

    def search(self, vector: bytes, count: int) -> list[Key]:
        """Compare with every row."""
        wanted = np.frombuffer(vector, "<f4")
        nearest: list[tuple[float, int]] = []
        total = sum(part.rows for part in self.parts)
        for at in range(0, total if self._vectors else 0, BATCH):
            assert self._vectors
            some, missing = self._vectors.read(at, min(BATCH, total - at))
            far = np.where(missing, np.inf, np.linalg.norm(some - wanted, axis=1))
            found = [(float(far[of]), at + int(of)) for of in np.argsort(far)[:count]]
            nearest = sorted(nearest + found)[:count]
        return [self.keys.at(at) for distance, at in nearest if distance < np.inf]


def tree_entry(file: Path) -> Signature | None:
    """Return what `tree` says of one file; None if it is gone."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


Column = Callable[[int, pa.Table], pa.Array]
"""Makes the column of vectors for a row group, from the number of its first row."""


def rewrite(
    source: Path, target: Path, vector: str, column: Column, metadata: Callable[[Any], Any]
) -> None:
    """Write a file again with another column of vectors; all else stays, row groups included.

    One row group is in memory at a time. It is read again and compared before this returns.

    Raises:
        StoreError: what was written differs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetFile(source) as old:
        writer: parquet.ParquetWriter | None = None
        schema, first = old.schema_arrow, 0
        place = schema.get_field_index(vector)
        for number in range(old.num_row_groups):
            table = old.read_row_group(number)
            made = column(first, table)
            if writer is None:
                writer = _writer(old, target, _schema(schema, place, made.type, metadata))
            writer.write_table(
                table.set_column(place, writer.schema.field(place), made).cast(writer.schema),
                row_group_size=max(1, len(table)),
            )
            first += len(table)
        if writer is None:  # no rows
            kind = column(0, schema.empty_table()).type
            writer = _writer(old, target, _schema(schema, place, kind, metadata))
        writer.close()
        with parquet.ParquetFile(target) as new:  # the file may have been replaced: not `source`
            same = _is_same(old, new, vector)
    if not same:
        target.unlink()
        raise StoreError(
            f"{source} cannot be written again with everything else as it is.",
            hint="Please report this, with the schema of the file.",
        )
    os.chmod(target, source.stat().st_mode)  # noqa: PTH101 - as `pathlib` does
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _schema(schema: pa.Schema, place: int, kind: pa.DataType, metadata: Any) -> pa.Schema:  # noqa: ANN401 - a function
    changed = schema.set(place, schema.field(place).with_type(kind).with_nullable(True))
    return changed.with_metadata(metadata(schema.metadata))


def _writer(old: parquet.ParquetFile, target: Path, schema: pa.Schema) -> parquet.ParquetWriter:
    """Return a writer that compresses and encodes as the old file does."""
    about = old.metadata
    compression, dictionaries = {}, []
    group = about.row_group(0) if about.num_row_groups else None
    for number in range(about.num_columns if group else 0):
        assert group
        chunk = group.column(number)
        name = chunk.path_in_schema
        codec = chunk.compression.lower()
        compression[name] = "none" if codec == "uncompressed" else codec
        if any("DICTIONARY" in each for each in chunk.encodings):
            dictionaries.append(name)
    sorting = group.sorting_columns if group else None
    kept = b"ARROW:schema" in (about.metadata or {})
    return parquet.ParquetWriter(
        target, schema, compression=compression or "snappy", use_dictionary=dictionaries,
        version=about.format_version, sorting_columns=sorting or None, store_schema=kept,
    )  # fmt: skip


def _is_same(old: parquet.ParquetFile, new: parquet.ParquetFile, vector: str) -> bool:
    """Whether every other column of two files is the same, group by group."""
    if _described(old, vector) != _described(new, vector):
        return False
    others = [name for name in old.schema_arrow.names if name != vector]
    for number in range(old.num_row_groups):
        one, other = (file.read_row_group(number, columns=others) for file in (old, new))
        one, other = (each.replace_schema_metadata(None) for each in (one, other))
        if not one.equals(other) and _raw(one) != _raw(other):
            return False
    return True


def _described(file: parquet.ParquetFile, vector: str) -> Any:  # noqa: ANN401 - to compare
    """Return the sizes of a file's row groups, its other columns, and its metadata."""
    schema, about = file.schema_arrow, file.metadata
    sizes = [about.row_group(at).num_rows for at in range(about.num_row_groups)]
    others = [field for field in schema if field.name != vector]
    return sizes, others, schema.names, arrow.unstamped(schema.metadata)


def _raw(table: pa.Table) -> bytes:
    """Return a table's content, in which a NaN equals itself."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue())
