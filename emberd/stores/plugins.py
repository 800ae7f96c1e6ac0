"""Store kinds by name: cmem, sqlite-vec, and what is installed under `emberd.stores`."""

import inspect
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from emberd.config.paths import without_password
from emberd.errors import NotAStoreError, StoreKindError
from emberd.stores.base import Store
from emberd.stores.exchange import is_there

GROUP = "emberd.stores"
OPTIONAL = {"halved", "lacking", "copies"}  # of `Store`'s methods
FIRST = ("cmem", "llm", "sqlite-vec")  # these try to recognise a path before plugins do
INDEXES = (".faiss", ".usearch")  # docs/decisions/0060
LAST = ("blob",)  # what any other kind knows better is not its own


def kinds() -> list[str]:
    """Return the names of all installed kinds, ours first, without importing them."""
    return sorted(_installed(), key=lambda name: (name in LAST, name not in FIRST, name))


def load(kind: str) -> type[Store]:
    """Import a kind.

    Raises:
        StoreKindError: no such kind is installed, it cannot be imported, or it lacks a method of
            `Store`, perhaps because it was written for an older emberd.
    """
    found = _installed().get(kind)
    if found is None:
        raise StoreKindError(
            f"There is no store kind {kind!r}; the kinds are {', '.join(kinds())}.",
            hint=f"Install the package that has the entry point {kind!r} in the group {GROUP!r}.",
        )
    package = found.dist.name if found.dist else found.module
    try:
        loaded: type[Store] = found.load()
    except Exception as error:
        raise StoreKindError(
            f"The store kind {kind!r} cannot be used: {type(error).__name__}: {error}.",
            hint=f"Reinstall {package}.",
        ) from error
    methods = [name for name, method in vars(Store).items() if inspect.isroutine(method)]
    wanted = [name for name in methods if not name.startswith("_") and name not in OPTIONAL]
    lacking = [name for name in wanted if not callable(getattr(loaded, name, None))]
    if lacking:
        raise StoreKindError(
            f"The store kind {kind!r} cannot be used: it has no {', '.join(lacking)}.",
            hint=f"Update {package}, which was written for another version of emberd;"
            " docs/writing-a-store.md describes what a kind needs.",
        )
    return loaded


def open_store(place: Path | str, *, kind: str | None, options: Mapping[str, str]) -> Store:
    """Open the store at a path or URL; without a kind, the first one that recognises it is used.

    Raises:
        NotAStoreError: nothing is there, or no kind recognises it.
        StoreKindError: the kind is unknown or broken, or has no such option.
    """
    shown = place if isinstance(place, Path) else without_password(place)
    if isinstance(place, Path):
        _require_there(place)
    if kind is None:
        kind = next((name for name in kinds() if _takes(name, place, looking=True)), None)
    if kind is None and isinstance(place, Path) and _is_index(place):
        raise NotAStoreError(
            f"{shown} is an index of FAISS or usearch, which has no texts to embed again.",
            hint="Build a new one from the texts, or from a store that has them, as"
            " docs/migrating-a-store.md describes under `Kinds of stores`.",
        )
    if kind is None:
        raise NotAStoreError(
            f"{shown} is not a store that emberd recognizes (kinds: {', '.join(kinds())}).",
            hint="Name its kind with --kind; to add one, see docs/writing-a-store.md.",
        )
    made = load(kind)
    if not _takes(kind, place):
        what = "a path" if isinstance(place, Path) else "a URL"
        raise StoreKindError(
            f"A store of kind {kind} is not at {what} such as {shown}.",
            hint="Correct the kind or the place; docs/migrating-a-store.md has an example of each.",
        )
    known = list(inspect.signature(made).parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise StoreKindError(
            f"A store of kind {kind} has no option {unknown[0]!r}.",
            hint=f"Its options: {', '.join(known) or 'none'}.",
        )
    return made(place, **options)  # type: ignore[call-arg]  # a Protocol cannot state __init__


def _require_there(path: Path) -> None:
    try:
        there = is_there(path)
    except OSError as error:  # a folder that may not be entered
        raise NotAStoreError(
            f"{path} cannot be reached: {error.strerror}.", hint="Correct the path or permissions."
        ) from None
    if not there:
        raise NotAStoreError(f"There is no store at {path}.", hint="Correct the path or name.")


def _is_index(place: Path) -> bool:
    """Whether it is a file that only holds vectors and their keys, or a folder with one."""
    return any(file.suffix in INDEXES for file in (place, *place.glob("*")))


def _takes(kind: str, place: Path | str, *, looking: bool = False) -> bool:
    """Whether a kind can be at such a place, and, if `looking`, recognises it."""
    made = load(kind)
    if isinstance(place, Path):
        can = bool(getattr(made, "on_disk", True))
    else:
        can = bool(getattr(made, "on_server", False))
    return can and (not looking or made.recognises(place))


def _installed() -> Mapping[str, EntryPoint]:
    """Return the entry points by name; a plugin cannot replace one of our kinds."""
    return _installed_on(tuple(sys.path))


@cache
def _installed_on(path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Look for them once in a process: it takes a tenth of a second."""
    del path  # what is there, `entry_points` finds
    found = sorted(entry_points(group=GROUP), key=lambda point: point.module.startswith("emberd."))
    return {point.name: point for point in found}
