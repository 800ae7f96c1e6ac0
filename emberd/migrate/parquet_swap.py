"""The exchange of Parquet files with new ones, and its undo.

Each file is written anew beside the store, where the old ones will be kept: with one exchange, the
two folders change places.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import StoreError
from emberd.migrate import arrow
from emberd.migrate.base import Key, Row, Stamp
from emberd.migrate.exchange import exchange
from emberd.migrate.parquet_files import (
    Broken,
    Column,
    Signature,
    Snapshot,
    called,
    digest_of,
    is_data,
    keys_in,
    rewrite,
    tree,
    tree_entry,
    within,
)
from emberd.migrate.parquet_late import Late, link
from emberd.migrate.parquet_store import base_of, new_place, noted
from emberd.migrate.scratch import Vectors, positions
from emberd.replacing import replace_file

if TYPE_CHECKING:
    from emberd.migrate.parquet_late import Late, link
from emberd.migrate.parquet_store import ParquetStore

SUMMARIES = ("_metadata", "_common_metadata")


def require_writable(path: Path) -> None:
    """Raise `StoreError` if the store cannot be exchanged, or has what would become wrong."""
    for folder in (path.parent, path):
        if not os.access(folder, os.W_OK):
            raise StoreError(f"{folder} cannot be written.", hint="Correct the permissions.")
    for name in SUMMARIES:
        if path.is_dir() and (path / name).exists():
            raise StoreError(
                f"{path / name} summarizes the files of the folder, and would no longer be right.",
                hint="Delete it: programs read the files without it. Then run this again.",
            )


class ParquetReplacement:
    """Files as they were at one moment; see `emberd.migrate.base.Replacement`.

    `kept` returns where the new folder is built, if a backup was made.
    """

    def __init__(
        self,
        store: "ParquetStore",
        options: Mapping[str, str | None],
        kept: Callable[[], Path | None],
    ) -> None:
        self._store = store
        self._options = options
        self._kept = kept
        self._snapshot: Snapshot | None = None
        self._new: Path | None = None  # what `fill` makes
        self._seen: dict[str, Signature] = {}  # what was copied whole
        self._partly: dict[str, Signature] = {}  # and what lacks the vectors of some rows
        self._placed: Vectors | None = None
        self._stamp: Stamp | None = None
        self._dimensions = 0

    def close(self) -> None:
        """Delete what was not committed."""
        if self._placed:
            self._placed.close()
        if self._new:
            _delete(self._new)
            _delete(self._new.with_name(f"{self._new.name}.copy"))
            _delete(base_of(self._new))

    def rows(self) -> Iterator[Row]:
        """Yield the rows of that moment."""
        yield from self._read().rows(after=None, vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Write all files anew, where the old ones will be kept."""
        read, path = self._read(), self._store.path
        self._new = self._kept() or new_place(path)
        self._new.parent.mkdir(mode=0o700, exist_ok=True)
        _delete(self._new)
        _delete(base_of(self._new))
        if path.is_dir():
            _make_folders(path, self._new)
        self._placed = Vectors(4 * dimensions, self._new.parent)
        self._placed.put(positions(read.keys.after(None), vectors))
        self._stamp, self._dimensions = stamp, dimensions
        self._copy_all()

    def _copy_all(self) -> None:
        """Copy what is not there yet as it is now, and forget what is gone."""
        assert self._new  # `fill` was called
        there = tree(self._store.path)
        for name in {*self._seen, *self._partly} - there.keys():
            within(self._new, name).unlink(missing_ok=True)
            self._seen.pop(name, None)
            self._partly.pop(name, None)
        for name, signature in there.items():
            if signature not in (self._seen.get(name), self._partly.get(name)):
                with suppress(FileNotFoundError, pa.ArrowInvalid):  # gone, or being written
                    self._copy(name, signature)
        _sync(self._new)

    def _copy(self, name: str, signature: Signature) -> None:
        """Copy a file; if it is not as it was read, only with the vectors of texts that it had."""
        assert self._new and self._stamp  # `fill` was called
        source, target, stamp = within(self._store.path, name), within(self._new, name), self._stamp
        made = self._new.with_name(f"{self._new.name}.copy")
        done = self._seen
        if is_data(name):
            read = self._read()
            part = next((part for part in read.parts if part.name == name), None)
            columns = self._columns_by_text(name)
            if part and part.signature == signature:
                columns = self._columns_by_place(part.first)
            else:
                done = self._partly
            rewrite(
                source, made, read.columns.vector, columns,
                lambda metadata: arrow.stamped(metadata, stamp),
            )  # fmt: skip
        else:
            shutil.copy2(source, made)
        if tree_entry(source) != signature:  # it is looked at again before the exchange
            made.unlink()
            return
        self._seen.pop(name, None)
        self._partly.pop(name, None)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        link(source, within(base_of(self._new), name))
        done[name] = signature

    def _columns_by_place(self, first: int) -> Column:
        """Return what makes the column of a file whose rows begin at a position."""
        placed, vector = self._placed, self._read().columns.vector
        assert placed  # `fill` was called

        def column(at: int, table: pa.Table) -> pa.Array:
            values, missing = placed.read(first + at, len(table))
            kind = arrow.resized(table.schema.field(vector).type, self._dimensions)
            return arrow.vector_array(values, missing, kind)

        return column

    def _columns_by_text(self, name: str) -> Column:
        """Return what makes the column of a file that was written since."""
        placed, read = self._placed, self._read()
        assert placed  # `fill` was called
        columns = read.columns

        def column(at: int, table: pa.Table) -> pa.Array:
            values = np.zeros((len(table), self._dimensions), np.float32)
            missing = np.ones(len(table), np.bool_)
            keys = keys_in(table, columns, called(self._store.path, name), at)
            for of, text in enumerate(arrow.texts_of(table.column(columns.text))):
                place = read.keys.place(keys[of], text) if text else None
                if place is not None:
                    values[of], missing[of] = (each[0] for each in placed.read(place, 1))
            kind = arrow.resized(table.schema.field(columns.vector).type, self._dimensions)
            return arrow.vector_array(values, missing, kind)

        return column

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Bring over files that were written too late, with these vectors; see `Store.halved`."""
        given = dict(vectors)
        for late in Late.all_of(self._store.path, self._options, self._store.stamp()):
            late.bring(given)

    def digest(self) -> str:
        """Hash the new files, which keep their names and times."""
        assert self._new  # `fill` was called
        return digest_of(tree(self._new))

    def commit(self) -> None:
        """Exchange the folders, then bring over what was written in the last moment."""
        if self._stamp is None or self._new is None:  # rows were only completed, and are there
            return
        self._copy_all()
        note = {
            "migration": self._stamp.migration, "files": self._seen, "new": tree(self._new),
            "brought": self._partly,
        }  # fmt: skip
        replace_file(noted(self._new), json.dumps(note).encode())
        swap(self._new, self._store.path)
        self._new = None
        for late in Late.all_of(self._store.path, self._options, self._stamp):
            late.settle()

    def _read(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = self._store.snapshot()
        return self._snapshot


class ParquetRestoration:
    """The store and the folder that was kept; see `emberd.migrate.base.Restoration`."""

    def __init__(self, store: "ParquetStore", kept: Path) -> None:
        self._store = store
        self._kept = kept

    def copy(self, target: Path) -> None:
        """Write where the present folder will be: the exchange puts it there."""
        target.write_text(json.dumps({"kind": self._store.kind, "kept": self._kept.name}))

    def digest(self) -> str:
        """Hash the names, sizes and times of all files."""
        return self._store.digest()

    def commit(self) -> None:
        """Exchange both."""
        swap(self._kept, self._store.path)


def check_kept(kept: Path) -> None:
    """Raise `StoreError` if a folder that is kept lacks a file, or cannot be read."""
    if not kept.exists():
        raise StoreError(f"{kept} is gone.")
    there = tree(kept)
    with suppress(OSError, ValueError):
        note = json.loads(noted(kept).read_bytes())
        lost = sorted(name for name in note["files"] if name not in there)
        if lost:
            raise StoreError(f"{within(kept, lost[0])} is gone.")
    for name in filter(is_data, there):
        try:
            parquet.read_schema(within(kept, name))
        except Broken as error:
            raise StoreError(f"{within(kept, name)} cannot be read: {error}.") from None


def swap(new: Path, place: Path) -> None:
    """Exchange what is there with what is new, for good. Raises `StoreError`."""
    try:
        exchange(new, place)
    except OSError as error:
        raise StoreError(
            f"{place} cannot be exchanged with {new}: {error.strerror}.",
            hint="Both must be on one file system: a folder that is a mount point itself cannot be"
            " exchanged. Move it into a folder of that file system.",
        ) from None
    for folder in (new.parent, place.parent):
        _sync(folder)


def _make_folders(path: Path, new: Path) -> None:
    """Make the same folders, with the same permissions, empty ones too."""
    new.mkdir()
    for folder in sorted(each for each in path.rglob("*") if each.is_dir()):
        (new / folder.relative_to(path)).mkdir(exist_ok=True)
        shutil.copymode(folder, new / folder.relative_to(path))
    shutil.copymode(path, new)


def _delete(what: Path) -> None:
    if what.is_dir():
        shutil.rmtree(what)
    else:
        what.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Have names be on disk, of all folders within."""
    for each in (folder, *folder.rglob("*")) if folder.is_dir() else ():
        if each.is_dir():
            with suppress(OSError):
                descriptor = os.open(each, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
