"""Is a model here? The one answer, for commands, the server and the worker that loads it.

It needs no network and reads no weights. A model's sources are tried in their order, but the one
that it was loaded from before comes first.
"""

from dataclasses import dataclass
from pathlib import Path

from emberd.errors import SourceError
from emberd.models.local import find_local
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A model's files on this machine: where they are, and which source they belong to."""

    source: Source
    folder: Path
    downloaded: bool


def find_here(spec: ModelSpec, hub: Path, before: LockEntry | None) -> LocalCopy | None:
    """Return where a start would take the model's files from; None if it would have to fetch them.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        before: what `lock.json` remembers about the model. Its source is tried first. If that is an
            installed package, its folder is used as long as it is complete, because the package
            may be installed for another Python than this one.
    """
    for source in in_order(spec, before):
        remembered = source.package and before and str(source) == before.now.source
        last = Path(before.now.folder) if remembered and before else None
        folder = find_local(source, hub, last, backend=spec.backend)
        if folder:
            return LocalCopy(source, folder, downloaded=False)
    return None


def require_here(spec: ModelSpec, hub: Path, before: LockEntry | None) -> LocalCopy:
    """Return what `find_here` does. Raises `SourceError` if the files would have to be fetched."""
    here = find_here(spec, hub, before)
    if here is None:
        raise SourceError(
            f"{spec.name} is not on this machine.", hint=f"Run `emberd pull {spec.name}` first."
        )
    return here


def in_order(spec: ModelSpec, before: LockEntry | None) -> list[Source]:
    """Return the sources in the order in which they are tried: the last used one first."""
    first = before.now.source if before else None
    return sorted(spec.sources, key=lambda source: str(source) != first)
