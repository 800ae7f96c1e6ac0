"""The default model's files, what `lock.json` remembers, and vector stores."""

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from emberd.cache.commands import look, size_of
from emberd.config.load import Config
from emberd.doctor.entries import check_architecture
from emberd.errors import (
    BackendBrokenError,
    BackendMissingError,
    ModelLoadError,
    RequestError,
)
from emberd.files import bytes_in
from emberd.models.availability import LocalCopy, find_here
from emberd.models.sources import how_to_get
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.units import format_size
from emberd.verify.finding import Finding


def has_default(config: Config) -> bool:
    """Whether the default model is on this machine."""
    return _find_default(config) is not None


def _find_default(config: Config) -> LocalCopy | None:
    spec = config.catalog.get(config.settings.default)
    entry = LockFile(config.homes.state).read().get(spec.name)
    return find_here(spec, config.homes.hub, entry)


def model(config: Config) -> list[Finding]:
    """Whether the default model can load, without the network."""
    spec = config.catalog.get(config.settings.default)
    name = spec.name
    if here := _find_default(config):
        try:
            with suppress(BackendMissingError, BackendBrokenError):  # another check says so
                check_architecture(spec, here.folder)
        except ModelLoadError as error:
            return [
                Finding(
                    "model", "failed", f"{name}, the default: {error.message}", error.hint or ""
                )
            ]
        return [Finding("model", "ok", f"the files of {name}, the default, are on this machine")]
    if all(source.path for source in spec.sources):  # there is nothing to download
        places = ", ".join(str(source.path) for source in spec.sources)
        detail = f"no complete model at {places}, the only source of {name}, the default"
        return [Finding("model", "failed", detail, how_to_get(spec))]
    detail = f"the files of {name}, the default, are not on this machine yet"
    return [Finding("model", "warning", detail, f"Run `emberd pull {name}`.")]


def lock(
    state: Path, specs: Iterable[ModelSpec] | None = None, *, hub: Path | None = None
) -> list[Finding]:
    """Whether `lock.json` can be read, and whether the files that it names exist.

    Missing files do not matter for models that are not in `specs`, nor for those that were found
    elsewhere. `specs` and `hub` are None if they are not known.
    """
    file, locked = state / "lock.json", LockFile(state)
    if damage := locked.damage():
        move = shlex.join(["mv", str(file), f"{file}.damaged"])
        advice = (
            f"Restore it from a backup, or run `{move}`: models then load as if for the first time,"
            " and earlier changes in their vectors go unnoticed."
        )
        return [Finding("lock", "failed", f"{file} is damaged: {damage}", advice)]
    entries = locked.read()
    gone = [name for name, entry in entries.items() if not entry.files_remain]
    ways = {name: f"Run `emberd pull {name}`." for name in gone}
    if specs is not None:
        ways = {
            spec.name: how_to_get(spec)
            for spec in specs
            if spec.name in gone and not (hub and _is_elsewhere(spec, hub, entries[spec.name]))
        }
    if not ways:
        count = f"{len(entries)} model{'' if len(entries) == 1 else 's'} remembered"
        return [Finding("lock", "ok", f"{count}, no files are missing")]
    return [
        Finding(
            "lock",
            "warning",
            f"files of {name} are missing from {entries[name].now.folder}",
            way,
        )
        for name, way in ways.items()
    ]


def _is_elsewhere(spec: ModelSpec, hub: Path, entry: LockEntry) -> bool:
    """Whether the model would be loaded from another folder than the one remembered."""
    here = find_here(spec, hub, entry)
    return here is not None and str(here.folder) != entry.now.folder


def cache(config: Config) -> list[Finding]:
    """Where vectors are kept on disk, and how large that is."""
    file, most_bytes = config.homes.vectors, config.settings.cache.vectors
    size_bytes = size_of(file)
    if not most_bytes:
        left = f"; {file} has {format_size(size_bytes)} of earlier" if size_bytes else ""
        advice = "Run `emberd cache clear` to delete them." if size_bytes else ""
        return [Finding("cache", "ok", f"no vectors are kept on disk{left}", advice)]
    place = f"vectors are kept in {file}, at most {format_size(most_bytes)}"
    try:
        seen = look(file)
    except RequestError as error:
        return [Finding("cache", "warning", f"{place}, but: {error.message}", error.hint or "")]
    detail = f"{place}: {seen.entries:,} vectors, {format_size(seen.size_bytes)}"
    return [Finding("cache", "ok", detail)]


def stores(paths: Mapping[str, Path]) -> list[Finding]:
    """Whether each configured vector store exists and can be read."""
    found = []
    for name, path in paths.items():
        try:
            if path.is_file():
                with path.open("rb") as content:
                    content.read(1)
            size = _size(path)
        except OSError as error:
            detail = f"{path} cannot be read: {error.strerror}"
            advice = f"Correct `stores.{name}.path`, or fix the file's owner and permissions."
            found.append(Finding(f"store {name}", "failed", detail, advice))
        else:
            found.append(Finding(f"store {name}", "ok", f"{path}, {format_size(size)}"))
    return found


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder. Raises OSError."""
    if not path.is_dir():
        return path.stat().st_size
    any(path.iterdir())  # raises errors that `rglob` ignores
    return bytes_in(path)
