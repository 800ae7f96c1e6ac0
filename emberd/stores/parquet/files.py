"""The files of a store: which there are, how they are called, and the rows in one of them."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from emberd.errors import NotAStoreError
from emberd.stores import arrow
from emberd.stores.base import Key, Stamp
from emberd.stores.scratch import BATCH

ENDS = (".parquet", ".pq")
LISTINGS = 20  # of a folder that changes all the time
ITSELF = "."  # the name of a store's only file
TAG = re.compile(r"\.emberd-[0-9a-f]{8}(?=\.[a-z]+$)")
Signature = tuple[int, int, int]  # size, time of the last change, inode
Broken = (pa.ArrowInvalid, OSError)  # a file that is gone, or being written


@dataclass(frozen=True)
class Columns:
    """The columns of a store; without `id`, file and number of the row are the key."""

    vector: str
    text: str
    id: str | None

    def require_in(self, schema: pa.Schema, file: Path) -> list[str]:
        """Return their names. Raises `NotAStoreError` if a file lacks one."""
        names = [name for name in (self.vector, self.text, self.id) if name]
        missing = [name for name in names if name not in schema.names]
        if missing:
            raise NotAStoreError(
                f"{file} has no column {missing[0]}, but other files of the store have.",
                hint="Keep such files in another folder.",
            )
        return names


def tree(place: Path) -> dict[str, Signature]:
    """Return all files of a store by name, sorted."""
    if not place.is_dir():
        names = [ITSELF]
    else:
        names = sorted(each.relative_to(place).as_posix() for each in _listed(place))
    known = {}
    for name in names:
        found = signature(within(place, name))
        if found and within(place, name).is_file():
            known[name] = found
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


def signature(file: Path) -> Signature | None:
    """Return what tells a file from another one of its name; None if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


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


# -- names: those of the new files of a swap differ from those of the old ones ----------------


def plain_names(names: Collection[str]) -> dict[str, str]:
    """Return each name without what the last swap put into it, unless two would be the same."""
    plain = {name: TAG.sub("", name) for name in names}
    count = Counter(plain.values())
    plain = {name: each if count[each] == 1 else name for name, each in plain.items()}
    return plain if len({*plain.values()}) == len(plain) else {name: name for name in names}


def tagged(plain: str, tag: str) -> str:
    """Return the name of a new file of rows: `rows.emberd-1a2b3c4d.parquet`."""
    stem, _, end = plain.rpartition(".")
    return f"{stem}.emberd-{tag}.{end}" if is_data(plain) and plain != ITSELF else plain


def new_name(plain: str, tag: str, taken: Collection[str]) -> str:
    """Return the name of a new file, which no other one has."""
    name = tagged(plain, tag)
    while name in taken:
        name = tagged(name, tag)
    return name


# -- what is in a file ------------------------------------------------------------------------


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
        with suppress(*Broken):
            stamp = arrow.stamp_in(parquet.read_schema(within(place, name)).metadata)
            if stamp:
                return stamp
    return None


@dataclass
class Batch:
    """Some rows of one file, in their order; `vectors` are None where there is none."""

    keys: list[Key]
    texts: list[str | None]
    vectors: list[bytes | None]


def keys_in(table: Any, columns: Columns, name: str, first: int) -> list[Key]:  # noqa: ANN401 - Arrow's
    """Return the keys of some rows; `first` is the number of the first one in its file.

    Without a column of keys, these begin with `name`, the file's plain one.
    """
    if columns.id:
        return arrow.keys_of(table.column(columns.id), name)
    return [f"{name}:{first + of:012}" for of in range(len(table))]


def batches(file: Path, columns: Columns, name: str) -> Iterator[Batch]:
    """Read a file whose plain name is `name`."""
    with parquet.ParquetFile(file) as opened:
        wanted = columns.require_in(opened.schema_arrow, file)
        first = 0
        for read in opened.iter_batches(batch_size=BATCH, columns=wanted):
            keys = keys_in(read, columns, name, first)
            texts = arrow.texts_of(read.column(columns.text))
            yield Batch(keys, list(texts), arrow.vectors_of(read.column(columns.vector)))
            first += len(read)


def link(source: Path, target: Path) -> None:
    """Have another name for a file as it is now, whatever is renamed over the first one later."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source.resolve(), target)
