"""Which space each known vector store holds: `state/stores.json`, and warnings about mismatches.

Checks, migrations and a short-lived child of the server write the file. The server itself only
reads it, so that it never has to open anybody's database.
"""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from emberd.dtypes import NUMPY, STORED, Dtype
from emberd.registry.spec import ModelSpec
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.compare import Space, compare
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.lock import LockEntry, space_of
from emberd.state import StateFile

STAGED, BACKUPS = "staged.db", "backup-*.db"  # in the folder beside a store


def folder_beside(store: Path) -> Path:
    """Return the folder in which migrations keep what belongs to a store; see `workplace`."""
    return store.with_name(f"{store.name}.emberd")


def folder_of(address: str, path: Path | None, part: str, state: Path) -> Path:
    """Return that folder of any store: for one on a server it is in the state folder.

    `part` is empty unless what is in one place is replaced part by part.
    """
    if path is None:
        name = hashlib.blake2b(f"{address}\n{part}".encode(), digest_size=8).hexdigest()
        return state / "stores" / name
    beside = folder_beside(path)
    return beside / quote(part, safe="") if part else beside


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownStore:
    """Whose vectors a store holds, as far as is known.

    Which model the store's users ask for is in the configuration, not here.

    Attributes:
        path: the file that holds the vectors.
        kind: the kind of store.
        model: the model that made the vectors; None if there are several, or it is unclear.
        fingerprint: of the vectors' space; None if there are several.
        migration: the one in the store's stamp when this was recorded.
        dtype: what the numbers of its vectors are.
        chunk: how its rows were cut from longer texts; None if nobody said that they were.
        part: which part of the place it is, if parts are replaced one by one.
    """

    path: str
    kind: str
    model: str | None
    fingerprint: str | None
    migration: str | None = None
    dtype: Dtype = "float"
    chunk: StoreChunking | None = None
    part: str = ""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote; unknown keys are ignored.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: something is missing or wrong.
        """
        keys = ("path", "kind", "model", "fingerprint")
        further = {
            "migration": data.get("migration"),
            "dtype": data.get("dtype", "float"),
            "chunk": StoreChunking.from_dict(data.get("chunk")),
            "part": data.get("part", ""),
        }
        known = cls(**{key: data[key] for key in keys}, **further)
        if (
            known.dtype not in NUMPY
            or not all(isinstance(text, str) for text in (known.path, known.kind, known.part))
            or not all(
                isinstance(text, str | None)
                for text in (known.model, known.fingerprint, known.migration)
            )
        ):
            raise TypeError("a value has the wrong type")
        return known

    @property
    def space(self) -> Space:
        """What is known about the space of its vectors."""
        fingerprints = (self.fingerprint,) if self.fingerprint else ()
        return Space(
            name="the store", model=self.model, fingerprints=fingerprints, dtype=self.dtype
        )

    def fits(self, name: str, entry: LockEntry | None) -> bool:
        """Whether its vectors are in the space that the model `name` gives, as far as is known.

        `entry` is what `lock.json` remembers about that model.
        """
        return compare(self.space, space_of(name, entry, self.dtype)).is_same


class StoresFile(StateFile[KnownStore]):
    """`stores.json`, by the name or path of a store."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / "stores.json", "stores", KnownStore.from_dict)

    def put(self, name: str, store: KnownStore | None) -> None:
        """Remember a store, or forget it if `store` is None. Raises OSError."""
        with self.changing() as stores:
            if store:
                stores[name] = store
            else:
                stores.pop(name, None)


def fingerprint_here(space: Space, name: str, entry: LockEntry | None) -> str | None:
    """Return the fingerprint to note for vectors of `space`, stamped with one size.

    If the vectors are in the space that model `name` gives, it is the model's own fingerprint for
    their size: another machine may have known the same space by another fingerprint.
    """
    own, size = None, next(iter(space.sizes), None)
    if entry and compare(space, space_of(name, entry, space.dtype, size)).is_same:
        own = entry.now.fingerprints.get(str(size), entry.now.fingerprint)
        own = own and of_dtype(own, space.dtype, space.step or 0.0)
    return own or next(iter(space.fingerprints), None)


def warnings(
    stores: Mapping[str, KnownStore],
    served_by: Mapping[str, str | None],
    default: ModelSpec,
    lock: Mapping[str, LockEntry],
) -> list[dict[str, str]]:
    """Return the warnings of `/health` about configured stores that no longer fit; reads no file.

    Args:
        stores: what is known about stores, by name.
        served_by: for each configured store, the model that its users ask for by name; None if they
            use the default.
        default: the model that is the default now.
        lock: what `lock.json` remembers about the models.
    """
    found = []
    for name, asked in served_by.items():
        store, serving = stores.get(name), asked or default.name
        if not store or store.fits(serving, lock.get(serving)):
            continue
        whose = f"made by {store.model}" if store.model else "of more than one model"
        which = "the default" if asked is None else "what its users ask for"
        dtype = "" if store.dtype == "float" else f" --dtype {STORED[store.dtype]}"
        hint = f"Run `emberd migrate run {shlex.quote(name)} --to {serving}{dtype}`"
        if store.model and asked is None:
            hint += f", or make {store.model} the default again"
        found.append(
            {
                "code": "store_mismatch",
                "message": f"The store {name} holds vectors {whose}, and {which} is {serving}.",
                "hint": f"{hint}.",
            }
        )
    return found


def chunk_warnings(
    stores: Mapping[str, KnownStore], chunks: Mapping[str, StoreChunking | None]
) -> list[dict[str, str]]:
    """Return the warnings of `/health` about stores whose new rows are cut in another way.

    Args:
        stores: what is known about stores, by name.
        chunks: for each configured store, how its users cut rows as its entry states, or None.
    """
    found = []
    for name, new in chunks.items():
        known = stores.get(name)
        if new and known and known.chunk and new != known.chunk:
            found.append(
                {
                    "code": "store_chunk_mismatch",
                    "message": f"The rows of the store {name} are chunks ({known.chunk}), and its"
                    f" entry says that new ones are cut in another way ({new}).",
                    "hint": f"Correct `stores.{name}.chunk`; or cut all documents again, then run"
                    f" `emberd migrate check {shlex.quote(name)} --recut`.",
                }
            )
    return found
