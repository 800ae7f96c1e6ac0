"""Pulls a model: fetches it if it is not here, or checks it and fetches damaged files again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emberd.errors import ConfigError, SourceError
from emberd.files import is_file
from emberd.folder.space import BackendFiles, identify
from emberd.hashing import FileHash, list_files
from emberd.models.availability import LocalCopy, find_here
from emberd.models.local import digest_kept, discard, has_digest
from emberd.models.sources import locate
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry, LockFile

if TYPE_CHECKING:
    from emberd.models.hub import OnProgress

Status = Literal["pulled", "updated", "repaired", "changed", "here"]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What hashing a model's files again showed.

    Attributes:
        damaged: files that are not what they should be, or are missing.
        by: the hashes they were compared with: `hub` (the Hub's own, now), `kept` (those of the
            download or the last use) or None (none are known).
        offline: why the Hub could not be asked.
        newer: the commit that the Hub has now, if it is a different one.
    """

    damaged: tuple[str, ...]
    by: str | None
    offline: str | None = None
    newer: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What `pull` did.

    Attributes:
        copy: where the files are.
        check: what checking them found.
        status: `changed` is a folder or package that differs from its last use.
        size_bytes: the size of all files that the backend uses.
        fingerprint: the model's fingerprint now; None if the registry does not use this revision.
        fingerprint_before: the one in `lock.json` before; None if the model was not there.
    """

    copy: LocalCopy
    check: FileCheck
    status: Status
    size_bytes: int = 0
    fingerprint: str | None = None
    fingerprint_before: str | None = None


def pull(
    spec: ModelSpec,
    *,
    backend: BackendFiles,
    hub: Path,
    lock: LockFile,
    revision: str | None,
    update: bool,
    report: "OnProgress",
) -> Pulled:
    """Fetch a model, or check it; remember it in `lock.json` if it is new there.

    Whether a model that changed still gives the same space is decided when it is next loaded.

    Args:
        spec: the registry's entry.
        backend: what the backend needs of the model.
        hub: folder of the Hub's cache.
        lock: what is remembered about models.
        revision: fetch this branch, tag or commit instead of what the entry says.
        update: take the Hub's present commit instead of the one that is here.
        report: progress of a download.

    Raises:
        SourceError: what must be fetched cannot be.
        ConfigError: the entry has no such revision, or the state folder cannot be written.
        ModelLoadError: the files contradict the entry.
    """
    asked = at_revision(spec, revision) if revision else spec
    before = lock.read().get(spec.name)
    now = before.now if before else None
    pulled = _fetch_or_check(
        asked, hub=hub, files=backend.patterns, before=now, update=update, report=report
    )
    folder = pulled.copy.folder
    sizes = ((folder / name).stat().st_size for name in list_files(folder, backend.patterns))
    pulled = replace(pulled, size_bytes=sum(sizes))
    if pulled.copy.source not in spec.sources:
        return pulled
    used = locate(spec, hub=hub, files=backend.patterns, before=before, report=report)
    entry, _ = identify(spec, used, backend, before)
    if before is None:
        _remember(lock, spec.name, entry)
    return replace(
        pulled, fingerprint=entry.fingerprint, fingerprint_before=now.fingerprint if now else None
    )


def _remember(lock: LockFile, name: str, entry: LockEntry) -> None:
    try:
        lock.put(name, entry)
    except OSError as error:
        raise ConfigError(
            f"The folder {lock.path.parent} cannot be written: {error.strerror}.",
            hint="Fix its owner and permissions.",
        ) from None


def _fetch_or_check(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    before: LockEntry | None,
    update: bool,
    report: "OnProgress",
) -> Pulled:
    """Fetch a model that is not here; check one that is, and fetch its damaged files again.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        before: what the lock remembers about the model.
        update: take the Hub's present commit instead of the one that is here.
        report: progress of a download.

    Raises:
        SourceError: what must be fetched cannot be.
    """
    from emberd.models.hub import download

    here = find_here(spec, hub, before)
    if not here:
        located = locate(spec, hub=hub, files=files, before=before, report=report)
        return Pulled(located, FileCheck((), "hub"), "pulled")
    known = before.files if before and before.folder == str(here.folder) else {}
    check = check_files(here, hub=hub, files=files, known=known)
    if not here.source.hf:
        return Pulled(here, check, "changed" if check.damaged else "here")
    if check.offline and (check.damaged or update):
        damaged = f"damaged files ({', '.join(check.damaged)})"
        problem = damaged if check.damaged else "not updated"
        raise SourceError(
            f"{spec.name}: {problem}, and the Hub could not be asked for files ({here.source}:"
            f" {check.offline}).",
            hint=f"Run `emberd pull {spec.name}` again where the Hub can be reached.",
        )
    if not check.damaged and not (check.newer and update):
        return Pulled(here, check, "here")
    status: Status = "updated" if check.newer and update else "repaired"
    same_commit = replace(here.source, revision=here.folder.name)
    source = here.source if status == "updated" else same_commit
    for name in check.damaged:
        discard(here.folder / name)
    try:
        folder = download(source, hub, files, report)
    except SourceError as error:
        raise SourceError(f"{spec.name} could not be {status}: {error.message}.") from None
    return Pulled(LocalCopy(here.source, folder, downloaded=True), check, status)


def check_files(
    here: LocalCopy, *, hub: Path, files: Sequence[str], known: Mapping[str, FileHash]
) -> FileCheck:
    """Hash all of a model's files and compare them with the hashes that are known.

    Args:
        here: where the model is.
        hub: folder of the Hub's cache.
        files: glob patterns of what a Hub repository should hold.
        known: the hashes of the last use; empty if it was never used.
    """
    from emberd.models.hub import look_up

    kept = {name: file.sha256 for name, file in known.items()}
    if not here.source.hf:
        return FileCheck(_damaged(here.folder, kept), "kept" if kept else None)
    try:
        stated = look_up(here.source, hub, files, here.folder.name)
    except SourceError as error:
        names = list_files(here.folder, files)
        kept |= {name: digest for name in names if (digest := digest_kept(here.folder / name))}
        return FileCheck(_damaged(here.folder, kept), "kept" if kept else None, error.message)
    newer = stated.commit if stated.commit != here.folder.name else None
    if not stated.digests:  # a mirror may not state any
        return FileCheck(_damaged(here.folder, kept), "kept" if kept else None, newer=newer)
    return FileCheck(_damaged(here.folder, stated.digests), "hub", newer=newer)


def at_revision(spec: ModelSpec, revision: str) -> ModelSpec:
    """Return the entry with this revision of its Hub sources, and no other sources.

    Raises:
        ConfigError: the entry has no Hub source, or states other revisions.
    """
    on_hub = [source for source in spec.sources if source.hf]
    fitting = tuple(
        source if revision == (source.revision or "main") else replace(source, revision=revision)
        for source in on_hub
        if source.revision in (None, revision)
    )
    if not fitting:
        stated = ", ".join(map(str, on_hub)) or "no Hub source"
        raise ConfigError(
            f"{spec.name} has no source with a revision {revision!r}: the registry says {stated}.",
            hint=f"Change the revision in models.{spec.name}.sources of the config file.",
        )
    return replace(spec, sources=fitting)


def _damaged(folder: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that are not what they should be, are missing or cannot be read."""

    def is_in_order(file: Path, digest: str) -> bool:
        try:
            return is_file(file) and has_digest(file, digest)
        except OSError:
            return False

    return tuple(
        name for name, digest in sorted(digests.items()) if not is_in_order(folder / name, digest)
    )
