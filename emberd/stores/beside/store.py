"""What the kinds share whose collections are replaced by others beside them: reading, and undo."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, cast

from emberd.config.paths import shown_place
from emberd.errors import BackupError, NotAStoreError, StoreRowsError
from emberd.stores.base import Cost, Key, Lacking, Replacement, Restoration, Row, Shape, Stamp
from emberd.stores.beside.carry import Carry
from emberd.stores.beside.engine import Engine
from emberd.stores.beside.replacement import (
    Beside,
    BesideRestoration,
    Token,
    digest_of,
    discard,
    present,
)
from emberd.stores.beside.snapshot import ROW_BYTES, Snapshot

MOST = 2**63  # SQLite, which keeps the new vectors until the swap, has no larger numbers


class BesideStore:
    """A store in a folder or on a server; subclasses open its `engine`."""

    settings: Path | None = None
    on_server: ClassVar[bool] = True
    locks_writers: ClassVar[bool] = False
    parts_apart: ClassVar[bool] = True

    def __init__(self, place: Path | str) -> None:
        self.path = place if isinstance(place, Path) else None
        self.address = shown_place(place)
        self._seen: dict[Key, bytes] = {}
        self._replacement: Beside | None = None

    @property
    def engine(self) -> Engine:
        """The collections behind the store's name."""
        raise NotImplementedError

    @property
    def part(self) -> str:
        """The name of the collection: others in the same place are other stores."""
        return self.engine.name

    @property
    def _collection(self) -> str:
        return present(self.engine)

    def require_writable(self) -> None:
        """Raise `StoreError` if it is known that nothing can be written."""

    def inspect(self) -> Shape:
        """Count rows; see `Store`."""
        about = self.engine.about(self._collection)
        without = sum(1 for _ in self.engine.records(self._collection, without=True))
        return Shape(rows=about.rows - without, dimensions=about.dimensions, without_vector=without)

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield rows; see `Store`."""
        for row in self.engine.records(self._collection, after=after, vectors=vectors):
            if isinstance(row.key, int) and row.key >= MOST:
                raise StoreRowsError(
                    f"{self.address}: the row {row.key} has a key of 2^63 or more.",
                    hint="Give such rows a smaller number, or a UUID.",
                )
            yield Row(row.key, row.text, row.vector)

    def halved(self) -> Iterator[Row]:
        """Find what was written to the old collection since; see `Store`."""
        self._seen.clear()
        with self._carrying() as carry:
            if carry is None:
                return
            for row in carry.written():
                if row.vector and row.text:
                    self._seen[row.key] = row.digest
                    yield Row(row.key, row.text)

    def lacking(self) -> Lacking:
        """Look at every row; see `Store`."""
        engine, collection = self.engine, self._collection
        return Lacking(
            text=[row.key for row in engine.records(collection) if not row.text],
            vector=[row.key for row in engine.records(collection, without=True) if row.text],
        )

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Ask the engine."""
        return self.engine.nearest(self._collection, vector, count)

    def stamp(self) -> Stamp | None:
        """Read it from the collection's metadata."""
        note = self.engine.note(self._collection)
        return Stamp.from_json(str(note.get("stamp"))) if note else None

    def cost(self, dimensions: int) -> Cost:
        """Work out what the second collection takes; nobody waits for anything."""
        about = self.engine.about(self._collection)
        copies = 2 if self.engine.is_fixed(self._collection) else 1
        there = self.bytes_here()
        wider = max(1.0, dimensions / max(1, about.dimensions))
        new = int(there * wider) + (copies - 1) * there
        return Cost(backup_bytes=new + about.rows * ROW_BYTES, swap_bytes=0, locked_s=0.0)

    def bytes_here(self) -> int:
        """Return what the collection takes on this machine's disk."""
        return 0

    def digest(self) -> str:
        """Read every row."""
        return digest_of(self.engine, self._collection)

    def backup(self, target: Path) -> None:
        """Write a token: the old collection itself stays."""
        assert self._replacement  # nothing is made beside it at other times
        self._replacement.back_up(target)

    def check_backup(self, backup: Path) -> None:
        """Look for the collection that the token names."""
        token = Token.read(backup)
        try:
            found = self.engine.about(token.kept)
        except NotAStoreError:
            raise BackupError(f"its collection {token.kept} is gone.") from None
        if found.dimensions != token.dimensions:
            raise BackupError(f"its collection {token.kept} has {found.dimensions} dimensions.")

    def discard_backup(self, backup: Path) -> None:
        """Delete the collection that a token names; see `beside.discard`."""
        discard(self.engine, backup)

    @contextmanager
    def restoring(self, backup: Path) -> Iterator[Restoration]:
        """Nobody is locked out: the collection that is left stays as it is then."""
        self.require_writable()
        yield BesideRestoration(self.engine, Token.read(backup))

    @contextmanager
    def replacing(self) -> Iterator[Replacement]:
        """Nobody is locked out; see `beside`."""
        self.require_writable()
        with self._carrying() as carry:
            self._replacement = Beside(self.engine, carry, self._seen)
            try:
                yield cast("Replacement", self._replacement)  # it lacks what is optional
            finally:
                self._replacement.close()
                self._replacement = None

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return `text`: these kinds have no settings."""
        del model, dimensions
        return text

    @contextmanager
    def _carrying(self) -> Iterator[Carry | None]:
        """Yield how to carry over what is written to the old collection; None if it is not kept."""
        collection = self._collection
        note = self.engine.note(collection) or {}
        old, file = str(note.get("old", "")), Path(str(note.get("snapshot", "")))
        if not (old and file.is_file() and self.engine.exists(old)):
            yield None
            return
        with Snapshot(file) as snapshot:
            yield Carry(self.engine, old, collection, snapshot)
