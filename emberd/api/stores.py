"""`GET /stores`: whose vectors each configured store holds, as far as is noted.

From the config file, `state/stores.json`, and which files are there: no database is opened.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.responses import Response

from emberd.api import answers
from emberd.api.native import HealthWarning
from emberd.api.openapi import ACCESS, NativeError, ResponseBody, fails, gives
from emberd.api.routes import Router
from emberd.aside import aside
from emberd.config.live import LiveConfig
from emberd.config.load import Config
from emberd.config.paths import shown_place, without_password
from emberd.dtypes import Dtype
from emberd.errors import UnknownModelError
from emberd.files import is_gone
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.stores import (
    BACKUPS,
    STAGED,
    KnownStore,
    StoresFile,
    chunk_warnings,
    folder_of,
    warnings,
)


class StoreHolds(ResponseBody):
    """Whose vectors a store holds; `model` is null if they are of several models."""

    model: str | None
    fingerprint: str | None
    dtype: Dtype


class ConfiguredStore(ResponseBody):
    """A store under `stores:`.

    `model` is what its users get: the one that its entry names, or else the default. `holds` and
    `fits` are null until a check or a stamp has said it. `staged`: rows of a migration are kept
    beside the store, which is under way or was stopped. `backups` can be restored by an undo.
    """

    name: str
    path: str
    kind: str | None
    is_there: bool
    model: str
    follows_default: bool
    holds: StoreHolds | None
    fits: bool | None
    chunk: StoreChunking | None
    staged: bool
    backups: int
    warnings: list[HealthWarning]


class StoreRows(ResponseBody):
    """What `GET /stores` answers."""

    stores: list[ConfiguredStore]


def create_router(live: LiveConfig) -> Router:
    """Return the route."""
    router = Router()

    @router.get("/stores", responses=gives(StoreRows, "The stores.") | fails(NativeError, ACCESS))
    async def stores() -> Response:
        """Return a row for every store under `stores:`; opens no database."""
        return answers.as_json({"stores": await aside(partial(_rows, live.config))})

    return router


def _rows(config: Config) -> list[dict[str, Any]]:
    known = StoresFile(config.homes.state).read()
    lock = LockFile(config.homes.state).read()
    return [_row(config, name, known.get(name), lock) for name in config.settings.stores]


def _row(
    config: Config, name: str, known: KnownStore | None, lock: Mapping[str, LockEntry]
) -> dict[str, Any]:
    settings, place = config.settings.stores[name], config.place_of_store(name)
    default = config.catalog.get(config.settings.default)
    asked = settings.model
    with suppress(UnknownModelError):
        asked = settings.model and config.catalog.get(settings.model).name
    if known and not _is_in(known.path, place):
        known = None  # it was another file then
    address = known.path if known else shown_place(place)
    file = Path(address) if isinstance(place, Path) else None
    model = asked or default.name
    warned: list[dict[str, str]] = []
    if known:
        warned = warnings({name: known}, {name: asked}, default, lock)
        warned += chunk_warnings({name: known}, {name: settings.chunk})
    beside = folder_of(address, file, known.part if known else "", config.homes.state)
    return {
        "name": name,
        "path": address,
        "kind": known.kind if known else settings.kind,
        "is_there": not (file and is_gone(file)),
        "model": model,
        "follows_default": asked is None,
        "holds": known
        and {"model": known.model, "fingerprint": known.fingerprint, "dtype": known.dtype},
        "fits": known.fits(model, lock.get(model)) if known else None,
        "chunk": known.chunk if known else settings.chunk,
        "staged": not is_gone(beside / STAGED),
        "backups": len([*beside.glob(BACKUPS)]),
        "warnings": warned,
    }


def _is_in(noted: str, place: Path | str) -> bool:
    """Whether what was noted is this place, or in this folder."""
    if isinstance(place, str):
        return noted == without_password(place)
    return place in (file := Path(noted), *file.parents)
