"""The exchange of Parquet files with new ones, and its undo.

Each file is written anew beside the store, where the old ones will be kept: with one exchange, the
two folders change places. In a folder the new files have other names than the old ones. So whoever
has listed the old ones, and opens them too late, finds that they are gone, and never a mixture.

A file is copied from a link to it, so that a program that renames another one over it meanwhile
does not matter: what it wrote is found after the exchange (`late`), as the link stays.
"""

import errno
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import StoreBusyError, StoreError
from emberd.replacing import replace_file
from emberd.stores import arrow
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.exchange import aside_of, exchange
from emberd.stores.files import replace_text
from emberd.stores.parquet.files import (
    Broken,
    Signature,
    digest_of,
    is_data,
    keys_in,
    link,
    new_name,
    plain_names,
    signature,
    tree,
    within,
)
from emberd.stores.parquet.kept import base_of, forget, new_place, noted, scratch_of, sweep, tag_of
from emberd.stores.parquet.late import Late
from emberd.stores.parquet.rewrite import Column, rewrite
from emberd.stores.parquet.snapshot import Snapshot
from emberd.stores.scratch import Vectors, positions

if TYPE_CHECKING:
    from emberd.stores.parquet.store import ParquetStore

SUMMARIES = ("_metadata", "_common_metadata")
TABLES = ("_delta_log", ".hoodie", "_spark_metadata", "metadata/*.metadata.json")
PATIENCE_S = 10.0  # with a file that is being written
LOOK_S = 0.05


def require_writable(path: Path) -> None:
    """Raise `StoreError` if the store cannot be exchanged, or has what would become wrong."""
    for folder in (path.parent, path):
        if not os.access(folder, os.W_OK):
            raise StoreError(f"{folder} cannot be written.", hint="Correct the permissions.")
    if not path.is_dir():
        return
    for name in SUMMARIES:
        if (path / name).exists():
            raise StoreError(
                f"{path / name} summarizes the files of the folder, and would no longer be right.",
                hint="Delete it: programs read the files without it. Then run this again.",
            )
    for name in TABLES:
        if any(path.glob(name)):
            raise StoreError(
                f"{path} is a table of Delta Lake, Iceberg or the like: {name} lists its files, and"
                " would no longer be right.",
                hint="Write its rows to a folder of Parquet files, and migrate that.",
            )
    for each in path.rglob("*"):
        if each.is_symlink() and each.is_dir():
            raise StoreError(
                f"{each} is a link to a folder, whose files would not change with the others.",
                hint="Move those files into the folder, then run this again.",
            )


class ParquetReplacement:
    """Files as they were at one moment; see `emberd.stores.base.Replacement`.

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
        self._names: dict[str, str] = {}  # of new files, by those of the old ones
        self._copied: dict[str, Signature] = {}  # which state of the old ones they have
        self._partly: set[str] = set()  # those that lack the vectors of some rows
        self._placed: Vectors | None = None
        self._stamp: Stamp | None = None
        self._dimensions = 0

    def close(self) -> None:
        """Delete what was not committed."""
        if self._placed:
            self._placed.close()
        if self._new:
            forget(self._new)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of that moment."""
        yield from self._read().rows(after=None, vectors=False)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Write all files anew, where the old ones will be kept."""
        read, path = self._read(), self._store.path
        self._new = self._kept() or new_place(path)
        self._new.parent.mkdir(mode=0o700, exist_ok=True)
        forget(self._new)
        if path.is_dir():
            _make_folders(path, self._new)
        self._placed = Vectors(4 * dimensions, self._new.parent)
        self._placed.put(positions(read.keys.after(None), vectors))
        self._stamp, self._dimensions = stamp, dimensions
        self._copy_all()

    def _copy_all(self) -> list[str]:
        """Copy what is not there yet as it is now, and forget what is gone.

        Returns the files of the snapshot that cannot be copied, as they are being written.
        """
        assert self._new  # `fill` was called
        there = tree(self._store.path)
        for name in self._copied.keys() - there.keys():
            within(self._new, self._names.pop(name)).unlink(missing_ok=True)
            self._copied.pop(name)
            self._partly.discard(name)
        for name in (name for name, found in there.items() if found != self._copied.get(name)):
            try:
                self._copy(name)
            except pa.ArrowInvalid:
                continue  # it is being written
            except OSError as error:
                if error.errno not in (None, errno.ENOENT):  # Arrow's have none
                    raise StoreError(
                        f"{within(self._store.path, name)} cannot be copied: {error.strerror}.",
                        hint="Correct that, then run this again.",
                    ) from None
        sweep(self._new)
        _sync(self._new, *(each for each in self._new.rglob("*") if each.is_dir()))
        known = self._read().parts.keys()
        return [name for name in there if name in known and name not in self._copied]

    def _copy(self, name: str) -> None:
        """Copy a file as it is now; one that was read otherwise, with the vectors of its texts."""
        assert self._new and self._stamp  # `fill` was called
        source, pin, made = within(self._store.path, name), *map(scratch_of, 2 * [self._new])
        lacking: set[str] = set()
        link(source, pin)
        found, read = signature(pin), self._read()
        if is_data(name):
            part = read.parts.get(name)
            if part and part.signature == found:
                column = self._by_place(part.first)
            else:
                column = self._by_text(name, pin, lacking)
            rewrite(pin, made, read.columns.vector, column, self._stamp)
        else:
            shutil.copy2(pin, made)
        if not found or signature(pin) != found:  # somebody is writing into the very file
            return
        base = within(base_of(self._new), name)
        for new, target in ((made, within(self._new, self._name_of(name))), (pin, base)):
            target.parent.mkdir(parents=True, exist_ok=True)
            new.replace(target)
        self._copied[name] = found
        self._partly = self._partly - {name} | lacking

    def _name_of(self, name: str) -> str:
        """Return the name of a new file."""
        assert self._new  # `fill` was called
        if name not in self._names:
            plain = plain_names([*tree(self._store.path), name])[name] if is_data(name) else name
            self._names[name] = new_name(plain, tag_of(self._new), self._names.values())
        return self._names[name]

    def _by_place(self, first: int) -> Column:
        """Return what makes the column of a file whose rows begin at a position."""
        placed, vector = self._placed, self._read().columns.vector
        assert placed  # `fill` was called

        def column(at: int, table: pa.Table) -> pa.Array:
            values, missing = placed.read(first + at, len(table))
            kind = arrow.resized(table.schema.field(vector).type, self._dimensions)
            return arrow.vector_array(values, missing, kind)

        return column

    def _by_text(self, name: str, file: Path, lacking: set[str]) -> Column:
        """Return what makes the column of a file that was written since; notes if rows lack one."""
        placed, read = self._placed, self._read()
        assert placed  # `fill` was called
        columns, plain = read.columns, read.plain.get(name, name)
        columns.require_in(parquet.read_schema(file), within(self._store.path, name))

        def column(at: int, table: pa.Table) -> pa.Array:
            values = np.zeros((len(table), self._dimensions), np.float32)
            missing = np.ones(len(table), np.bool_)
            keys = keys_in(table, columns, plain, at)
            before = table.column(columns.vector).is_valid().to_pylist()
            for of, text in enumerate(arrow.texts_of(table.column(columns.text))):
                place = read.keys.place(keys[of], text) if text else None
                if place is not None:
                    values[of], missing[of] = (each[0] for each in placed.read(place, 1))
                if text and before[of] and missing[of]:
                    lacking.add(name)
            kind = arrow.resized(table.schema.field(columns.vector).type, self._dimensions)
            return arrow.vector_array(values, missing, kind)

        return column

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Bring over what was written too late, with these vectors; see `Store.halved`."""
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
        until_s = time.monotonic() + PATIENCE_S
        while waiting := self._copy_all():
            if time.monotonic() > until_s:
                raise StoreBusyError(
                    f"{within(self._store.path, waiting[0])} cannot be read: it is being written,"
                    " or damaged.",
                    hint="Run this again when it is complete; what is embedded is kept.",
                )
            time.sleep(LOOK_S)
        note = {
            "migration": self._stamp.migration, "at": time.time(), "names": self._names,
            "files": self._copied, "partly": sorted(self._partly), "new": tree(self._new),
        }  # fmt: skip
        replace_file(noted(self._new), json.dumps(note).encode())
        new, self._new = self._new, None  # from now on, it may be the old one
        swap(new, self._store.path)
        for late in Late.all_of(self._store.path, self._options, self._stamp):
            deque(late.rows(), maxlen=0)  # which brings over what needs no vector

    def _read(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = self._store.snapshot()
        return self._snapshot


class ParquetRestoration:
    """The store and the folder that was kept; see `emberd.stores.base.Restoration`."""

    def __init__(self, store: "ParquetStore", kept: Path) -> None:
        self._store = store
        self._kept = kept

    def copy(self, target: Path) -> None:
        """Write where the present folder will be: the exchange puts it there."""
        replace_text(target, json.dumps({"kind": self._store.kind, "kept": self._kept.name}))

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
        lost = sorted(note["names"].keys() - there.keys())
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
        aside = aside_of(new)
        where = f" What was there is in {aside}." if aside.exists() else ""
        raise StoreError(
            f"{place} cannot be exchanged with {new}: {error.strerror}.{where}",
            hint="Both must be on one file system: a folder that is a mount point itself cannot be"
            " exchanged. Move it into a folder of that file system.",
        ) from None
    _sync(new.parent, place.parent)


def _make_folders(path: Path, new: Path) -> None:
    """Make the same folders, with the same permissions, empty ones too."""
    new.mkdir()
    for folder in sorted(each for each in path.rglob("*") if each.is_dir()):
        (new / folder.relative_to(path)).mkdir(exist_ok=True)
        shutil.copymode(folder, new / folder.relative_to(path))
    shutil.copymode(path, new)


def _sync(*folders: Path) -> None:
    """Have the names in folders be on disk."""
    for folder in folders:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
