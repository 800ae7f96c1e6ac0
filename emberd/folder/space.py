"""Which space a registry entry gives with its present files, without loading it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.folder.reading import Folder, read_folder
from emberd.models.availability import LocalCopy, find_here
from emberd.models.files import hash_files
from emberd.registry.spec import ModelSpec
from emberd.spaces.compare import Comparison, Space, compare
from emberd.spaces.fingerprint import fingerprint
from emberd.spaces.lock import LockEntry


@dataclass(frozen=True, slots=True)
class BackendFiles:
    """What a backend needs of a model: glob patterns of the files that it uses."""

    name: str
    patterns: Sequence[str]


def identify(
    spec: ModelSpec, copy: LocalCopy, backend: BackendFiles, before: LockEntry | None
) -> tuple[LockEntry, Folder]:
    """Return what to remember about a model with these files, and what its folder says.

    Files that have not changed since `before` are not read again.

    Raises:
        ModelLoadError: a file cannot be read, or contradicts the entry.
    """
    known = before.now.files if before and before.now.folder == str(copy.folder) else {}
    files = hash_files(copy.folder, backend.patterns, known)
    says = read_folder(copy.folder)
    options = says.options(spec)
    fingerprints = {
        str(size): fingerprint(spec, files=files, options=options, dimensions=size)
        for size in (spec.dimensions, *spec.matryoshka)
    }
    entry = LockEntry(
        source=str(copy.source),
        folder=str(copy.folder),
        files=files,
        fingerprint=fingerprints[str(spec.dimensions)],
        fingerprints=fingerprints,
        options=options,
        backend=backend.name,
    )
    return entry, says


def compare_models(
    one: ModelSpec, other: ModelSpec, lock: Mapping[str, LockEntry], hub: Path
) -> Comparison:
    """Compare the spaces that two entries give today; `lock` is what is remembered, by name."""
    return compare(*(space_today(spec, lock.get(spec.name), hub) for spec in (one, other)))


def space_today(spec: ModelSpec, entry: LockEntry | None, hub: Path) -> Space:
    """Return what is known about the space of the model's full output size.

    The probes only count while the entry and its folder are as they were when it was loaded.

    Args:
        spec: the registry's entry, which may have been edited since the last load.
        entry: what `lock.json` remembers about the model.
        hub: folder of the Hub's cache.
    """
    space = Space(name=spec.name, model=spec.name, sizes=(spec.dimensions,))
    if entry is None or not entry.now.options.max_tokens:
        if find_here(spec, hub, entry):
            return replace(space, gap=f"{spec.name} has never been loaded here")
        return replace(space, gap=f"the files of {spec.name} are not here")
    now = entry.now
    options = now.options
    with suppress(ModelLoadError):  # its files are gone, or contradict the entry
        options = read_folder(Path(now.folder)).options(spec)
    today = fingerprint(spec, files=now.files, options=options, dimensions=spec.dimensions)
    equivalent = entry.equivalent if today == entry.fingerprint else ()
    space = replace(space, fingerprints=(today, *equivalent), options=options)
    if today not in now.fingerprints.values():
        return replace(space, gap=f"{spec.name} has changed since it was loaded here")
    return replace(space, probes=now.probes)
