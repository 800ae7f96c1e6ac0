"""A folder of Parquet files, read as programs do: with `pyarrow.dataset`, by its path.

That lists the files, and then opens one after another, so a swap may come in between. Whoever reads
a file to write it again must not put old rows into a new folder: that part of this program opens
the folder, and then the files through it (`/proc/self/fd`, so on Linux).
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pyarrow import dataset, parquet

from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Rows

A_FILE = 10  # rows
STAMP = b"emberd.stamp"


class Subject:
    """One folder, with files in a folder of it too."""

    name: ClassVar[str] = "parquet"
    may_raise: ClassVar[Sequence[str]] = ("FileNotFoundError",)  # who has listed the old files

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "notes", folder / "made"
        self._beside = folder / "notes.emberd"
        self.entry: dict[str, Any] = {
            "kind": "parquet", "path": str(self.path), "options": {"text": "body"},
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def key(self, number: int) -> Key:
        """Return a number; rows are not written in their order."""
        return 7919 * (number + 1) % 100_003

    def create(self, rows: Sequence[tuple[Key, str, Matrix]]) -> None:
        """Make the folder, and a copy of it."""
        for at in range(0, len(rows), A_FILE):
            file = self._made / f"part={at // A_FILE % 2}" / f"rows-{at:05}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(as_table(rows[at : at + A_FILE]), file, compression="zstd")
        self.reset()

    def reset(self) -> None:
        """Copy it."""
        for folder in (self.path, self._beside):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._made, self.path)

    def things(self) -> int:
        """Count the folders that are kept, and what belongs to each."""
        return len([*self._beside.glob("kept-*")])

    def session(self) -> "Session":
        """Return a program that reads and writes."""
        return Session(self.path)

    def copied(self) -> Rows:
        """Read the folders that an undo put aside."""
        found: Rows = {}
        for token in sorted(self._beside.glob("undone-*.db")):
            found |= Session(self._beside / json.loads(token.read_text())["kept"]).rows()
        return found


class Session:
    """A program that opens the folder whenever it does something."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, key: Key, text: str, vector: Matrix) -> None:
        """Replace a row in its file, or add a file for it; each file by renaming."""
        with self._opened() as folder:
            for file in _files(folder):
                table = parquet.ParquetFile(file).read()
                ids = table.column("id").to_pylist()
                if key in ids:
                    _write(file, _with_row(table, ids.index(key), (key, text, vector)))
                    return
            _write(folder / f"more-{key}.parquet", as_table([(key, text, vector)]))

    def delete(self, key: Key) -> None:
        """Delete a row, and its file with the last one."""
        with self._opened() as folder:
            for file in _files(folder):
                table = parquet.ParquetFile(file).read()
                left = table.filter(pa.compute.field("id") != key)
                if not len(left):
                    file.unlink()
                elif len(left) < len(table):
                    _write(file, left)

    def rows(self) -> Rows:
        """Read all files; one that is gone by then is an error of pyarrow's."""
        found = dataset.dataset(self._path).to_table(use_threads=False).to_pylist()
        return {row["id"]: (row["body"], np.array(row["vector"] or [], "<f4")) for row in found}

    def is_migrated(self) -> bool:
        """Look for a stamp."""
        schemas = (parquet.read_schema(file) for file in _files(self._path))
        return any(STAMP in (schema.metadata or {}) for schema in schemas)

    def close(self) -> None:
        """Nothing is open."""

    @contextmanager
    def _opened(self) -> Iterator[Path]:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            held = sys.platform == "linux"
            yield Path(f"/proc/self/fd/{descriptor}") if held else self._path
        finally:
            os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])


def _write(file: Path, table: pa.Table) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    parquet.write_table(table, partial)
    partial.replace(file)


def _with_row(table: pa.Table, at: int, row: tuple[Key, str, Matrix]) -> pa.Table:
    new = as_table([row]).cast(table.schema)
    return pa.concat_tables([table.slice(0, at), new, table.slice(at + 1)])


def as_table(rows: Sequence[tuple[Key, str, Matrix]]) -> pa.Table:
    """Return rows with a column of other things."""
    keys, texts, vectors = zip(*rows, strict=True)
    flat = pa.array(np.concatenate(vectors).astype("<f4"))
    made = pa.table(
        {
            "id": pa.array(keys, pa.int64()),
            "body": list(texts),
            "vector": pa.FixedSizeListArray.from_arrays(flat, len(vectors[0])),
            "length": [len(text) for text in texts],
        }
    )
    return made.replace_schema_metadata({"made": "by a program"})
