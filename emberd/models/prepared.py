"""Would a model's next start find all that it needs, with nothing to compile or to compare?

Asked without a backend, of `lock.json` and of the files' status. If it says no although everything
is there, a start finds out in a quarter of a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from emberd import __version__
from emberd.flock import locked
from emberd.models.compiled import compiled_key
from emberd.processor import processor_key
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import NO_VERSION, LockEntry

BACKENDS = Path(__file__).parents[1] / "backends"


def is_prepared(spec: ModelSpec, folder: Path, cache: Path, entry: LockEntry | None) -> bool:
    """Say whether it was loaded as it is now: entry, processor, files and libraries.

    And whether all is there that its backend keeps for the next load.

    Args:
        spec: the registry's entry.
        folder: where a start would take the model's files from.
        cache: the folder of what backends keep.
        entry: what `lock.json` remembers about the model.
    """
    now = entry.now if entry else None
    if now is None or not _was_loaded(spec, now) or Path(now.folder) != folder:
        return False
    try:
        made_s = min((path.stat().st_mtime for path in kept_files(spec, cache, now)), default=None)
    except OSError:
        return False
    is_current = made_s is None or made_s >= code_changed_s()
    return now.files_unchanged and is_current and _computes(now.engine)


def is_in_vain(spec: ModelSpec, entry: LockEntry | None) -> bool:
    """Say whether its last load, here and as it is now, could not store what the next one needs.

    Nobody knows why: the next load, or a command, finds out whether that has changed.
    """
    now = entry.now if entry else None
    return now is not None and not now.stored and _was_loaded(spec, now)


def _was_loaded(spec: ModelSpec, now: LockEntry) -> bool:
    return (now.started_for, now.processor) == (spec.load_key, processor_key())


@contextmanager
def in_hand(state: Path, within_s: float) -> Iterator[None]:
    """Keep others from preparing or removing models meanwhile; `state`: the state folder.

    `lock.json` has what was compiled only when all is done. Until then, who removes the model would
    not know of it, and who removes another would take it for what nobody uses.

    Raises:
        OSError: the state folder cannot be written; LockedError: others take longer.
    """
    state.mkdir(0o700, parents=True, exist_ok=True)
    with locked(state / "prepare.flock", within_s):
        yield


def kept_files(spec: ModelSpec, cache: Path, entry: LockEntry) -> list[Path]:
    """Return the files that a backend keeps for the next load of a model."""
    folder = Path(cache, entry.backend or "", compiled_key(spec, entry.files))
    return [folder / name for name in entry.kept]


def code_changed_s() -> float:
    """Return when our backends were last changed or installed: they compile anew then."""
    return max(path.stat().st_mtime for path in BACKENDS.rglob("*.py"))


def _computes(engine: str | None) -> bool:
    """Whether the libraries of an engine, `NAME VERSION, ...`, are those that are installed."""
    for library in (engine or "").split(", "):
        name, _, version = library.partition(" ")
        try:
            installed = __version__ if name == "emberd" else metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = NO_VERSION
        except ValueError:  # no name at all
            return False
        build = version.removeprefix(installed)  # a module may add it to its version
        if version == build or build[:1] not in ("", "-", "+"):
            return False
    return True
