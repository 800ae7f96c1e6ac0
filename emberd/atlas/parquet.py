"""A store as a Parquet file, with the places of its rows: for Embedding Atlas and others."""

import json
from pathlib import Path
from typing import Any

from emberd.atlas.chart import Chart
from emberd.corpus.needed import require_pyarrow
from emberd.errors import StoreError
from emberd.replacing import replacing

ABOUT = b"emberd"  # the key of the file's metadata
COLUMNS = ("key", "text", "vector", "x", "y", "model")


def write(chart: Chart, file: Path, about: dict[str, Any], *, model: str | None) -> None:
    """Write a map's rows, whole texts included, replacing the file.

    Columns: `key` (int64 or string), `text`, `vector` (a list of D float32, of length 1), `x`, `y`
    (float32), and `model`: who made the row, as a check has found, or `model` without a check.
    `about` is put into the file's metadata as JSON.

    Raises:
        BadOptionError: pyarrow is not installed.
        StoreError: the file cannot be written.
    """
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    held, places = chart.held, chart.places
    numbers = all(isinstance(key, int) for key in held.keys)
    keys = held.keys if numbers else [str(key) for key in held.keys]
    vectors = pa.array(held.vectors.reshape(-1))
    values = (
        pa.array(keys, pa.int64() if numbers else pa.string()),
        pa.array(held.excerpts, pa.string()),
        pa.FixedSizeListArray.from_arrays(vectors, held.shape.dimensions),
        pa.array(places[:, 0]),
        pa.array(places[:, 1]),
        pa.array(_models(chart, model), pa.string()),
    )
    table = pa.table(dict(zip(COLUMNS, values, strict=True)))
    kept = {**(table.schema.metadata or {}), ABOUT: json.dumps(about).encode()}
    try:
        with replacing(file) as partial:
            parquet.write_table(table.replace_schema_metadata(kept), partial)
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written: {error.strerror or error}.", hint="Choose another place."
        ) from None


def _models(chart: Chart, model: str | None) -> list[str | None]:
    """Return who made each row; None where that is not known, or no model here did."""
    groups = chart.origins.groups
    names = [None if groups else model, *(group.model for group in groups)]
    return [names[group] for group in chart.origins.of_rows.tolist()]
