"""Finds a store by its name in the config file, or by its path."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from emberd.config.load import Config
from emberd.config.paths import expand, is_url, shown_place
from emberd.errors import EmberdError, NotAStoreError, StoreError
from emberd.migrate.store_ref import StoreRef
from emberd.stores.base import Store, address_of, part_of
from emberd.stores.exchange import is_there
from emberd.stores.plugins import open_store


def find(
    config: Config,
    wanted: str,
    *,
    kind: str | None = None,
    options: Mapping[str, str] | None = None,
) -> StoreRef:
    """Return the store of this name in `stores:`, or the one at this path.

    A path with its options may mean a configured store, whether either is written as the folder or
    as the file in it. Another table of the same file is another store.

    Raises:
        NotAStoreError: there is none, or several configured ones are there.
        StoreKindError: the kind or one of its options is unknown.
    """
    stores = config.settings.stores
    if wanted in stores:
        return _configured(config, wanted, kind, options or {})
    path = wanted if is_url(wanted) else expand(wanted).resolve()
    if isinstance(path, Path) and not is_there(path):
        nearest = get_close_matches(wanted, stores, n=1)
        known = f" Configured: {', '.join(stores)}." if stores else ""
        raise NotAStoreError(
            f"There is no store {wanted}: no file or folder, and no name under `stores:`.",
            hint=f"Did you mean {nearest[0]}?" if nearest else f"Correct the path.{known}",
        )
    given, name = dict(options or {}), shown_place(path)
    meant = _configured_at(config, path, kind, given)
    if len(meant) > 1:
        raise NotAStoreError(
            f"{name} holds several configured stores: {', '.join(meant)}.",
            hint="Use the name of the one you mean.",
        )
    if meant:
        return _configured(config, meant[0], kind, given)
    store = open_store(path, kind=kind, options=given)
    return StoreRef(name=name, store=store, kind=kind, options=given)


def _configured_at(
    config: Config, place: Path | str, kind: str | None, options: Mapping[str, str]
) -> list[str]:
    """Return the names of the configured stores that a place with these options may mean."""
    places = {shown_place(place)}
    with suppress(StoreError):  # the kind or options may be only in the configuration
        places.add(_place_of(open_store(place, kind=kind, options=options)))
    found = []
    for name in config.settings.stores:
        theirs = config.place_of_store(name)
        if isinstance(theirs, Path) != isinstance(place, Path):
            continue  # a server need not be asked about a path
        own = {shown_place(theirs)}
        with suppress(EmberdError):  # that is a problem of another store
            own.add(_place_of(_configured(config, name, None, {}).store))
        if places & own and _is_part(config, name, kind, options):
            found.append(name)
    return found


def _place_of(store: Store) -> str:
    return str(store.path.resolve()) if store.path else address_of(store)


def _is_part(config: Config, name: str, kind: str | None, options: Mapping[str, str]) -> bool:
    """Whether these options still mean the configured store, not another table of its file."""
    if not options:
        return True
    with suppress(StoreError):
        changed = _configured(config, name, kind, options).store
        return part_of(changed) == part_of(_configured(config, name, None, {}).store)
    return False


def followers(config: Config) -> list[str]:
    """Return the names of the configured stores whose users get the default model."""
    return [name for name, store in config.settings.stores.items() if not store.model]


def served_by_default(config: Config) -> list[StoreRef]:
    """Open the configured stores whose users get the default model.

    Raises:
        StoreError: one cannot be opened; it is named.
    """
    opened = []
    for name in followers(config):
        with naming(name):
            opened.append(_configured(config, name, None, {}))
    return opened


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a store in front of any error about it."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"The store {name}: {error.message}", hint=error.hint) from None


def _configured(
    config: Config, name: str, kind: str | None, options: Mapping[str, str]
) -> StoreRef:
    settings = config.settings.stores[name]
    given = {**settings.options, **options}
    store = open_store(config.place_of_store(name), kind=kind or settings.kind, options=given)
    ref = StoreRef(
        name=name, store=store, options=given, input_type=settings.input_type, chunk=settings.chunk
    )
    if settings.model is None:
        return ref
    spec, role = config.catalog.find(settings.model, settings.input_type, kinds=("embed",))
    return replace(ref, served_by=spec.name, input_type=role)
