"""Removes models: plans what would be deleted and which other models would lose it, then does it.

Only the Hub's cache and what backends compiled are ever deleted. The user's own folders and
installed packages stay.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from emberd.errors import RequestError
from emberd.flock import LockedError
from emberd.models import compiled
from emberd.models.availability import find_here
from emberd.models.local import find_local, remove_repository
from emberd.models.prepared import in_hand
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockFile

WAIT_S = 30.0  # for a model that is being prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where models and what is known about them are: the Hub's cache, emberd's, `lock.json`."""

    hub: Path
    cache: Path
    lock: LockFile


@contextmanager
def alone(places: Places) -> Iterator[None]:
    """Plan and remove while no model is being prepared.

    Raises:
        RequestError: one is, for longer than somebody likes to wait, or the state folder cannot be
            written.
    """
    with ExitStack() as held:
        try:
            held.enter_context(in_hand(places.lock.path.parent, WAIT_S))
        except LockedError as error:
            raise RequestError(
                f"A model is being compiled by {error.holder}; nothing was removed.",
                hint="Try again when that is done: the server's log says so.",
            ) from None
        except OSError as error:
            raise RequestError(
                f"{error.filename} cannot be locked: {error.strerror}; nothing was removed.",
                hint="Fix its owner and permissions, then run this again.",
            ) from None
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What removing models would delete.

    Attributes:
        models: the models to remove.
        repositories: Hub repositories that would be deleted.
        kept: repositories that stay because other models use them, with those models' names.
        losing: other models that would lose their files.
        copies: compiled copies that no other model uses.
    """

    models: Sequence[ModelSpec]
    repositories: Sequence[str]
    kept: Mapping[str, Sequence[str]]
    losing: Sequence[str]
    copies: Sequence[Path]

    @property
    def affected(self) -> set[str]:
        """The names of all models that would be gone."""
        return {*self.losing, *(spec.name for spec in self.models)}


@dataclass(frozen=True, slots=True)
class Removed:
    """The bytes of disk that were freed: for each repository, and for compiled copies."""

    repositories: Mapping[str, int]
    compiled_bytes: int


def plan_removal(
    models: Sequence[ModelSpec], catalog: Catalog, places: Places, *, shared: bool
) -> Removal:
    """Find out what removing `models` would delete; with `shared`, also files others use."""
    users = _other_users(models, catalog, places)
    kept = {} if shared else {hub_id: others for hub_id, others in users.items() if others}
    leaving = [hub_id for hub_id in users if hub_id not in kept]
    return Removal(
        models=models,
        repositories=leaving,
        kept=kept,
        losing=sorted({other for hub_id in leaving for other in users[hub_id]}),
        copies=_copies_of_no_other(models, catalog, places),
    )


def remove(removal: Removal, catalog: Catalog, places: Places) -> Removed:
    """Delete what was planned, and compiled copies that no model uses any longer.

    Models whose files are gone are forgotten.

    Raises:
        RequestError: something cannot be deleted; the message names it.
    """
    lock = places.lock
    try:
        freed = {name: remove_repository(name, places.hub) for name in removal.repositories}
        for spec in removal.models:
            entry = lock.read().get(spec.name)
            if entry and not entry.files_remain:
                lock.remove(spec.name)
            elif entry:
                lock.put(spec.name, entry.removed())
        entries = lock.read()
        models = [(spec, entries.get(spec.name)) for spec in catalog]
        unused = compiled.unused(places.cache, models)
        compiled_bytes = compiled.give_back([*removal.copies, *unused])
    except OSError as error:
        raise RequestError(
            f"{error.filename} cannot be removed: {error.strerror}.",
            hint="Fix its owner and permissions, then run this again.",
        ) from None
    return Removed({name: size for name, size in freed.items() if size}, compiled_bytes)


def own_sources(models: Iterable[ModelSpec], hub: Path) -> list[Source]:
    """Return the folders and packages that hold files of these models; they are never deleted."""
    own = ((source, spec.backend) for spec in models for source in spec.sources if not source.hf)
    found = (source for source, backend in own if find_local(source, hub, backend=backend))
    return list(dict.fromkeys(found))


def _other_users(
    models: Sequence[ModelSpec], catalog: Catalog, places: Places
) -> dict[str, list[str]]:
    """Return the Hub repositories of the models, and which other models have their files there."""
    entries = places.lock.read()
    users: dict[str, list[str]] = {hub_id: [] for spec in models for hub_id in spec.hub_ids}
    for other in catalog:
        here = find_here(other, places.hub, entries.get(other.name))
        if other not in models and here and here.source.hf in users:
            users[here.source.hf].append(other.name)
    return users


def _copies_of_no_other(
    models: Sequence[ModelSpec], catalog: Catalog, places: Places
) -> list[Path]:
    """Return the compiled copies that belong to these models and no others."""
    entries = places.lock.read()

    def folders(wanted: Iterable[ModelSpec]) -> set[Path]:
        return {
            folder
            for spec in wanted
            for folder in compiled.folders(places.cache, spec, entries.get(spec.name))
        }

    return sorted(folders(models) - folders(spec for spec in catalog if spec not in models))
