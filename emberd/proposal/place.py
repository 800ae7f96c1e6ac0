"""Where the model is that somebody wants to add: a folder, or a repository on the Hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.config.paths import expand
from emberd.errors import BadOptionError, SourceError
from emberd.files import is_folder
from emberd.hashing import list_files
from emberd.models.local import hub_snapshot, lacks, lacks_description
from emberd.models.modules import TRANSFORMER_FILES
from emberd.proposal import card
from emberd.registry.spec import Source

DESCRIBED_BY = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    *TRANSFORMER_FILES,
    "*_Pooling/config.json",
    "*_Dense/config.json",
    card.FILE,
)
"""The files that say what a model is, as glob patterns; large weights are not among them."""

ELSEWHERE = "If you can get its files in another way, add the folder that they are in."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A model whose files can be read; for a repository, all but the weights.

    Attributes:
        source: as an entry names it, with the commit that was read.
        folder: what was read.
        label: what people call it: OWNER/NAME, or the name of the folder.
        size_bytes: of the files that would be used, weights included.
        note: what to know about how it was read.
    """

    source: Source
    folder: Path
    label: str
    size_bytes: int
    note: str | None = None


def find_place(named: str, revision: str | None, *, hub: Path, files: Sequence[str]) -> Place:
    """Find what the user named; for a repository, get from the Hub the files that describe it.

    Args:
        named: a folder, if it looks like one or there is one; otherwise OWNER/NAME.
        revision: a branch, tag or commit of a repository.
        hub: folder of the Hub's cache.
        files: glob patterns of what the backend needs of a repository.

    Raises:
        BadOptionError: it is neither.
        ModelLoadError: a file is missing.
        SourceError: the Hub cannot be reached, or has no such repository.
    """
    if named.startswith(("/", "~", ".")) or is_folder(Path(named)):
        if revision:
            raise BadOptionError(
                f"--revision is for repositories on the Hub; {named} is a folder.",
                hint="Leave it out.",
            )
        return _own_folder(Path(os.path.normpath(expand(named).absolute())), files)
    return _repository(_on_the_hub(named, revision), hub, files)


def _on_the_hub(named: str, revision: str | None) -> Source:
    try:
        source = Source(hf=named)
    except ValueError:
        raise BadOptionError(
            f"{named[:200]!r} is neither a folder here nor of the form OWNER/NAME.",
            hint="Name a repository, such as intfloat/e5-small-v2, or the path of a folder.",
        ) from None
    try:
        return replace(source, revision=revision)
    except ValueError as error:
        raise BadOptionError(f"--revision: {named} {error}.") from None


def _own_folder(folder: Path, files: Sequence[str]) -> Place:
    missing = lacks(folder)
    if missing:
        raise missing
    return Place(
        source=Source(path=str(folder)),
        folder=folder,
        label=folder.name,
        size_bytes=_size_of(folder, files),
    )


def _repository(source: Source, hub: Path, files: Sequence[str]) -> Place:
    from emberd.models.hub import describe  # not needed for a folder

    label = source.hf or ""
    try:
        described = describe(source, hub, files, DESCRIBED_BY)
    except SourceError as error:
        here = hub_snapshot(label, source.revision or "main", hub)
        if here is None or lacks(here):
            raise SourceError(f"{source}: {error.message}.", hint=error.hint or ELSEWHERE) from None
        return Place(
            source=Source(hf=label, revision=here.name),
            folder=here,
            label=label,
            size_bytes=_size_of(here, files),
            note=f"This is what was downloaded before: {error.message}.",
        )
    missing = lacks_description(described.folder)
    if missing:
        raise missing
    return Place(
        source=Source(hf=label, revision=described.commit),
        folder=described.folder,
        label=label,
        size_bytes=described.size_bytes,
    )


def _size_of(folder: Path, files: Sequence[str]) -> int:
    return sum((folder / name).stat().st_size for name in list_files(folder, files))
