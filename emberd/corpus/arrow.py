"""pyarrow, which reads and writes these files: whether it is here, and what becomes of columns.

It is the extra `parquet`: it is larger than emberd.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emberd.errors import BadOptionError
from emberd.installing import pip

if TYPE_CHECKING:
    import pyarrow as pa

    from emberd.vectors import Matrix

ABOUT = b"emberd"  # the key, in the metadata of a schema, of what its vectors are


def require_pyarrow() -> None:
    """Raise `BadOptionError` if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it can be
    except ImportError:
        raise BadOptionError(
            "Parquet files are read and written by pyarrow, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[parquet]')}`.",
        ) from None


def texts_of(column: "pa.Array | pa.ChunkedArray") -> list[str]:
    """Return the texts of a column; where one is null, an empty one."""
    return [text or "" for text in column.to_pylist()]


def is_text(kind: "pa.DataType") -> bool:
    """Whether values of this type are texts (or always null)."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.types.is_null(kind) or any(is_one(kind) for is_one in known)


def vectors_column(vectors: "Matrix", has_text: Sequence[bool]) -> "pa.FixedSizeListArray":
    """Return a column of lists of D float32, null where there is no text.

    Args:
        vectors: (n, D) float32, for those of the rows that have a text, in their order.
        has_text: whether a row has one, for every row.
    """
    import numpy as np
    import pyarrow as pa

    given = np.asarray(has_text, bool)
    every = np.zeros((len(given), vectors.shape[1]), np.float32)
    every[given] = vectors
    return pa.FixedSizeListArray.from_arrays(
        pa.array(every.reshape(-1)), vectors.shape[1], mask=pa.array(~given)
    )


def with_vectors(schema: "pa.Schema", column: str, about: dict[str, Any]) -> "pa.Schema":
    """Return a schema with a column of vectors at its end.

    `about` says what they are; it must have `dimensions`.
    """
    import pyarrow as pa

    field = pa.field(column, pa.list_(pa.float32(), about["dimensions"]))
    return schema.append(field).with_metadata({ABOUT: json.dumps(about).encode()})


def united(schemas: "Sequence[pa.Schema]") -> "pa.Schema":
    """Return the columns of all schemas together, of types that hold the values of each.

    Raises:
        pa.ArrowException: a column has types that do not go together.
    """
    import pyarrow as pa

    return pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()


def conformed(batch: "pa.RecordBatch", schema: "pa.Schema") -> "pa.RecordBatch":
    """Return a batch with exactly the columns of a schema; those that it lacks are null."""
    import pyarrow as pa

    there = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in there
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
