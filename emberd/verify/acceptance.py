"""What the lock remembers about a model after a verification, and how a change is accepted.

Until a change is accepted, the lock keeps what was accepted before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from emberd.config.load import Config
from emberd.errors import EmberdError
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile
from emberd.verify.files import Files, differences_from, find_files
from emberd.verify.finding import Finding
from emberd.verify.workers import LoadedModel, run_in_fresh_worker

LOCK_ADVICE = "Make emberd's state folder writable for your user."


@dataclass(frozen=True, slots=True)
class Accepted:
    """The space that is accepted now, and the previous one if they differ."""

    fingerprint: str | None
    left: str | None


def accept(config: Config, spec: ModelSpec) -> Accepted | None:
    """Load a model and accept its present state; return None if that was accepted before.

    Raises:
        EmberdError: it cannot be loaded, or the lock cannot be written.
    """
    lock = LockFile(config.homes.state)
    before = lock.read().get(spec.name)
    if before is None:
        return None
    files = find_files(spec, config.homes.hub, before)
    after = run_in_fresh_worker(config, spec, files.as_entry(before), _only_load).entry
    changed = after.changed_to or differences_from(files, before)
    try:
        lock.put(spec.name, _merged(before, after))
        lock.accept(spec.name)
    except OSError as error:
        raise EmberdError(
            f"lock.json cannot be written: {error.strerror}.", hint=LOCK_ADVICE
        ) from None
    if not changed:
        return None
    stays = before.probes and not after.changed_to
    return Accepted(after.now.fingerprint, None if stays else before.fingerprint)


def remember(
    lock: LockFile, name: str, before: LockEntry | None, after: LockEntry, files: Files
) -> Iterator[Finding]:
    """Write what the load found, except changed files, which are reported until accepted."""
    if before and not after.changed_to and differences_from(files, before):
        return
    try:
        lock.put(name, _merged(before, after))
    except OSError as error:
        detail = f"lock.json cannot be written: {error.strerror}"
        yield Finding("lock", "warning", detail, LOCK_ADVICE)


async def _only_load(model: LoadedModel) -> None:
    """Do nothing: loading the model is enough."""


def _merged(before: LockEntry | None, after: LockEntry) -> LockEntry:
    """Return the new entry; a change that is not accepted leaves the accepted state as it was."""
    if before and after.changed_to:
        return replace(before, changed_to=after.changed_to, cosine=after.cosine)
    return after
