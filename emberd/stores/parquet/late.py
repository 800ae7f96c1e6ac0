"""What others wrote to the files that a swap has put aside: found there, and brought over.

A note beside the folder that is kept says which state of each file the swap has copied, and links
(`base_of`) have that state. A file that is otherwise in the kept folder was written too late for
the swap: `difference` tells which of its rows.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pyarrow import parquet

from emberd.replacing import replace_file
from emberd.spaces.stores import folder_beside
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.exchange import exchange, mended
from emberd.stores.parquet.difference import Difference
from emberd.stores.parquet.files import (
    Broken,
    Signature,
    columns_in,
    is_data,
    link,
    new_name,
    plain_names,
    signature,
    tree,
    within,
)
from emberd.stores.parquet.kept import base_of, noted, scratch_of, tag_of

DELETED_S = 60.0  # after a swap: what is deleted later was deleted from the backup, by its owner


class Late:
    """What was written to the folder that a swap has put aside; `kept` is where it is now."""

    def __init__(
        self,
        place: Path,
        kept: Path,
        note: dict[str, Any],
        options: Mapping[str, str | None],
        stamp: Stamp,
    ) -> None:
        self._place = place
        self._kept = kept
        self._note = note
        self._options = options
        self._stamp = stamp
        self._names: dict[str, str] = note["names"]
        self._partly: set[str] = {*note["partly"]}
        self._files, self._new = (
            {name: _signature(each) for name, each in note[what].items()}
            for what in ("files", "new")
        )

    @classmethod
    def all_of(
        cls, place: Path, options: Mapping[str, str | None], stamp: Stamp | None
    ) -> Iterator[Self]:
        """Yield those of the migration whose vectors the store has: one, or none."""
        for file in sorted(folder_beside(place).glob("kept-*.json")) if stamp else ():
            with suppress(OSError, ValueError):
                note, kept = json.loads(file.read_bytes()), mended(file.with_suffix(""))
                if stamp and note["migration"] == stamp.migration and kept.exists():
                    yield cls(place, kept, note, options, stamp)

    def rows(self) -> Iterator[Row]:
        """Yield the rows that have a text and had a vector, and have no new one yet.

        What needs no vector is brought over at once: deletions, rows without one, other files.
        """
        self._bring_other_files()
        for name in self._changed():
            with suppress(*Broken), self._difference(name) as found:
                with suppress(OSError):  # nothing may be written
                    self._bring(name, found, {})
                yield from found.lacking()

    def bring(self, given: Mapping[Key, bytes]) -> None:
        """Write late rows into the store, if their vectors are given."""
        for name in self._changed():
            with suppress(*Broken), self._difference(name) as found:
                self._bring(name, found, given)

    def _bring_other_files(self) -> None:
        for name, now in tree(self._kept).items():
            target = self._target(name)
            known = signature(target) == self._new.get(self._names.get(name, name))
            if not is_data(name) and self._files.get(name) != now and known:
                with suppress(OSError):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(within(self._kept, name), target)
                    self._noted(name, now)

    def _changed(self) -> list[str]:
        """Return the files of rows that are not what the swap has copied, or has put there.

        Who read a new file before a late row had its vector, and writes it again, has undone that.
        """
        there, new = tree(self._kept), tree(self._place)
        late = [
            name
            for name, now in there.items()
            if self._files.get(name) != now or name in self._partly or self._is_rewritten(name, new)
        ]
        gone = [name for name in self._names if name not in there and self._was_deleted(name)]
        return [name for name in (*late, *gone) if is_data(name)]

    def _is_rewritten(self, name: str, new: Mapping[str, Signature]) -> bool:
        """Whether the new file is there, and is not what it was."""
        known = self._names.get(name, "")
        return known in new and new[known] != self._new.get(known)

    def _was_deleted(self, name: str) -> bool:
        """Whether a program has deleted a file that it took for one of the store.

        Later, it is the backup that somebody deletes from.
        """
        folder = within(self._kept, name).parent
        with suppress(FileNotFoundError):
            return bool(folder.stat().st_mtime < self._note["at"] + DELETED_S)
        return False

    def _target(self, name: str) -> Path:
        """Return where a file is in the store, or will be."""
        if name not in self._names:
            plain = plain_names([*self._names, name])[name] if is_data(name) else name
            self._names[name] = new_name(plain, tag_of(self._kept), self._names.values())
        return within(self._place, self._names[name])

    @contextmanager
    def _difference(self, name: str) -> Iterator[Difference]:
        """Compare a file with what was copied of it, and with what is in the store."""
        target, base = self._target(name), within(base_of(self._kept), name)
        with self._link(within(self._kept, name)) as old, self._link(target) as new:
            copied = base if base.exists() else None
            if old and copied and old.samefile(copied) and signature(old) != self._files.get(name):
                copied = new  # somebody has written into the very file, so this is not known
            schema = parquet.read_schema(old or base)
            columns = columns_in(schema, self._options, str(within(self._kept, name)))
            difference = Difference(
                columns, plain_names([*self._names]).get(name, name), old=old, copied=copied,
                new=new, others=lambda: self._others(target),
            )  # fmt: skip
            with closing(difference) as found:
                yield found

    @contextmanager
    def _link(self, file: Path) -> Iterator[Path | None]:
        """Give a file as it is now until the end; None if there is none."""
        made = scratch_of(self._kept)
        try:
            link(file, made)
        except FileNotFoundError:
            yield None
            return
        try:
            yield made
        finally:
            made.unlink(missing_ok=True)

    def _others(self, target: Path) -> list[Path]:
        """Return files of the store that were written since the swap, without one."""
        there = tree(self._place)
        return [
            within(self._place, name)
            for name, now in there.items()
            if is_data(name) and self._new.get(name) != now and within(self._place, name) != target
        ]

    def _bring(self, name: str, found: Difference, given: Mapping[Key, bytes]) -> None:
        put, gone, complete = found.plan(given)
        now = signature(found.old) if found.old else None
        if put or gone:
            made, target = scratch_of(self._kept), self._target(name)
            at = signature(found.new) if found.new else None
            try:
                left = found.write(made, put, gone, given, self._stamp)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not _put(made if left else None, target, at):
                    return  # the next look compares with what was written meanwhile
            finally:
                made.unlink(missing_ok=True)
        if complete:
            self._noted(name, now)
            base = within(base_of(self._kept), name)
            if found.old:
                base.parent.mkdir(parents=True, exist_ok=True)
                found.old.replace(base)
            else:
                base.unlink(missing_ok=True)

    def _noted(self, name: str, now: Signature | None) -> None:
        """Note that all of a file as it is now is in the store; None: it is gone."""
        new = self._names[name]
        there = signature(within(self._place, new))
        for known, what, found in ((self._files, name, now), (self._new, new, there)):
            known.pop(what, None)
            if found:
                known[what] = found
        self._partly.discard(name)
        if now is None:
            self._names.pop(name)
        note = {
            **self._note, "names": self._names, "files": self._files, "new": self._new,
            "partly": sorted(self._partly),
        }  # fmt: skip
        replace_file(noted(self._kept), json.dumps(note).encode())


def _put(made: Path | None, target: Path, at: Signature | None) -> bool:
    """Put a file, or nothing, where another one is that was `at`; False if it is no longer."""
    if at is None:
        if made:
            try:
                os.link(made, target)
            except FileExistsError:
                return False
        return True
    if signature(target) != at:
        return False
    if made is None:
        target.unlink(missing_ok=True)
        return True
    ours = signature(made)
    exchange(made, target)
    if signature(made) == at:
        return True
    exchange(made, target)  # somebody was faster: as it was
    if signature(made) != ours:  # and has written once more
        exchange(made, target)
    return False


def _signature(kept: list[int]) -> Signature:
    size, time, inode = kept
    return size, time, inode
