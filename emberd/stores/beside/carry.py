"""Rows that somebody writes to the old collection while, or after, the new one is made.

What was written to the new collection since is never written over: a row there is only replaced,
or deleted, while it still is what the snapshot says.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from emberd.stores.base import Key
from emberd.stores.beside.engine import BATCH, Engine, Record
from emberd.stores.beside.snapshot import Snapshot
from emberd.stores.in_order import merged

T = TypeVar("T")


def batched(things: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield lists of at most so many."""
    source = iter(things)
    while batch := list(islice(source, size)):
        yield batch


@dataclass(frozen=True, slots=True)
class Carry:
    """An old collection, the one that took its place, and what the old one held by then."""

    engine: Engine
    old: str
    new: str
    snapshot: Snapshot

    def written(self) -> Iterator[Record]:
        """Yield the rows of the old collection that are to be carried over, with everything."""
        now = self.engine.records(self.old, without=None)
        changed = (
            row
            for row, then in merged(now, self.snapshot.records())
            if row and (then is None or then.digest != row.digest)
        )
        for batch in batched(changed):
            keys = [row.key for row in batch]
            theirs = self._in_new(keys)
            for row in self.engine.fetch(self.old, keys):
                then, other = self.snapshot.get(row.key), theirs.get(row.key)
                if (other and other.digest) == then:
                    yield row

    def write(self, rows: list[Record]) -> None:
        """Carry rows over, as they are to be in the new collection."""
        if rows:
            self.engine.put(self.new, rows)
            self.snapshot.put(rows)

    def the_rest(self) -> None:
        """Carry over what needs no new vector: rows that are gone, and rows that have none."""
        self._delete()
        for batch in batched(row for row in self.written() if not row.vector):
            self.write(batch)

    def _delete(self) -> None:
        now = self.engine.records(self.old, without=None)
        gone = (then for row, then in merged(now, self.snapshot.records()) if then and not row)
        for batch in batched(gone):
            theirs = self._in_new([then.key for then in batch])
            keys = [
                then.key
                for then in batch
                if then.key in theirs and theirs[then.key].digest == then.digest
            ]
            if keys:
                self.engine.remove(self.new, keys)
            self.snapshot.drop(then.key for then in batch)

    def _in_new(self, keys: list[Key]) -> dict[Key, Record]:
        return {row.key: row for row in self.engine.fetch(self.new, keys)}


def follow(engine: Engine, source: str, copy: str) -> int:
    """Make a copy like its source again; return how many rows differed."""
    count = 0
    pairs = merged(engine.records(source, without=None), engine.records(copy, without=None))
    differing = (pair for pair in pairs if not (all(pair) and pair[0] == pair[1]))
    for batch in batched(differing):
        count += len(batch)
        there = [one.key for one, _ in batch if one]
        gone = [other.key for one, other in batch if other and not one]
        if rows := engine.fetch(source, there) if there else []:
            engine.put(copy, rows)
        if gone:
            engine.remove(copy, gone)
    return count
