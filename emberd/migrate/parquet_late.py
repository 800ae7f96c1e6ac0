"""What others wrote to the files that a swap has put aside: found there, and brought over.

A note beside the folder that is kept says of each file which state of it the swap has copied, and
what the new one was. A file that is otherwise in the kept folder was written too late for the swap.
It is brought over as it is found, with NULL for vectors until they are made. If somebody has
written the same file in the new folder since, rows are told apart by their key: what the old file
has that its copy had not goes into the new one, except rows that were changed there too. Links to
the files that were copied (`base_of`) are what to compare with.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.errors import StoreError
from emberd.migrate import arrow
from emberd.migrate.base import Key, Row, Stamp
from emberd.migrate.parquet_files import (
    Broken,
    Columns,
    Signature,
    batches,
    called,
    columns_in,
    is_data,
    keys_in,
    rewrite,
    tree,
    tree_entry,
    within,
)
from emberd.migrate.parquet_store import base_of, noted
from emberd.replacing import replace_file
from emberd.spaces.stores import folder_beside


class Late:
    """What was written to the folder that a swap has put aside; `kept` is where it is now."""

    def __init__(
        self, place: Path, kept: Path, note: dict[str, Any], options: Mapping[str, str | None]
    ) -> None:
        self._place = place
        self._kept = kept
        self._note = note
        self._options = options
        self._files, self._new, self._brought = (
            {name: _signature(each) for name, each in note[what].items()}
            for what in ("files", "new", "brought")
        )

    @classmethod
    def all_of(
        cls, place: Path, options: Mapping[str, str | None], stamp: Stamp | None
    ) -> Iterator[Self]:
        """Yield those of the migration whose vectors the store has: one, or none."""
        for file in sorted(folder_beside(place).glob("kept-*.json")):
            try:
                note = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            kept = file.with_suffix("")
            if stamp and note["migration"] == stamp.migration and kept.exists():
                yield cls(place, kept, note, options)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of late files that have a text and a vector, and no new vector yet."""
        for name in self._names():
            with suppress(*Broken):
                columns = self._columns(name)
                if self._may(name):
                    yield from self._lacking(name, columns)
                elif columns.id:
                    for key, (text, has) in self._changes(name, columns).items():
                        if text and has:
                            yield Row(key, text)

    def bring(self, given: Mapping[Key, bytes]) -> None:
        """Write late files into the store, as far as vectors are given, or none is needed."""
        for name in self._names():
            with suppress(*Broken):
                signature = tree_entry(within(self._kept, name))
                columns = self._columns(name)
                if not self._may(name):
                    self._merge(name, columns, given)
                    continue
                wanted = {row.key for row in self._lacking(name, columns)}
                if signature and (not wanted or wanted & given.keys()):
                    if not self._write(name, columns, given):
                        continue
                    link(within(self._kept, name), within(base_of(self._kept), name))
                    if wanted <= given.keys():
                        self._files[name] = signature
                    self._save()

    def settle(self) -> None:
        """Do at once what needs no vectors: deletions, and files without vectors."""
        there = tree(self._kept)
        for name in {*self._files, *self._brought} - there.keys():
            target = within(self._place, name)
            if tree_entry(target) in (None, self._new.get(name)):
                target.unlink(missing_ok=True)
            elif is_data(name):
                with suppress(*Broken):
                    self._merge(name, self._columns(name), {})
            for known in (self._files, self._brought, self._new):
                known.pop(name, None)
        for name, signature in there.items():
            if not is_data(name) and self._files.get(name) != signature and self._may(name):
                with suppress(FileNotFoundError):
                    within(self._place, name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(within(self._kept, name), within(self._place, name))
                    self._files[name] = signature
        self._save()
        self.bring({})

    def _names(self) -> list[str]:
        found = tree(self._kept)
        return [
            name
            for name, signature in found.items()
            if is_data(name) and self._files.get(name) != signature
        ]

    def _may(self, name: str) -> bool:
        """Whether nobody has written this file in the store since the swap."""
        return tree_entry(within(self._place, name)) == self._new.get(name)

    def _columns(self, name: str) -> Columns:
        file = within(self._kept, name)
        if not file.exists():
            file = within(base_of(self._kept), name)
        return columns_in(parquet.read_schema(file), self._options, str(file))

    def _lacking(self, name: str, columns: Columns) -> Iterator[Row]:
        """Yield the rows of one file that have no new vector, unless they had none before."""
        new = self._batches(self._place, name, columns) if self._is_brought(name) else None
        for old in self._batches(self._kept, name, columns):
            made = next(new).vectors if new else [None] * len(old.keys)
            for key, text, before, now in zip(old.keys, old.texts, old.vectors, made, strict=True):
                if text and before is not None and now is None:
                    yield Row(key, text)

    def _batches(self, place: Path, name: str, columns: Columns) -> Iterator[Any]:
        return batches(within(place, name), columns, called(self._place, name))

    def _is_brought(self, name: str) -> bool:
        """Whether the store has the file as it is, though without some vectors."""
        brought = self._brought.get(name)
        return brought is not None and brought == tree_entry(within(self._kept, name))

    def _write(self, name: str, columns: Columns, given: Mapping[Key, bytes]) -> bool:
        """Write one file into the store, with the vectors that are given and those it has.

        Returns False if somebody else has written it there meanwhile.
        """
        there, signature = self._is_brought(name), tree_entry(within(self._kept, name))
        source = within(self._place if there else self._kept, name)
        stamp, dimensions = self._stamp_and_size()

        def column(first: int, table: pa.Table) -> pa.Array:
            kind = arrow.resized(table.schema.field(columns.vector).type, dimensions)
            before = arrow.vectors_of(table.column(columns.vector)) if there else None
            keys = keys_in(table, columns, called(self._place, name), first)
            values = np.zeros((len(table), dimensions), np.float32)
            missing = np.ones(len(table), np.bool_)
            for of, key in enumerate(keys):
                raw = given.get(key) or (before[of] if before else None)
                if raw is not None:
                    values[of], missing[of] = np.frombuffer(raw, "<f4"), False
            return arrow.vector_array(values, missing, kind)

        made = self._kept.with_name(f"{self._kept.name}.late")
        made.unlink(missing_ok=True)
        rewrite(
            source, made, columns.vector, column, lambda metadata: arrow.stamped(metadata, stamp)
        )
        target = within(self._place, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._may(name):  # somebody was faster
            made.unlink()
            return False
        made.replace(target)
        new = tree_entry(target)
        assert new and signature  # both are there
        self._new[name], self._brought[name] = new, signature
        return True

    # -- files that were written in both folders ----------------------------------------------

    def _changes(self, name: str, columns: Columns) -> dict[Key, tuple[str | None, bool]]:
        """Return what the old file has that its copy had not: text, and whether it has a vector.

        Rows that were changed in the new file too are left out, as that is newer.
        """
        old, copied, new = (
            self._texts(place, name, columns)
            for place in (self._kept, base_of(self._kept), self._place)
        )
        return {
            key: row
            for key, row in old.items()
            if row != copied.get(key) and _text(new, key) == _text(copied, key)
        }

    def _texts(
        self, place: Path, name: str, columns: Columns
    ) -> dict[Key, tuple[str | None, bool]]:
        if not within(place, name).exists():
            return {}
        found: dict[Key, tuple[str | None, bool]] = {}
        for batch in batches(within(place, name), columns, name):
            has = (raw is not None for raw in batch.vectors)
            found |= dict(zip(batch.keys, zip(batch.texts, has, strict=True), strict=True))
        return found

    def _merge(self, name: str, columns: Columns, given: Mapping[Key, bytes]) -> None:
        """Put changed rows into the file as it is now; all of them, or none yet."""
        if not columns.id:
            return
        target, signature = within(self._place, name), tree_entry(within(self._kept, name))
        at = tree_entry(target)
        changes = self._changes(name, columns)
        if any(text and has and key not in given for key, (text, has) in changes.items()):
            return
        stamp, dimensions = self._stamp_and_size()
        gone = self._gone(name, columns)
        there = self._kept if within(self._kept, name).exists() else base_of(self._kept)
        old = parquet.ParquetFile(within(there, name)).read()
        place = old.schema.get_field_index(columns.vector)
        kind = arrow.resized(old.schema.field(place).type, dimensions)
        keys = arrow.keys_of(old.column(columns.id), name)
        rows = [of for of, key in enumerate(keys) if key in changes]
        raw = [given.get(keys[of]) for of in rows]
        values = np.array([np.frombuffer(r or bytes(4 * dimensions), "<f4") for r in raw])
        missing = np.array([each is None for each in raw], np.bool_)
        column = arrow.vector_array(values.reshape(-1, dimensions), missing, kind)
        table = old.take(pa.array(rows, pa.int64())).set_column(
            place, old.schema.field(place).with_type(kind), column
        )
        if at:
            new = parquet.ParquetFile(target).read()
            drop = {*changes, *gone}
            stay = [key not in drop for key in arrow.keys_of(new.column(columns.id), name)]
            table = pa.concat_tables([new.filter(pa.array(stay)), table.cast(new.schema)])
        made = self._kept.with_name(f"{self._kept.name}.late")
        table = table.replace_schema_metadata(arrow.stamped(table.schema.metadata, stamp))
        parquet.write_table(table, made)
        if tree_entry(target) != at:  # the next look merges with that
            made.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        if signature:
            link(within(self._kept, name), within(base_of(self._kept), name))
            self._files[name] = signature
        self._save()

    def _gone(self, name: str, columns: Columns) -> set[Key]:
        """Return the keys that were deleted in the old file, and not changed in the new one."""
        old, copied, new = (
            self._texts(place, name, columns)
            for place in (self._kept, base_of(self._kept), self._place)
        )
        return {key for key in copied.keys() - old if _text(new, key) == _text(copied, key)}

    def _stamp_and_size(self) -> tuple[Stamp, int]:
        for name in filter(is_data, tree(self._place)):
            with suppress(*Broken):
                stamp = arrow.stamp_in(parquet.read_schema(within(self._place, name)).metadata)
                if stamp:
                    return stamp, stamp.dimensions
        raise StoreError(f"{self._place} has no stamp of a migration any more.")

    def _save(self) -> None:
        note = {
            **self._note, "files": self._files, "new": self._new, "brought": self._brought,
        }  # fmt: skip
        said = json.dumps(note).encode()
        if said != noted(self._kept).read_bytes():
            replace_file(noted(self._kept), said)


def link(source: Path, target: Path) -> None:
    """Keep a file as it is now, whatever is renamed over it later."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)


def _text(rows: Mapping[Key, tuple[str | None, bool]], key: Key) -> str | None:
    return rows[key][0] if key in rows else None


def _signature(kept: list[int]) -> Signature:
    size, time, inode = kept
    return size, time, inode
