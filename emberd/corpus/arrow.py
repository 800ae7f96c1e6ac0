"""What becomes of columns: those of several files together, and one of vectors at the end."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from emberd.stores import arrow
from emberd.stores.base import Stamp
from emberd.vectors import Matrix


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, or always null."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_null(kind)) or arrow.is_text(kind)


def texts_of(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return the texts of a column; where one is null, an empty one."""
    return [text or "" for text in arrow.texts_of(column)]


def vectors_column(vectors: Matrix, has_text: Sequence[bool]) -> pa.FixedSizeListArray:
    """Return a column of lists of D float32, null where there is no text.

    Args:
        vectors: (n, D) float32, for those of the rows that have a text, in their order.
        has_text: whether a row has one, for every row.
    """
    given = np.asarray(has_text, bool)
    every = np.zeros((len(given), vectors.shape[1]), np.float32)
    every[given] = vectors
    return arrow.vector_array(every, ~given, _vector(vectors.shape[1]))


def with_vectors(schema: pa.Schema, column: str, stamp: Stamp) -> pa.Schema:
    """Return a schema with a column of vectors at its end, and whose they are in its metadata."""
    field = pa.field(column, _vector(stamp.dimensions))
    return schema.append(field).with_metadata(arrow.stamped(None, stamp))


def _vector(dimensions: int) -> pa.DataType:
    return pa.list_(pa.float32(), dimensions)


def united(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns of all schemas together, of types that hold the values of each.

    Raises:
        pa.ArrowException: a column has types that do not go together.
    """
    return pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with exactly the columns of a schema; those that it lacks are null."""
    there = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in there
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
