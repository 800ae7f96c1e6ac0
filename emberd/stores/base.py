"""The contract of a store kind: rows of key, text and vector, whose vectors change all at once.

A kind is a class that is called with a place, a path or a URL, and options (strings, by keyword).
It is found by the entry point `emberd.stores`; docs/writing-a-store.md has a complete example,
and `stores/conformance.py` checks one. When a method fails, it raises `StoreError` or a subclass,
and leaves the store as it was.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from emberd.dtypes import NUMPY, Dtype, row_bytes
from emberd.errors import BackupError
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.compare import Space
from emberd.spaces.options import SpaceOptions
from emberd.state import known_fields

Key = int | str


class Row(NamedTuple):  # three times as fast to make as a frozen dataclass
    """A row that has a vector. `text` is None if it is NULL or not a text.

    `vector` is little-endian, of the store's dtype, or empty if vectors were not asked for.
    """

    key: Key
    text: str | None
    vector: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a store is. `rows` have both text and vector; the other counts lack one of them.

    `dtype` is what the numbers of its vectors are; `ubinary` has 8 dimensions in a byte.
    """

    rows: int
    dimensions: int
    without_vector: int = 0
    without_text: int = 0
    dtype: Dtype = "float"

    @property
    def vector_bytes(self) -> int:
        """The size of a vector."""
        return row_bytes(self.dimensions, self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Keys of rows that are incomplete.

    `text` has the keys of vectors without a text, or with one that is NULL or empty; `vector` has
    the keys of texts without a vector.
    """

    text: Sequence[Key] = ()
    vector: Sequence[Key] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Another column of the store's file that has BLOBs the size of a vector.

    Of its `rows` BLOBs, `same` equal the store's vector whose key is in the column `key` of the
    same row (None if no column has the key); `others` are the first rowids whose BLOBs do not.
    `moves` says whether the store's options ask to replace it too, `movable` whether it can be.
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
    """What replacing the vectors takes: bytes of disk on top of the new vectors, and seconds.

    `backup_bytes` stay in use, `swap_bytes` are free again afterwards; writers wait for `locked_s`.
    """

    backup_bytes: int
    swap_bytes: int
    locked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a migrated store says about its vectors, kept inside the store.

    `probes` are the vectors of emberd's eight probe texts (`spaces.probes.encode`), and `options`
    the limits and options of the space, as far as they were recorded. `migration` identifies the
    run that wrote the vectors. `dtype` is what they were rounded to, with `step` for int8. `chunk`
    is how the rows were cut from longer texts, if that was known.
    """

    model: str
    fingerprint: str
    dimensions: int
    probes: str
    migration: str
    made_at: str
    options: SpaceOptions = SpaceOptions()  # noqa: RUF009 - it is frozen
    dtype: Dtype = "float"
    step: float | None = None
    chunk: StoreChunking | None = None

    @property
    def space(self) -> Space:
        """What is known about the space of the vectors."""
        return Space(
            name="the store", model=self.model, fingerprints=(self.fingerprint,),
            sizes=(self.dimensions,), options=self.options, probes=self.probes,
            dtype=self.dtype, step=self.step,
        )  # fmt: skip

    def to_json(self) -> str:
        """Return it as a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a stamp of any version of emberd; None for anything else."""
        try:
            data = json.loads(text)
            options = SpaceOptions.from_dict(data.get("options") or {})
            chunk = StoreChunking.from_dict(data.get("chunk"))
            stamp = cls(**{**known_fields(cls, data), "options": options, "chunk": chunk})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        texts = (stamp.model, stamp.fingerprint, stamp.probes, stamp.migration, stamp.made_at)
        is_stamp = all(isinstance(text, str) for text in texts) and type(stamp.dimensions) is int
        is_known = stamp.dtype in NUMPY and isinstance(stamp.step, float | None)
        return stamp if is_stamp and is_known else None


class Replacement(Protocol):
    """A locked store whose vectors are being replaced; nobody sees it before `commit`."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows as they are before `fill`, in the order of their keys, no vectors."""
        ...

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        """Replace all vectors with these, one for each key, or raise. Nothing else changes.

        They are of `stamp.dtype`, which is one of the store's `dtypes`.
        """
        ...

    def vector_keys(self) -> Iterator[Key]:
        """Yield the keys of all vectors, or only of those that `rows` lacks.

        Optional: without it, `rows` is taken to have them all.
        """
        ...

    def set_aside(self, keys: Iterable[Key], *, stamp: Stamp) -> str:
        """Move whole rows to another place in the store's file; return where, in words.

        Optional: without it, vectors without a text must be deleted first.
        """
        ...

    def unmoved(self) -> Mapping[str, str]:
        """Return digests of everything except vectors and stamp, by a name for messages.

        This covers the keys, every other column, and whatever else the file holds: `fill` must not
        change them. Optional: without it, nothing is compared.
        """
        ...

    def complete(self, vectors: Iterable[tuple[Key, bytes]]) -> None:
        """Put rows of `Store.halved` back into the store, with new vectors."""
        ...

    def digest(self) -> str:
        """Return what `Store.digest` will return once this is committed."""
        ...

    def commit(self) -> None:
        """Make it permanent: all of it or, if the process dies, none of it."""
        ...


class Restoration(Protocol):
    """A store locked for writers, to be replaced by a backup of it."""

    def copy(self, target: Path) -> None:
        """Copy the store as it is to a new file, in one step."""
        ...

    def digest(self) -> str:
        """Return what `Store.digest` would."""
        ...

    def commit(self) -> None:
        """Restore the backup: all of it or, if the process dies, none of it."""
        ...


class Store(Protocol):
    """One store. `path` is the file or folder that holds the vectors; None if a server does.

    `settings` is the file in which the program that uses the store keeps the name and dimensions of
    its model; None if there is no such file. A kind may also have these, each read by a function at
    the end of this file, which says what holds without it:

        dtypes: ClassVar[Sequence[Dtype]]     what the numbers of its vectors can be
        on_server: ClassVar[bool]             it is made with a URL, too
        on_disk: ClassVar[bool]               it is made with a path
        locks_writers: ClassVar[bool]         nobody can write while it is replaced
        rounds_vectors: ClassVar[bool]        what is read may differ in length or the last bits
        parts_apart: ClassVar[bool]           its parts are backed up and replaced one by one
        address: str                          where a store on a server is, without a password
        part: str                             which of several stores in one place it is
        part_option: ClassVar[str]            the option that says so
        caveats: Sequence[str]                what its engine cannot promise, a sentence each
        discard_backup(backup: Path) -> None  frees what a token names, of which some or all may be
                                              gone already; BackupError if the token is damaged
    """

    kind: ClassVar[str]
    settings: Path | None

    @property
    def path(self) -> Path | None:
        """See above."""
        ...

    @classmethod
    def recognises(cls, place: Any) -> bool:  # noqa: ANN401 - a path, a URL, or either
        """Whether this file, folder or URL looks like such a store; cheap, changes nothing."""
        ...

    def inspect(self) -> Shape:
        """Count the rows; raises if this is not such a store."""
        ...

    def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
        """Yield the rows that have a text and a vector, in the order of their keys."""
        ...

    def halved(self) -> Iterator[Row]:
        """Yield the rows that have a text, but whose vector was set aside because it had none.

        That happens if a program writes vector and text in two steps, and the store is replaced in
        between; and, where writers cannot be locked out, if one wrote to the old vectors' place
        after `Replacement.rows` was read. Optional, like `Replacement.complete`: a kind that sets
        nothing aside and locks writers out needs neither.
        """
        ...

    def lacking(self) -> Lacking:
        """Return what `rows` lacks. Optional: without it, rows with a NULL or empty text count."""
        ...

    def copies(self) -> Sequence[Copy]:
        """Return where else its file may hold its vectors. Optional: without it, nowhere."""
        ...

    def search(self, vector: bytes, count: int) -> Sequence[Key]:
        """Return the keys of the nearest rows, nearest first."""
        ...

    def stamp(self) -> Stamp | None:
        """Return what the last migration wrote; None if the store was never migrated."""
        ...

    def cost(self, dimensions: int) -> Cost:
        """Measure what replacing the vectors by ones of this size would take on this machine."""
        ...

    def digest(self) -> str:
        """Return a digest of everything `backup` would copy; it changes with any of that."""
        ...

    def backup(self, target: Path) -> None:
        """Copy the store as it is now to a new file, in one step; allowed while it is replaced.

        An engine that keeps the old vectors itself writes there what they are called, as JSON: a
        token.
        """
        ...

    def check_backup(self, backup: Path) -> None:
        """Raise `StoreError` if a backup is damaged, as far as the file itself shows."""
        ...

    def restoring(self, backup: Path) -> AbstractContextManager[Restoration]:
        """Lock out writers until the end; without `commit` the store stays as it was."""
        ...

    def replacing(self) -> AbstractContextManager[Replacement]:
        """Lock out writers until the end; without `commit` the store stays as it was.

        Where `locks_writers` is false, this is a snapshot, and what is written after it is found by
        `halved`.
        """
        ...

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Return the content of `settings` for another model."""
        ...


# -- what is optional, and what is used in its place -----------------------------------------


def address_of(store: Store) -> str:
    """Return where a store is, as people may see it: its path, or its URL without a password."""
    own: str | None = getattr(store, "address", None)
    return own or str(store.path)


def caveats_of(store: Store) -> Sequence[str]:
    """Return which promises a store's engine cannot keep."""
    own: Sequence[str] = getattr(store, "caveats", ())
    return own


def locks_writers(store: Store) -> bool:
    """Whether nobody can write to a store while it is replaced: yes."""
    return bool(getattr(store, "locks_writers", True))


def rounds_vectors(store: Store) -> bool:
    """Whether a store gives back other bits than were written, as one that normalizes: no."""
    return bool(getattr(store, "rounds_vectors", False))


def parts_apart(store: Store) -> bool:
    """Whether the parts of one place are replaced one by one: only on a server."""
    return bool(getattr(store, "parts_apart", store.path is None))


def discard_backup(store: Store, backup: Path) -> None:
    """Free what a backup keeps elsewhere than in its file."""
    own: Callable[[Path], None] | None = getattr(store, "discard_backup", None)
    if own and backup.exists():
        with suppress(BackupError):  # a damaged token names nothing
            own(backup)


def own_part(store: Store) -> str:
    """Return its `part` if parts are replaced one by one, otherwise ""."""
    return part_of(store) if parts_apart(store) else ""


def part_of(store: Store) -> str:
    """Return which of a file's stores it is, its `part`; "" for kinds with one store per file."""
    return str(getattr(store, "part", ""))


def part_option_of(store: Store) -> str:
    """Return the option that names a part: `table`."""
    return str(getattr(store, "part_option", "table"))


def lacking_of(store: Store) -> Lacking:
    """Return the keys of vectors without a text, and of texts without a vector."""
    own: Callable[[], Lacking] | None = getattr(store, "lacking", None)
    if own:
        return own()
    return Lacking(text=[row.key for row in store.rows(vectors=False) if not row.text])


def halved_rows(store: Store) -> Iterable[Row]:
    """Return the rows of `Store.halved`."""
    return store.halved() if hasattr(store, "halved") else ()


def dtypes_of(store: Store) -> Sequence[Dtype]:
    """Return what the numbers of a store's vectors can be."""
    own: Sequence[Dtype] = getattr(store, "dtypes", ("float",))
    return own


def copies_of(store: Store) -> Sequence[Copy]:
    """Return the other columns of a store's file that hold its vectors, or BLOBs of that size."""
    own: Callable[[], Sequence[Copy]] | None = getattr(store, "copies", None)
    return own() if own else ()


def unmoved_of(replacement: Replacement) -> Mapping[str, str]:
    """Return what `Replacement.unmoved` does; nothing for a kind without it."""
    own: Callable[[], Mapping[str, str]] | None = getattr(replacement, "unmoved", None)
    return own() if own else {}
