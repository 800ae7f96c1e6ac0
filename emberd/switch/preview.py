"""What another default would mean: are vectors still comparable, and which stores are affected?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from emberd.config.load import Config
from emberd.config.paths import shown_place
from emberd.errors import StoreError
from emberd.folder.space import compare_models
from emberd.models.availability import find_here
from emberd.registry.spec import ModelSpec
from emberd.spaces.compare import Comparison
from emberd.spaces.lock import LockEntry, LockFile


@dataclass(frozen=True, slots=True)
class StoreEffect:
    """A store whose vectors would not match the new default, or may not.

    `re-embed`: they are of another space. `unknown`: nothing is recorded about them, or the store
    cannot be read, and `why` says what is wrong with it.
    """

    name: str
    path: str
    verdict: Literal["re-embed", "unknown"]
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a change of the default means. `run` are the commands to run beside it."""

    file: str
    before: str
    name: str
    dimensions: tuple[int, int]
    space: Comparison
    stores: Sequence[StoreEffect]
    is_here: bool
    run: Sequence[str]
    server: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        space = {"verdict": self.space.verdict, "why": self.space.why}
        return {**asdict(self), "space": space}


def preview(
    config: Config,
    name: str,
    *,
    unreadable: Mapping[str, str],
    server: str | None,
    migrates: bool,
) -> Preview:
    """Return what it would mean to make the model `name` the default; loads and writes nothing.

    Args:
        config: the configuration in force.
        name: a name or alias of the catalog.
        unreadable: what is wrong with stores that cannot be read, by name.
        server: the address of the running server, if there is one.
        migrates: whether the stores will be embedded again in the same step.
    """
    before, after = config.catalog.get(config.settings.default), config.catalog.get(name)
    lock = LockFile(config.homes.state).read()
    space = compare_models(before, after, lock, config.homes.hub)
    stores = affected_stores(config, after, unreadable)
    if space.verdict == "same" and not migrates:
        stores = [store for store in stores if store.verdict != "unknown" or store.why]
    is_here = find_here(after, config.homes.hub, lock.get(after.name)) is not None
    run = [] if is_here else [f"emberd pull {after.name}"]
    if not migrates and any(not store.why for store in stores):
        run.append(f"emberd use {after.name} --migrate")
    return Preview(
        file=str(config.homes.config),
        before=before.name,
        name=after.name,
        dimensions=(before.dimensions, after.dimensions),
        space=space,
        stores=stores,
        is_here=is_here,
        run=run,
        server=server,
    )


def affected_stores(
    config: Config, spec: ModelSpec, unreadable: Mapping[str, str]
) -> list[StoreEffect]:
    """Return the stores that follow the default but may not hold vectors of `spec`'s space."""
    if not config.settings.stores:
        return []
    from emberd.migrate import known  # its libraries are not needed without a store

    entry = LockFile(config.homes.state).read().get(spec.name)
    found: list[StoreEffect] = []
    for name in known.followers(config):
        effect = _effect(config, name, spec.name, entry, unreadable.get(name))
        if effect:
            found.append(effect)
    return found


def _effect(
    config: Config, name: str, model: str, entry: LockEntry | None, wrong: str | None
) -> StoreEffect | None:
    """Return what it means for a configured store if `model` is the default; None if nothing."""
    from emberd.migrate import check, known

    if wrong is None:
        try:
            named = known.find(config, name)
            noted = check.whose(config, named)
        except StoreError as error:
            wrong = error.message
    if wrong is not None:
        path = shown_place(config.place_of_store(name))
        return StoreEffect(name, path, "unknown", f"cannot be read: {wrong}")
    path = named.address
    if noted is None:
        return StoreEffect(name, path, "unknown")
    if not noted.fits(model, entry):
        return StoreEffect(name, path, "re-embed")
    return None
