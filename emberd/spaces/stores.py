"""What is known of vector stores on this machine: `state/stores.json`, and which no longer fit.

Checks and migrations write it, and a child of the server that reads stamps; the server itself only
reads it, so that it need not open anybody's database.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from emberd.registry.spec import ModelSpec
from emberd.spaces.compare import Space, compare
from emberd.spaces.lock import LockEntry, space_of
from emberd.state import StateFile


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownStore:
    """Whose vectors a store holds, as far as was found; `model` None: several models', or unclear.

    Which model its users ask for is no part of it: the configuration says that.
    """

    path: str
    kind: str
    model: str | None
    fingerprint: str | None
    migration: str | None = None  # that of the store's stamp when this was found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`; keys that are no fields are passed over.

        Raises:
            LookupError, TypeError: something is missing, or is no text.
        """
        keys = ("path", "kind", "model", "fingerprint")
        known = cls(**{key: data[key] for key in keys}, migration=data.get("migration"))
        if not all(isinstance(text, str) for text in (known.path, known.kind)) or not all(
            isinstance(text, str | None)
            for text in (known.model, known.fingerprint, known.migration)
        ):
            raise TypeError("something in it is of another type")
        return known

    @property
    def space(self) -> Space:
        """What is known of the space of its vectors."""
        fingerprints = (self.fingerprint,) if self.fingerprint else ()
        return Space(name="the store", model=self.model, fingerprints=fingerprints)

    def fits(self, name: str, entry: LockEntry | None) -> bool:
        """Whether its vectors are of the space that model `name` gives, as far as is known.

        `entry` is what `lock.json` remembers of that model.
        """
        return compare(self.space, space_of(name, entry)).is_same


class StoresFile(StateFile[KnownStore]):
    """`stores.json`, by the name or path of a store."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / "stores.json", "stores", KnownStore.from_dict)

    def put(self, name: str, store: KnownStore | None) -> None:
        """Remember a store, or forget it. Raises OSError."""
        with self.changing() as stores:
            if store:
                stores[name] = store
            else:
                stores.pop(name, None)


def fingerprint_here(space: Space, name: str, entry: LockEntry | None) -> str | None:
    """Return the fingerprint to note for vectors of `space`, stamped with one size.

    Where the vectors are of the space that model `name` gives, it is the model's own for their
    size: another machine may have known the same space by another fingerprint.
    """
    own = None
    if entry and compare(space, space_of(name, entry)).is_same:
        size = next(iter(space.sizes), None)
        own = entry.now.fingerprints.get(str(size), entry.now.fingerprint)
    return own or next(iter(space.fingerprints), None)


def warnings(
    stores: Mapping[str, KnownStore],
    served_by: Mapping[str, str | None],
    default: ModelSpec,
    lock: Mapping[str, LockEntry],
) -> list[dict[str, str]]:
    """Return what `/health` says of configured stores that fit no more; reads no file.

    Args:
        stores: what is known, by name.
        served_by: the configured stores, and the model that the users of each name; None: none.
        default: the model in force for those.
        lock: what is known of the models.
    """
    found = []
    for name, asked in served_by.items():
        store, serving = stores.get(name), asked or default.name
        if not store or store.fits(serving, lock.get(serving)):
            continue
        whose = f"made by {store.model}" if store.model else "of more than one model"
        which = "the default" if asked is None else "what its users ask for"
        hint = f"Run `emberd migrate run {shlex.quote(name)} --to {serving}`"
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
