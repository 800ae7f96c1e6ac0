"""The contract of a store kind: rows of key, text and vector in a file, replaced all at once.

A kind is a class made with a path and options (strings, by keyword). It is found by the entry
point `emberd.stores`; docs/migrating-a-store.md shows a whole one. Every method raises `StoreError`
or one of its kinds, and leaves the store as it was when it does.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

from emberd.spaces.compare import Space
from emberd.spaces.options import SpaceOptions
from emberd.state import known_fields

Key = int | str


@dataclass(frozen=True, slots=True)
class Row:
    """A row that has a vector. `text` is None where it is NULL or no text.

    `vector` is little-endian float32, empty where vectors were not asked for.
    """

    key: Key
    text: str | None
    vector: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a store is. `rows` have a text and a vector; the other two counts lack one."""

    rows: int
    dimensions: int
    without_vector: int = 0
    without_text: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Keys of vectors that no text belongs to, or one that is NULL or empty; and of the reverse."""

    text: Sequence[Key] = ()
    vector: Sequence[Key] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A column of the store's file, beside its own, with BLOBs of the size of a vector.

    Of `rows` BLOBs `same` are the very vector whose key is in their row's column `key` (None where
    no column is such a key); `others` are the first rowids of which that is not so. `moves` says
    whether the store was told to replace it with its own vectors, `movable` whether it can.
    """

    column: str
    rows: int
    same: int
    key: str | None
    others: Sequence[Key]
    moves: bool
    movable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What replacing the vectors takes: bytes of disk beside the new vectors' own, and seconds.

    `backup_bytes` stay, `swap_bytes` come back; writers wait for `locked_s`.
    """

    backup_bytes: int
    swap_bytes: int
    locked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a migrated store says of its vectors, kept inside it.

    `probes` are the vectors of emberd's eight probe texts (`spaces.probes.pack`), `options` the
    limits and options of the space as far as they were recorded; `migration` is the run that wrote
    them.
    """

    model: str
    fingerprint: str
    dimensions: int
    probes: str
    migration: str
    made_at: str
    options: SpaceOptions = SpaceOptions()  # noqa: RUF009 - it is frozen

    @property
    def space(self) -> Space:
        """What is known of the space of the vectors."""
        return Space(
            name="the store", model=self.model, fingerprints=(self.fingerprint,),
            sizes=(self.dimensions,), options=self.options, probes=self.probes,
        )  # fmt: skip

    def to_json(self) -> str:
        """Return it as a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what a store kept, an older or a newer emberd's, too; None for what is no stamp."""
        try:
            data = json.loads(text)
            options = SpaceOptions.from_dict(data.get("options") or {})
            stamp = cls(**{**known_fields(cls, data), "options": options})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        texts = (stamp.model, stamp.fingerprint, stamp.probes, stamp.migration, stamp.made_at)
        is_stamp = all(isinstance(text, str) for text in texts) and type(stamp.dimensions) is int
        return stamp if is_stamp else None


class Replacement(Protocol):
    """A locked store whose vectors are being replaced; nobody sees it before `commit`."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`, in the order of their keys, no vectors."""
        ...

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Put these vectors, one for each key, in place of all, or raise. All else stays."""
        ...

    def vector_keys(self) -> Iterator[Key]:
        """Yield the keys of all vectors there are. A kind may lack this: those of `rows` then."""
        ...

    def set_aside(self, keys: Iterable[Key], *, stamp: Stamp) -> str:
        """Move whole rows out of the store to elsewhere in its file; return where to, in words.

        A kind may lack this; then vectors without a text have to be deleted before it is replaced.
        """
        ...

    def unmoved(self) -> Mapping[str, str]:
        """Return what stands for all but the vectors, by names for people; `fill` changes nothing.

        Keys, every other column, whatever else the file holds, but for the stamp. A kind may lack
        this; then nothing is compared.
        """
        ...

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Take rows of `Store.halved` back from where they were set aside, with new vectors."""
        ...

    def digest(self) -> str:
        """Return what `Store.digest` will return once this is committed."""
        ...

    def commit(self) -> None:
        """Make it last, all of it or, when the process dies, nothing of it."""
        ...


class Restoration(Protocol):
    """A store that nobody else can write to, and that can be made what a backup of it is."""

    def copy(self, target: Path) -> None:
        """Copy the store as it is to a new file, in one step."""
        ...

    def digest(self) -> str:
        """Return what `Store.digest` would."""
        ...

    def commit(self) -> None:
        """Make it what the backup copied, all of it or, when the process dies, nothing of it."""
        ...


def part_of(store: "Store") -> str:
    """Return which of a file's stores it is, its `part`; "" for kinds with one store a file."""
    return str(getattr(store, "part", ""))


class Store(Protocol):
    """One store. `path` is the file that holds the vectors.

    `settings` is a file in which the program that uses the store keeps the name and size of its
    model, None when there is none.
    """

    kind: ClassVar[str]
    path: Path
    settings: Path | None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether this file or folder looks like such a store; cheap, changes nothing."""
        ...

    def inspect(self) -> Shape:
        """Count what is there; says what is wrong when it is no such store."""
        ...

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield the rows that have a text and a vector, in the order of their keys."""
        ...

    def halved(self) -> Iterator[Row]:
        """Yield the rows that have a text and no vector, because it was set aside without a text.

        Somebody wrote their two halves in two steps, and the store was replaced in between. A kind
        that sets nothing aside may lack this, and `Replacement.complete`.
        """
        ...

    def lacking(self) -> Lacking:
        """Return what `rows` lacks. A kind may lack this: rows of `rows` without a text then."""
        ...

    def copies(self) -> Sequence[Copy]:
        """Return where else its file may hold its vectors. A kind may lack this: nowhere then."""
        ...

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Return the keys of the nearest rows, nearest first."""
        ...

    def stamp(self) -> Stamp | None:
        """Return what the last migration wrote, None in a store that was never migrated."""
        ...

    def cost(self, dimensions: int) -> Cost:
        """Measure what `replacing` by vectors of this size would take on this machine."""
        ...

    def digest(self) -> str:
        """Return what stands for all that `backup` would copy; any change of it gives another."""
        ...

    def backup(self, target: Path) -> None:
        """Copy the store as it is now to a new file, in one step; allowed while it is replaced."""
        ...

    def check_backup(self, backup: Path) -> None:
        """Raise `StoreError` when what `backup` copied is damaged, as far as it tells by itself."""
        ...

    def restoring(self, backup: Path) -> AbstractContextManager[Restoration]:
        """Lock the store for writers until the end; without `commit` it is as before."""
        ...

    def replacing(self) -> AbstractContextManager[Replacement]:
        """Lock the store for writers until the end; without `commit` it is as before."""
        ...

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return the content of `settings` for another model."""
        ...
