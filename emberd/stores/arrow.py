"""Keys, texts and vectors as Arrow has them: for kinds whose files are read with pyarrow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from emberd.errors import NotAStoreError
from emberd.stores.base import Key, Stamp
from emberd.vectors import Matrix

STAMP = b"emberd.stamp"


def is_text(kind: pa.DataType) -> bool:
    """Whether a column has strings."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_key(kind: pa.DataType) -> bool:
    """Whether a column can hold keys: integers or strings."""
    return bool(pa.types.is_integer(kind) or is_text(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column has lists of any numbers."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(lists or pa.types.is_fixed_size_list(kind)) and bool(
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column has lists of float32."""
    return is_list(kind) and bool(pa.types.is_float32(kind.value_type))


def column(schema: pa.Schema, name: str | None, what: str, where: str) -> str:
    """Return the column of texts, vectors or keys (`text`, `vector`, `id`): the one named, or ours.

    Raises:
        NotAStoreError: it is not there, has another type, or several could be meant.
    """
    fits = {"text": is_text, "vector": is_list, "id": is_key}[what]
    option = f"`--option {what}=COLUMN`"
    if name is not None:
        if name not in schema.names:
            raise NotAStoreError(
                f"{where} has no column {name}, only: {', '.join(schema.names)}.",
                hint=f"Name one of those with {option}.",
            )
        if not fits(schema.field(name).type):
            wanted = {
                "text": "strings", "vector": "lists of numbers", "id": "integers or strings",
            }[what]  # fmt: skip
            raise NotAStoreError(
                f"{where}: {name} has the type {schema.field(name).type}, not {wanted}.",
                hint=f"Name another column with {option}.",
            )
        return name
    found = [field.name for field in schema if fits(field.type)]
    if what == "text" and what not in found:
        found = [each for each in found if each != "id"]
    if what in found:
        return what
    if len(found) == 1 and what != "id":
        return str(found[0])
    several = f"several that may be it ({', '.join(found)})" if found else "none"
    called = "keys" if what == "id" else f"{what}s"
    raise NotAStoreError(
        f"{where}: which column has the {called}? It has {several}.",
        hint=f"Name it with {option}"
        + (", a column whose values are unique and do not change." if what == "id" else "."),
    )


def require_float32(schema: pa.Schema, name: str, where: str) -> None:
    """Raise `NotAStoreError` if a column of vectors has other numbers than float32."""
    kind = schema.field(name).type
    if not is_vector(kind):
        raise NotAStoreError(
            f"{where}: {name} has the type {kind}, and emberd migrates vectors of float32.",
            hint="Write the column again as float32, then run this again.",
        )


def keys_of(array: pa.Array, where: str) -> list[Key]:
    """Return keys. Raises `NotAStoreError` if one is NULL or does not fit into 64 bits."""
    keys: list[Any] = array.to_pylist()
    for key in keys:
        if key is None or (isinstance(key, int) and key >= 2**63):
            raise NotAStoreError(
                f"{where}: a row's key is {'NULL' if key is None else key}.",
                hint="Every row needs a key below 2**63: correct it, or name another column with"
                " `--option id=COLUMN`.",
            )
    return keys


def vectors_of(array: pa.Array) -> list[bytes | None]:
    """Return the little-endian float32 bytes of each vector; None for NULL."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    there = array.drop_null()
    flat = there.flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    ends = 4 * np.cumsum(compute.list_value_length(there).to_numpy(zero_copy_only=False))
    raw, starts = flat.tobytes(), [0, *ends[:-1].tolist()] if len(there) else []
    found = iter(raw[start:end] for start, end in zip(starts, ends.tolist(), strict=True))
    return [next(found) if valid else None for valid in array.is_valid().to_pylist()]


def matrix_of(vectors: Sequence[bytes]) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Return vectors of one size as `(N, D)`, and that none is missing."""
    return (
        np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1),
        np.zeros(len(vectors), np.bool_),
    )


def resized(kind: pa.DataType, dimensions: int) -> pa.DataType:
    """Return a column's type for vectors of another size."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field, dimensions)
    return kind


def vector_array(values: Matrix, missing: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """Make a column of vectors `(N, D)`, of a type; rows that are missing are NULL."""
    count, size = values.shape
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    if pa.types.is_fixed_size_list(kind):
        mask = pa.array(missing) if missing.any() else None
        return pa.FixedSizeListArray.from_arrays(flat, size, mask=mask).cast(kind)
    offsets = np.arange(count + 1, dtype=np.int64) * size
    large = pa.types.is_large_list(kind)
    made = (pa.LargeListArray if large else pa.ListArray).from_arrays(
        pa.array(offsets, pa.int64() if large else pa.int32()),
        flat,
        mask=pa.array(missing) if missing.any() else None,
    )
    return made.cast(kind)


def stamp_in(metadata: Mapping[bytes, bytes] | None) -> Stamp | None:
    """Return the stamp in the metadata of a schema or field."""
    kept = (metadata or {}).get(STAMP)
    return Stamp.from_json(kept.decode()) if kept else None


def stamped(metadata: Mapping[bytes, bytes] | None, stamp: Stamp) -> dict[bytes, bytes]:
    """Return metadata with a stamp."""
    return {**(metadata or {}), STAMP: stamp.to_json().encode()}


def texts_of(array: pa.Array) -> Sequence[str | None]:
    """Return the texts; None for NULL."""
    found: list[str | None] = array.to_pylist()
    return found
