"""What is known of vector stores on this machine: `state/stores.json`, and which no longer fit.

Checks and migrations write it; the server reads it, so that it need not open anybody's database.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from emberd.registry.lock import DAMAGE, LockEntry, locked, write_atomically
from emberd.registry.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownStore:
    """Whose vectors a store holds, as far as was found; `model` None: several models', or unclear.

    Which model its users ask for is no part of it: the configuration says that.
    """

    path: str
    kind: str
    model: str | None
    fingerprint: str | None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`; keys that are no fields are passed over.

        Raises:
            LookupError, TypeError: something is missing, or is no text.
        """
        known = cls(**{key: data[key] for key in ("path", "kind", "model", "fingerprint")})
        if not all(isinstance(text, str) for text in (known.path, known.kind)) or not all(
            isinstance(text, str | None) for text in (known.model, known.fingerprint)
        ):
            raise TypeError("something in it is of another type")
        return known


class StoresFile:
    """Read and write `stores.json`. A damaged or foreign file counts as empty and is replaced."""

    def __init__(self, state: Path) -> None:
        self._path = state / "stores.json"
        self._seen: tuple[int, int, int] | None = None
        self._stores: dict[str, KnownStore] = {}

    def read(self) -> Mapping[str, KnownStore]:
        """Return the stores by name or path; the file is read again only when it has changed."""
        try:
            status = self._path.stat()
        except OSError:
            return {}
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._stores, self._seen = self._parse(), seen
        return self._stores

    def put(self, name: str, store: KnownStore | None) -> None:
        """Remember a store, or forget it. Raises OSError."""
        self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".flock")):
            before = self._parse()
            after = {key: value for key, value in before.items() if key != name}
            if store:
                after[name] = store
            if after != before:
                stores = {key: asdict(value) for key, value in after.items()}
                write_atomically(self._path, json.dumps({"version": 1, "stores": stores}, indent=1))

    def _parse(self) -> dict[str, KnownStore]:
        try:
            stores = json.loads(self._path.read_bytes())["stores"]
            return {name: KnownStore.from_dict(store) for name, store in stores.items()}
        except DAMAGE:
            return {}


def fits(fingerprint: str | None, model: str | None, name: str, entry: LockEntry | None) -> bool:
    """Whether vectors of `fingerprint`, made by `model`, are of the space that `name` gives.

    `entry` is what the lock knows of `name`; of a model that was never loaded it knows nothing, and
    then the names decide.
    """
    if entry is None or fingerprint is None:
        return model == name
    now = entry.now
    return fingerprint in {now.fingerprint, *now.fingerprints.values(), *now.equivalent}


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
        if not store or fits(store.fingerprint, store.model, serving, lock.get(serving)):
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
