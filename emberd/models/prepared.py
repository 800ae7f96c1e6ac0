"""Would a model's next start find all that it needs, with nothing to compile or to compare?

Asked without a backend, of `lock.json` and of the files' status. If it says no although everything
is there, a start finds out in a quarter of a second.
"""

from importlib import metadata
from pathlib import Path

from emberd import __version__
from emberd.files import is_file
from emberd.models.compiled import compiled_key
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry


def is_prepared(spec: ModelSpec, folder: Path, cache: Path, entry: LockEntry | None) -> bool:
    """Say whether it was loaded as it is now: entry, files and libraries, with what backends keep.

    Args:
        spec: the registry's entry.
        folder: where a start would take the model's files from.
        cache: the folder of what backends keep.
        entry: what `lock.json` remembers about the model.
    """
    now = entry.now if entry else None
    if now is None or now.started_for != spec.load_key or Path(now.folder) != folder:
        return False
    kept = Path(cache, now.backend or "", compiled_key(spec, now.files))
    try:
        unchanged = all(file.is_of((folder / name).stat()) for name, file in now.files.items())
    except OSError:
        return False
    return unchanged and all(is_file(kept / name) for name in now.kept) and _computes(now.engine)


def _computes(engine: str | None) -> bool:
    """Whether the libraries of an engine, `NAME VERSION, ...`, are those that are installed."""
    for library in (engine or "").split(", "):
        name, _, version = library.partition(" ")
        try:
            installed = __version__ if name == "emberd" else metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            return False
        if not version.startswith(installed):  # a module may add its build to its version
            return False
    return True
