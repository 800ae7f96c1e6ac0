"""Writes a Parquet file again with another column of vectors, and everything else as it was."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from emberd.errors import StoreError
from emberd.stores import arrow
from emberd.stores.base import Stamp

Column = Callable[[int, pa.Table], pa.Array]
"""Makes the column of vectors for a row group, from the number of its first row."""


def rewrite(source: Path, target: Path, vector: str, column: Column, stamp: Stamp) -> None:
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
                writer = writer_like(old, target, _schema(schema, place, made.type, stamp))
            writer.write_table(
                table.set_column(place, writer.schema.field(place), made).cast(writer.schema),
                row_group_size=max(1, len(table)),
            )
            first += len(table)
        if writer is None:  # no rows
            kind = column(0, schema.empty_table()).type
            writer = writer_like(old, target, _schema(schema, place, kind, stamp))
        writer.close()
        with parquet.ParquetFile(target) as new:
            same = _is_same(old, new, vector)
    if not same:
        target.unlink()
        raise StoreError(
            f"{source} cannot be written again with everything else as it is.",
            hint="Please report this, with the schema of the file.",
        )
    settled(target, source)


def settled(target: Path, source: Path) -> None:
    """Give a new file the permissions of another one, and have it be on disk."""
    target.chmod(source.stat().st_mode)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _schema(schema: pa.Schema, place: int, kind: pa.DataType, stamp: Stamp) -> pa.Schema:
    changed = schema.set(place, schema.field(place).with_type(kind).with_nullable(True))
    return changed.with_metadata(arrow.stamped(schema.metadata, stamp))


def writer_like(old: parquet.ParquetFile, target: Path, schema: pa.Schema) -> parquet.ParquetWriter:
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
    metadata = {**(schema.metadata or {})}
    metadata.pop(arrow.STAMP, None)
    return sizes, others, schema.names, metadata


def _raw(table: pa.Table) -> bytes:
    """Return a table's content, in which a NaN equals itself."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue())
