"""Where the model is that somebody wants to add: a folder, or a repository on the Hub."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from emberd.config.paths import expand
from emberd.errors import BadOptionError, SourceError
from emberd.files import is_folder
from emberd.hashing import list_files
from emberd.models.local import (
    ONNX,
    are_weights,
    hub_snapshot,
    is_complete,
    lacks,
    lacks_description,
)
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
    "*_SpladePooling/config.json",
    "router_config.json",
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
        files: all of its files, weights included, by relative name, and their bytes.
        note: what to know about how it was read.
    """

    source: Source
    folder: Path
    label: str
    files: Mapping[str, int]
    note: str | None = None

    def weights(self, backend: str) -> list[str]:
        """Return the names of the files with weights that this backend reads."""
        return sorted(name for name in self.files if are_weights(name, backend))

    def require_weights(self, backend: str) -> None:
        """Raise ModelLoadError or SourceError unless this backend has all it needs."""
        if self.source.path:
            if missing := lacks(self.folder, backend):
                raise missing
        elif not self.weights(backend):
            from emberd.models.hub import no_weights

            why = no_weights()
            raise SourceError(f"{Source(hf=self.label)}: {why.message}.", hint=why.hint)

    def size_bytes(self, patterns: Iterable[str]) -> int:
        """Return how large the files are that match any of the glob patterns."""
        wanted = tuple(patterns)
        return sum(
            size
            for name, size in self.files.items()
            if any(fnmatch(name, pattern) for pattern in wanted)
        )


def find_place(named: str, revision: str | None, *, hub: Path) -> Place:
    """Find what the user named; for a repository, get from the Hub the files that describe it.

    Args:
        named: a folder, if it looks like one or there is one; otherwise OWNER/NAME.
        revision: a branch, tag or commit of a repository.
        hub: folder of the Hub's cache.

    Raises:
        BadOptionError: it is neither.
        ModelLoadError: a file that describes it is missing.
        SourceError: the Hub cannot be reached, or has no such repository.
    """
    if named.startswith(("/", "~", ".")) or is_folder(Path(named)):
        if revision:
            raise BadOptionError(
                f"--revision is for repositories on the Hub; {named} is a folder.",
                hint="Leave it out.",
            )
        return _own_folder(Path(os.path.normpath(expand(named).absolute())))
    return _repository(_on_the_hub(named, revision), hub)


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


def _own_folder(folder: Path) -> Place:
    missing = lacks_description(folder)
    if missing:
        raise missing
    return Place(
        source=Source(path=str(folder)),
        folder=folder,
        label=folder.name,
        files=_files_in(folder),
    )


def _repository(source: Source, hub: Path) -> Place:
    from emberd.models.hub import describe  # not needed for a folder

    label = source.hf or ""
    try:
        described = describe(source, hub, DESCRIBED_BY)
    except SourceError as error:
        here = hub_snapshot(label, source.revision or "main", hub)
        if here is None or not (is_complete(here) or is_complete(here, ONNX)):
            raise SourceError(f"{source}: {error.message}.", hint=error.hint or ELSEWHERE) from None
        return Place(
            source=Source(hf=label, revision=here.name),
            folder=here,
            label=label,
            files=_files_in(here),
            note=f"This is what was downloaded before: {error.message}.",
        )
    missing = lacks_description(described.folder)
    if missing:
        raise missing
    return Place(
        source=Source(hf=label, revision=described.commit),
        folder=described.folder,
        label=label,
        files=described.files,
    )


def _files_in(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in list_files(folder, ["*"])}
