"""Lists the registry's models: whether each is here, and how much disk space it takes."""

from collections.abc import Iterator
from dataclasses import dataclass

from emberd.models import compiled
from emberd.models.availability import find_here
from emberd.models.remove import Places
from emberd.registry.catalog import Catalog
from emberd.registry.spec import InputType, Kind, ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A row of `emberd list`. `folder` is None, and sizes are 0, for files that are not here."""

    name: str
    kind: Kind
    default: bool
    dimensions: int
    pooling: str
    precision: str
    max_tokens: int | None
    pulled: bool
    folder: str | None
    files_bytes: int
    compiled_bytes: int
    fingerprint: str | None
    architecture: str | None
    backend: str
    licence: str | None
    tested: str
    sources: list[str]
    aliases: list[str]
    roles: dict[str, InputType]  # names that state a role, and which


def list_models(catalog: Catalog, default: ModelSpec, places: Places) -> Iterator[ListedModel]:
    """Yield a row for each entry, in the registry's order, without using the network."""
    lock = places.lock.read()
    for spec in catalog:
        entry = lock.get(spec.name)
        here = find_here(spec, places.hub, entry)
        names = catalog.names(spec)
        yield ListedModel(
            name=spec.name,
            kind=spec.kind,
            default=spec is default,
            dimensions=spec.dimensions,
            pooling=spec.pooling,
            precision=spec.precision,
            max_tokens=spec.max_tokens,
            pulled=here is not None,
            folder=str(here.folder) if here else None,
            files_bytes=compiled.size_of(here.folder) if here else 0,
            compiled_bytes=compiled.size_of(*compiled.folders(places.cache, spec, entry)),
            fingerprint=entry.now.fingerprint if entry else None,
            architecture=spec.architecture,
            backend=spec.backend,
            licence=spec.licence,
            tested=spec.tested,
            sources=[str(source) for source in spec.sources],
            aliases=[name for name, role in names.items() if not role][1:],
            roles={name: role for name, role in names.items() if role},
        )


def unused_bytes(catalog: Catalog, places: Places) -> int:
    """Return how many bytes of disk are taken by compiled copies that no entry would use."""
    lock = places.lock.read()
    models = [(spec, lock.get(spec.name)) for spec in catalog]
    return compiled.size_of(*compiled.unused(places.cache, models))
