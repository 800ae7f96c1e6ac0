"""Checks everything that a store kind must do, in one call for the tests of a plugin.

check_store(lambda: JsonlStore(path), tmp_path / "scratch")

The store must have at least ten rows with text and vector, was never migrated, and is not used by
anybody else meanwhile. It is replaced, restored and, at the end, as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np

from emberd.errors import StoreBusyError, StoreError
from emberd.stores.base import (
    Key,
    Replacement,
    Row,
    Stamp,
    Store,
    discard_backup,
    dtypes_of,
    lacking_of,
    locks_writers,
    rounds_vectors,
    unmoved_of,
)
from emberd.stores.in_order import order_of

FEWEST = 10
NEAR = 1e-6  # of numbers in a store that rounds
Promises = dict[str, Callable[[], bool]]


def check_store(make: Callable[[], Store], scratch: Path) -> None:
    """Read, replace and restore a store in every way that matters.

    Args:
        make: opens the store anew.
        scratch: a folder for backups; it is made.

    Raises:
        AssertionError: names every requirement that the kind does not meet.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    case = _Case(make, scratch)
    steps = (_about_reading, _about_what_is_not_committed, _about_a_replacement, _about_a_backup)
    broken = []
    for step in steps:
        for promise, kept in step(case).items():
            flaw = _flaw(kept)
            if flaw is not None:
                broken.append(f"{promise}{flaw}")
        if broken:  # what follows would say the same once more
            break
    if broken:
        raise AssertionError(f"{case.store.kind} does not meet: {'; '.join(broken)}.")


def _flaw(kept: Callable[[], bool]) -> str | None:
    """Return None if a promise is kept, otherwise what was raised, if anything was."""
    try:
        return None if kept() else ""
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        return f" ({type(error).__name__}: {error})"


class _Case:
    """A store, how it was, and vectors that it is given."""

    def __init__(self, make: Callable[[], Store], scratch: Path) -> None:
        self.make, self.scratch = make, scratch
        self.store = make()
        self.before = list(self.store.rows())
        self.shape = self.store.inspect()
        self.digest = self.store.digest()
        self.wider = self.shape.dimensions + 8

    def now(self) -> list[Row]:
        """Return all rows, as somebody sees them who opens the store."""
        return list(self.make().rows())

    def are_same(self, found: Sequence[Row], wanted: Sequence[Row]) -> bool:
        """Whether rows are the same; of a store that rounds, nearly the same."""
        if not rounds_vectors(self.store):
            return found == wanted
        return len(found) == len(wanted) and all(
            (one.key, one.text, len(one.vector)) == (other.key, other.text, len(other.vector))
            and np.allclose(
                np.frombuffer(one.vector, "<f4"), np.frombuffer(other.vector, "<f4"), atol=NEAR
            )
            for one, other in zip(found, wanted, strict=True)
        )

    def is_as_before(self) -> bool:
        """Whether nothing has changed."""
        store = self.make()
        same = self.are_same(self.now(), self.before) and store.digest() == self.digest
        return same and not store.stamp()

    def stamp(self, migration: str, dimensions: int) -> Stamp:
        return Stamp(model="conformance", fingerprint="f" * 16, dimensions=dimensions, probes="",
                     migration=migration, made_at="2026-01-01T00:00:00+00:00")  # fmt: skip

    def vectors(self, rows: Sequence[Row], dimensions: int) -> Iterator[tuple[Key, bytes]]:
        """Yield a vector of length 1 for each row, in order, not all at once."""
        for place, row in enumerate(rows):
            drawn = np.random.default_rng(place).standard_normal(dimensions)
            yield row.key, (drawn / np.linalg.norm(drawn)).astype("<f4").tobytes()

    def fill(self, replacement: Replacement, migration: str, dimensions: int) -> None:
        """Give every row a new vector."""
        rows = [row for row in replacement.rows() if row.text]
        stamp = self.stamp(migration, dimensions)
        replacement.fill(self.vectors(rows, dimensions), dimensions=dimensions, stamp=stamp)


def _about_reading(case: _Case) -> Promises:
    store, rows, shape = case.store, case.before, case.shape
    keys = [row.key for row in rows]
    middle = keys[len(keys) // 2] if keys else 0
    return {
        f"there are at least {FEWEST} rows": lambda: len(rows) >= FEWEST,
        "a key is an int or a string": lambda: all(type(key) in (int, str) for key in keys),
        "`rows` is in the order of the keys: numbers, then strings by code point": lambda: all(
            order_of(one) < order_of(next_) for one, next_ in pairwise(keys)
        ),
        "`rows(after=KEY)` goes on behind it": lambda: [
            row.key for row in store.rows(after=middle)
        ] == keys[keys.index(middle) + 1 :],
        "`rows(vectors=False)` gives the same rows without vectors": lambda: [
            (row.key, row.text, row.vector) for row in store.rows(vectors=False)
        ] == [(row.key, row.text, b"") for row in rows],
        "`inspect().rows` counts them": lambda: shape.rows == len(rows),
        "vectors have the stated size": lambda: all(
            len(row.vector) == shape.vector_bytes for row in rows
        ),
        "`inspect().dtype` is one of its dtypes": lambda: shape.dtype in dtypes_of(store),
        "`search` finds a row by its own vector": lambda: _finds_itself(store, rows),
        "`lacking` names no row that has a text": lambda: not (
            set(lacking_of(store).text) & {row.key for row in rows if row.text}
        ),
        "`stamp` is None before a migration": lambda: store.stamp() is None,
        "`cost` is not negative": lambda: (
            (cost := store.cost(case.wider)).backup_bytes >= 0
            and cost.swap_bytes >= 0
            and cost.locked_s >= 0
        ),
        "`digest` is the same while nothing changes": lambda: case.make().digest() == case.digest,
    }  # fmt: skip


def _finds_itself(store: Store, rows: Sequence[Row]) -> bool:
    vectors = {row.key: row.vector for row in rows}
    return all(vectors.get(next(iter(store.search(row.vector, 3)))) == row.vector
               for row in rows[:: max(1, len(rows) // 5)])  # fmt: skip


def _about_what_is_not_committed(case: _Case) -> Promises:
    def leaves_it_as_it_was() -> bool:
        with case.make().replacing() as replacement:
            case.fill(replacement, "left", case.wider)
            seen = case.now()
        return case.are_same(seen, case.before) and case.is_as_before()

    def fails_as_a_whole() -> bool:
        def broken(rows: Sequence[Row]) -> Iterator[tuple[Key, bytes]]:
            yield from case.vectors(rows[: len(rows) // 2], case.wider)
            raise StoreError("The model has failed.")

        with suppress(StoreError), case.make().replacing() as replacement:
            rows = [row for row in replacement.rows() if row.text]
            stamp = case.stamp("broken", case.wider)
            replacement.fill(broken(rows), dimensions=case.wider, stamp=stamp)
            return False
        return case.is_as_before()

    def is_locked() -> bool:
        with case.make().replacing():
            try:
                with case.make().replacing():
                    return False
            except StoreBusyError:
                return True

    promises: Promises = {
        "what is filled is not seen before `commit`, and is gone without it": leaves_it_as_it_was,
        "`fill` that is stopped halfway changes nothing": fails_as_a_whole,
    }
    if locks_writers(case.store):
        promises["a second `replacing` raises StoreBusyError"] = is_locked
    return promises


def _about_a_replacement(case: _Case) -> Promises:
    backup = case.scratch / "backup.db"
    said: dict[str, object] = {}

    def is_replaced() -> bool:
        store = case.make()
        with store.replacing() as replacement:
            said["rows"] = [(row.key, row.text) for row in replacement.rows()]
            store.backup(backup)
            said["unmoved"] = dict(unmoved_of(replacement))
            case.fill(replacement, "one", case.wider)
            said["unmoved then"] = dict(unmoved_of(replacement))
            said["digest"] = replacement.digest()
            replacement.commit()
        return True

    def has_the_new_vectors() -> bool:
        rows = [row for row in case.before if row.text]
        found = {row.key: row.vector for row in case.now()}
        wanted = [Row(key, None, vector) for key, vector in case.vectors(rows, case.wider)]
        return case.are_same([Row(key, None, each) for key, each in found.items()], wanted)

    def has_the_stamp() -> bool:
        stamp = case.make().stamp()
        return stamp is not None and stamp == case.stamp("one", case.wider)

    return {
        "vectors of another size are put in place by `commit`": is_replaced,
        "`Replacement.rows` are the rows before": lambda: (
            said["rows"] == [(row.key, row.text) for row in case.before]
        ),
        "afterwards every row has its new vector": has_the_new_vectors,
        "keys and texts stay": lambda: (
            [(row.key, row.text) for row in case.now()]
            == [(row.key, row.text) for row in case.before]
        ),
        "`inspect` has the new size": lambda: case.make().inspect().dimensions == case.wider,
        "the stamp is there": has_the_stamp,
        "`search` finds the new vectors": lambda: _finds_itself(case.make(), case.now()),
        "`unmoved` is the same before and after `fill`": lambda: (
            said["unmoved"] == said["unmoved then"]
        ),
        "`Replacement.digest` is what `digest` returns then": lambda: (
            case.make().digest() == said["digest"]
        ),
    }


def _about_a_backup(case: _Case) -> Promises:
    backup, copy = case.scratch / "backup.db", case.scratch / "undone.db"
    damaged = case.scratch / "damaged.db"
    digest = case.make().digest()

    def without_commit() -> bool:
        with case.make().restoring(backup):
            pass
        return case.make().digest() == digest

    def is_restored() -> bool:
        with case.make().restoring(backup) as restoration:
            restoration.copy(copy)
            same = restoration.digest() == digest
            restoration.commit()
        return same

    def damage_is_noticed() -> bool:
        content = backup.read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
        try:
            case.make().check_backup(damaged)
        except StoreError:
            return True
        return False

    def is_freed() -> bool:
        for each in (damaged, backup, copy):
            discard_backup(case.make(), each)
            discard_backup(case.make(), each)  # some of it may be gone already
        return case.make().inspect() == case.shape

    def is_sound() -> bool:
        case.make().check_backup(backup)
        return True

    return {
        "`check_backup` takes a whole backup": is_sound,
        "`check_backup` raises StoreError for half of one": damage_is_noticed,
        "`restoring` without `commit` changes nothing": without_commit,
        "`restoring` sees what is there now": is_restored,
        "a restored store is as it was, without a stamp": case.is_as_before,
        "`copy` makes a file": copy.exists,
        "`discard_backup` can be called again, and with half a backup": is_freed,
        "and harms no store": case.is_as_before,
    }
