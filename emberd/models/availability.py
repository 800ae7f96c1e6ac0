"""Is a model here? The one answer, for commands, the server and the worker that loads it.

Found without the network and without reading weights: in the order of a model's sources, beginning
with the one that it was loaded from before.
"""

from dataclasses import dataclass
from pathlib import Path

from emberd.models.local import find_local
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """Where a model's files are."""

    source: Source
    folder: Path
    downloaded: bool


def find_here(spec: ModelSpec, hub: Path, before: LockEntry | None) -> LocalCopy | None:
    """Return where a start would take the model's files from, or None when it has to fetch them.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        before: what `lock.json` remembers of the model. Its source comes first, and where an
            installed package had the files is where they are as long as they lie there: whoever
            asks now may be another interpreter than the one that the package was installed for.
    """
    for source in in_order(spec, before):
        remembered = source.package and before and str(source) == before.now.source
        folder = find_local(source, hub, Path(before.now.folder) if remembered and before else None)
        if folder:
            return LocalCopy(source, folder, downloaded=False)
    return None


def in_order(spec: ModelSpec, before: LockEntry | None) -> list[Source]:
    """Return the sources as they are tried: the one that was used before, then the rest."""
    first = before.now.source if before else None
    return sorted(spec.sources, key=lambda source: str(source) != first)
