"""Replaces vectors where nobody can be locked out: a new collection is made beside the old one.

The name of the old one is then given to the new one, which is the engine's own step. The old
collection stays: it is the backup. A token, which is written before anything is made, names both.
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np

from emberd.errors import BackupError, StoreError
from emberd.state import known_fields
from emberd.stores.base import Key, Row, Stamp
from emberd.stores.beside.carry import Carry, batched, follow
from emberd.stores.beside.engine import Engine, Record
from emberd.stores.beside.snapshot import Snapshot
from emberd.stores.files import delete_database, replace_text
from emberd.stores.in_order import merged

FOLLOWED = 20  # passes over a collection that others keep writing to


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What the file of a backup says.

    Attributes:
        kept: the collection with the old vectors.
        dimensions: of its vectors.
        aside: what it is called once its name means another one, if the engine renames it.
        fresh: the name with which the new collection is made; "" in the token of an undo's copy.
        copy_of: the collection that `kept` is a copy of, if it has to go.
        snapshot: the name of the file of the snapshot, beside the token.
    """

    kept: str
    dimensions: int
    aside: str
    fresh: str = ""
    copy_of: str = ""
    snapshot: str = ""

    def write(self, file: Path) -> None:
        """Write it in one step."""
        replace_text(file, json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read it. Raises `BackupError`."""
        try:
            token = cls(**known_fields(cls, json.loads(file.read_text())))
        except (OSError, ValueError, TypeError, AttributeError):
            raise BackupError(
                f"{file} does not say which collection has the old vectors."
            ) from None
        return token


def new_token(engine: Engine, current: str) -> Token:
    """Choose names that are not in use."""
    names = engine.names()
    while True:
        fresh = f"{engine.name}-emberd-{secrets.token_hex(2)}"
        if not any(name.startswith(fresh) for name in names):
            break
    aside, fixed = f"{fresh}-old", engine.is_fixed(current)
    return Token(
        kept=aside if fixed else current, dimensions=engine.about(current).dimensions,
        aside=aside, fresh=fresh, copy_of=current if fixed else "", snapshot=f"{fresh}.rows",
    )  # fmt: skip


def is_ours(name: str) -> bool:
    """Whether a collection was made by a migration, so that no program has it as its own."""
    return "-emberd-" in name


def between(names: Iterable[str], name: str) -> str | None:
    """Return the old collection of a switch that was stopped while the name meant nothing."""
    known = set(names)
    for each in sorted(known):
        fresh = each.removesuffix("-old")
        is_one = each != fresh and fresh.startswith(f"{name}-emberd-")
        if is_one and (fresh in known or f"{fresh}-undone" in known):
            return each
    return None


def present(engine: Engine) -> str:
    """Return the collection that programs find, or found before a switch that was stopped.

    Raises:
        StoreError: there is none.
    """
    found = engine.current()
    if found is None and (old := between(engine.names(), engine.name)):
        found = engine.known_as(old)
    if found is None:
        raise StoreError(f"There is no collection {engine.name}.")
    return found


def digest_of(engine: Engine, collection: str) -> str:
    """Return a digest of all rows, and of the signs in their vectors.

    A vector may be given back with another length once it is in an index; its signs stay.
    """
    digest = blake2b(digest_size=16)
    for row in engine.records(collection, vectors=True, without=None):
        digest.update(f"{row.key!r}\0".encode())
        digest.update(row.digest)
        digest.update(np.packbits(np.signbit(np.frombuffer(row.vector, "<f4"))).tobytes())
    return digest.hexdigest()


class Beside:
    """A new collection beside the old one; see `emberd.stores.base.Replacement`.

    Args:
        engine: the collections.
        carry: how to carry over what is written to the collection before this one.
        seen: the digests of the rows that the store's `halved` found last.
    """

    def __init__(self, engine: Engine, carry: Carry | None, seen: Mapping[Key, bytes]) -> None:
        self._engine = engine
        self._carry = carry
        self._seen = seen
        self._old = present(engine)
        self._read = Snapshot()  # until there is a place for it
        self._token: Token | None = None
        self._file: Path | None = None  # of the snapshot
        self._fresh: str | None = None
        self._is_made = False
        self._may_be_named = False

    def close(self) -> None:
        """Delete what was made and never given the name."""
        with self._read:
            pass
        token = self._token
        if token and self._is_made and not self._may_be_named:
            made = [token.fresh, token.kept] if token.copy_of else [token.fresh]
            for each in map(self._engine.known_as, made):
                if each:
                    self._engine.delete(each)

    def rows(self) -> Iterator[Row]:
        """Yield the rows that have a vector, and remember what they are."""
        for batch in batched(self._engine.records(self._old)):
            self._read.put(batch)
            for row in batch:
                yield Row(row.key, row.text)

    def back_up(self, target: Path) -> None:
        """Write the token, then the snapshot."""
        self._token = new_token(self._engine, self._old)
        self._token.write(target)
        self._file = target.with_name(self._token.snapshot)
        delete_database(self._file)
        with Snapshot(self._file) as snapshot:
            for batch in batched(self._read.records(), 4096):
                snapshot.put(batch)

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Make the new collection; a row that has changed since `rows` is left to `halved`."""
        engine = self._engine
        token = self._token = self._token or new_token(engine, self._old)
        note = {"stamp": stamp.to_json(), "old": token.kept, "snapshot": str(self._file or "")}
        self._is_made = True
        fresh = engine.create(token.fresh, like=self._old, dimensions=dimensions, note=note)
        if engine.about(fresh).note != note:
            raise StoreError(
                f"{engine.name}: this server does not keep the metadata of a collection.",
                hint="Update it; emberd notes there whose vectors a collection has.",
            )
        if token.copy_of:
            like = engine.about(self._old)
            engine.create(token.kept, like=self._old, dimensions=like.dimensions, note=like.note)
        with self._snapshot() as snapshot:
            written = engine.add(fresh, self._copied(vectors, snapshot))
        there = engine.about(fresh).rows
        if there != written:
            raise StoreError(f"Only {there} of {written} rows are in the collection {token.fresh}.")
        self._fresh = fresh

    def _snapshot(self) -> AbstractContextManager[Snapshot]:
        return Snapshot(self._file) if self._file else nullcontext(self._read)

    def _copied(self, vectors: Iterable[tuple[Key, bytes]], snapshot: Snapshot) -> Iterator[Record]:
        """Yield the rows as they are to be, reading the old collection once more."""
        pairs = (Record(key, None, b"", vector) for key, vector in vectors)
        wanted = (
            Record(one.key, None, then.digest if then else b"", new.vector if new else b"")
            for then, new in merged(snapshot.records(), pairs)
            if (one := then or new)
        )
        kept = bool(self._token and self._token.copy_of)
        now = self._engine.records(self._old, vectors=kept, others=True, without=None)
        for batch in batched(merged(now, wanted)):
            if kept and self._token:
                self._engine.add(self._token.kept, [row for row, _ in batch if row])
            unknown = [row.key for row, then in batch if row and not then]
            for each in self._engine.fetch(self._old, unknown) if unknown else ():
                if not each.vector:  # it has a text without a vector, and stays as it is
                    snapshot.put([each])
                    yield each
            changed = []
            for row, then in batch:
                if row and then and row.digest == then.digest and then.vector:
                    yield replace(row, vector=then.vector)
                elif then:
                    changed.append(then.key)
            snapshot.drop(changed)

    def unmoved(self) -> Mapping[str, str]:
        """Return the settings of the collection."""
        return self._engine.about(self._fresh or self._old).settings

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Carry over rows that `halved` found, unless they have changed again."""
        carry = self._carry
        for batch in batched(vectors):
            if carry:
                new = dict(batch)
                rows = self._engine.fetch(carry.old, list(new))
                same = [row for row in rows if self._seen.get(row.key) == row.digest]
                carry.write([replace(row, vector=new[row.key]) for row in same])

    def digest(self) -> str:
        """Read every row of the new collection."""
        return digest_of(self._engine, self._fresh or self._old)

    def commit(self) -> None:
        """Give the name to the new collection; then carry over what needs no new vector."""
        token = self._token
        if not (self._fresh and token):
            if self._carry:
                self._carry.the_rest()
            return
        if token.copy_of:
            for _ in range(FOLLOWED):
                if not follow(self._engine, self._old, token.kept):
                    break
        self._may_be_named = True
        self._engine.switch(self._old, self._fresh, aside=token.aside)
        with self._snapshot() as snapshot:
            Carry(self._engine, token.kept, self._fresh, snapshot).the_rest()


class BesideRestoration:
    """The name of a collection is given back to the old one; see `base.Restoration`."""

    def __init__(self, engine: Engine, token: Token) -> None:
        self._engine = engine
        self._token = token
        self._now = present(engine)

    def copy(self, target: Path) -> None:
        """Write a token: the collection itself stays."""
        about = self._engine.about(self._now)
        aside = f"{self._token.fresh}-undone"
        Token(kept=self._now, dimensions=about.dimensions, aside=aside).write(target)

    def digest(self) -> str:
        """Read every row."""
        return digest_of(self._engine, self._now)

    def commit(self) -> None:
        """Give the name back."""
        self._engine.switch(self._now, self._token.kept, aside=f"{self._token.fresh}-undone")


def discard(engine: Engine, file: Path) -> None:
    """Delete what a token names: the old collection, or one that was never given the name.

    A switch that was stopped halfway is taken back first.
    """
    token = Token.read(file)
    if token.snapshot:
        delete_database(file.with_name(token.snapshot))
    names = engine.names()
    fresh = engine.known_as(token.fresh) if token.fresh in names else None
    now, stopped = engine.current(), between(names, engine.name)
    if now is None and stopped and engine.known_as(stopped) == token.kept:
        engine.switch(None, token.kept, aside="")
        now = token.kept
    if now is None:
        return  # somebody deleted it, and may want what is left
    undone = {Token.read(each).kept for each in file.parent.glob("undone-*.db")}
    never_named = now in (token.kept, token.copy_of)
    if fresh and never_named and fresh not in undone:
        engine.delete(fresh)
    if token.kept != now:
        engine.delete(token.kept)
