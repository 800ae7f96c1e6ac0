"""The space that a registry entry gives with its folder as it is today, before it is loaded."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.models.availability import find_here
from emberd.models.folder import read_folder
from emberd.registry.spec import ModelSpec
from emberd.spaces.compare import Comparison, Space, compare
from emberd.spaces.fingerprint import fingerprint
from emberd.spaces.lock import LockEntry


def compare_models(
    one: ModelSpec, other: ModelSpec, lock: Mapping[str, LockEntry], hub: Path
) -> Comparison:
    """Compare the spaces that two entries give today; `lock` is what is remembered, by name."""
    return compare(*(space_today(spec, lock.get(spec.name), hub) for spec in (one, other)))


def space_today(spec: ModelSpec, entry: LockEntry | None, hub: Path) -> Space:
    """Return what is known of the space of one output size, the model's full one.

    The probes count only while the entry and its folder are as they were when it was loaded.

    Args:
        spec: the registry's entry, which may have been edited since the last load.
        entry: what `lock.json` remembers of the model.
        hub: folder of the Hub's cache.
    """
    space = Space(name=spec.name, model=spec.name, sizes=(spec.dimensions,))
    if entry is None or not entry.now.options.max_tokens:
        if find_here(spec, hub, entry):
            return replace(space, gap=f"{spec.name} was never loaded here")
        return replace(space, gap=f"the files of {spec.name} are not here")
    now = entry.now
    options = now.options
    with suppress(ModelLoadError):  # its files are gone, or contradict the entry
        options = read_folder(Path(now.folder)).options(spec)
    today = fingerprint(spec, files=now.files, options=options, dimensions=spec.dimensions)
    equivalent = entry.equivalent if today == entry.fingerprint else ()
    space = replace(space, fingerprints=(today, *equivalent), options=options)
    if today not in now.fingerprints.values():
        return replace(space, gap=f"{spec.name} was changed since it was loaded here")
    return replace(space, probes=now.probes)
