"""Collections of an engine that has no transactions, as `stores.beside.replacement` uses them.

An engine keeps rows in collections. Programs find theirs by a name, and the engine can have the
name mean another collection from one moment to the next, or nearly so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from emberd.stores.base import Key

BATCH = 256  # rows in one request
NOTE = "emberd"  # the key of our note in a collection's metadata


@dataclass(frozen=True, slots=True)
class Record:
    """A row. `vector` is float32, little-endian; empty if it has none, or was not asked for.

    `digest` is of everything except vectors; `rest` is what the engine takes back to write it.
    """

    key: Key
    text: str | None
    digest: bytes
    vector: bytes = b""
    rest: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A collection. `note` is what emberd keeps in its metadata: stamp and snapshot, as JSON."""

    dimensions: int
    rows: int
    note: Mapping[str, Any] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """The collections behind one name. A collection is known by what the engine calls it for good.

    Every method raises `StoreError` if the engine cannot be asked or refuses.
    """

    @property
    def name(self) -> str:
        """The name by which programs find the collection."""
        ...

    def current(self) -> str | None:
        """Return the collection that the name means; None while it means none."""
        ...

    def known_as(self, name: str) -> str | None:
        """Return the collection of this name of its own; None if there is none."""
        ...

    def names(self) -> set[str]:
        """Return the names of all collections."""
        ...

    def exists(self, collection: str) -> bool:
        """Whether a collection is there."""
        ...

    def is_fixed(self, collection: str) -> bool:
        """Whether the name is the collection's own, so that it goes with it."""
        ...

    def about(self, collection: str) -> About:
        """Describe a collection."""
        ...

    def note(self, collection: str) -> Mapping[str, Any] | None:
        """Return a collection's note."""
        ...

    def create(
        self, name: str, *, like: str, dimensions: int, note: Mapping[str, Any] | None
    ) -> str:
        """Create an empty collection with another's settings, for vectors of this size."""
        ...

    def delete(self, collection: str) -> None:
        """Delete a collection; harmless if it is gone."""
        ...

    def switch(self, leaving: str | None, coming: str, *, aside: str) -> None:
        """Have the name mean another collection; `aside` is what the former is called then."""
        ...

    def records(
        self,
        collection: str,
        *,
        after: Key | None = None,
        vectors: bool = False,
        others: bool = False,
        without: bool | None = False,
    ) -> Iterator[Record]:
        """Yield the rows in the order of their keys.

        With `vectors`, they have theirs, and with `others` what else is needed to write them.
        `without` asks for those that have no vector instead; None for all rows.
        """
        ...

    def fetch(self, collection: str, keys: Sequence[Key]) -> list[Record]:
        """Return rows with everything that they have; those that are gone are left out."""
        ...

    def add(self, collection: str, records: Iterable[Record]) -> int:
        """Write rows into a collection that nobody else writes to; return how many."""
        ...

    def put(self, collection: str, records: Sequence[Record]) -> None:
        """Write whole rows in place of those that are there."""
        ...

    def remove(self, collection: str, keys: Sequence[Key]) -> None:
        """Delete rows."""
        ...

    def nearest(self, collection: str, vector: bytes, count: int) -> list[Key]:
        """Search."""
        ...
