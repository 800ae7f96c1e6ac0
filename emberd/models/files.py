"""Hashes the files of a model's folder: those that a backend uses, and the weights it lists."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.hashing import FileHash, hash_file, list_files
from emberd.models.json_files import MEND
from emberd.models.modules import listed_weights


def hash_files(
    folder: Path, patterns: Iterable[str], known: Mapping[str, FileHash]
) -> dict[str, FileHash]:
    """Return the hash of each file below `folder` that matches a pattern, by relative name.

    Weights that the folder's own lists name are always included. A file is read only if its size,
    mtime or inode differs from what `known` says.

    Raises:
        ModelLoadError: one of the files cannot be read.
    """
    hashes: dict[str, FileHash] = {}
    for name in list_files(folder, [*patterns, *listed_weights(folder)]):
        try:
            hashes[name] = hash_file(folder / name, known.get(name))
        except OSError as error:
            raise ModelLoadError(
                f"{folder / name} cannot be read: {error.strerror}.", hint=MEND
            ) from None
    return hashes
