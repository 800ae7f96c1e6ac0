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
        for batch in self._differing():
            yield from self._untouched([row.key for row, _ in batch if row])

    def write(self, rows: list[Record]) -> None:
        """Carry rows over, as they are to be in the new collection."""
        if rows:
            self.engine.put(self.new, rows)
            self.snapshot.put(rows)

    def the_rest(self) -> None:
        """Carry over what needs no new vector: rows that are gone, and rows that have none."""
        for batch in self._differing():
            self._delete([then for row, then in batch if then and not row])
            rows = self._untouched([row.key for row, _ in batch if row])
            self.write([row for row in rows if not row.vector])

    def _differing(self) -> Iterator[list[tuple[Record | None, Record | None]]]:
        """Yield rows of the old collection, now and in the snapshot, that are not the same."""
        now = self.engine.records(self.old, without=None)
        pairs = merged(now, self.snapshot.records())
        return batched(
            (row, then) for row, then in pairs if not (row and then and row.digest == then.digest)
        )

    def _untouched(self, keys: list[Key]) -> list[Record]:
        """Return those rows of the old collection that nobody has written to the new one."""
        theirs = self._in_new(keys)
        return [
            row
            for row in (self.engine.fetch(self.old, keys) if keys else ())
            if (theirs[row.key].digest if row.key in theirs else None) == self.snapshot.get(row.key)
        ]

    def _delete(self, gone: list[Record]) -> None:
        theirs = self._in_new([then.key for then in gone])
        keys = [
            then.key
            for then in gone
            if then.key in theirs and theirs[then.key].digest == then.digest
        ]
        if keys:
            self.engine.remove(self.new, keys)
        if gone:
            self.snapshot.drop(then.key for then in gone)

    def _in_new(self, keys: list[Key]) -> dict[Key, Record]:
        return {row.key: row for row in self.engine.fetch(self.new, keys)} if keys else {}


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
