"""Hashes the files of a model's folder: those that a backend uses, and the weights they list."""

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from emberd.errors import ModelLoadError
from emberd.hashing import FileHash, hash_file, list_files
from emberd.models.json_files import MEND
from emberd.models.modules import listed_heads, listed_shards


def hash_files(
    folder: Path, patterns: Iterable[str], known: Mapping[str, FileHash]
) -> dict[str, FileHash]:
    """Return the hash of each file below `folder` that matches a pattern, by relative name.

    Weights that one of these files lists are included, whatever their names. A file is read only if
    its size, mtime or inode differs from what `known` says.

    Raises:
        ModelLoadError: one of the files cannot be read.
    """
    hashes: dict[str, FileHash] = {}
    for name in _names(folder, patterns):
        try:
            hashes[name] = hash_file(folder / name, known.get(name))
        except OSError as error:
            raise ModelLoadError(
                f"{folder / name} cannot be read: {error.strerror}.", hint=MEND
            ) from None
    return hashes


def _names(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Return the names of the files that match, and of the weights that the folder's files list.

    A damaged list yields nothing: loading will say what is wrong with it.
    """
    names = list_files(folder, patterns)
    graphs = [name for name in names if name.endswith(".onnx")]
    listed = listed_heads(folder) | (_data_of(folder, graphs) if graphs else listed_shards(folder))
    return sorted({*names, *list_files(folder, listed)}) if listed else names


def _data_of(folder: Path, graphs: Iterable[str]) -> set[str]:
    """Return glob patterns of the files beside ONNX files that hold their weights."""
    from emberd.models.onnx_data import data_files  # most models have none

    return {
        glob.escape(str(PurePath(name).with_name(data)))
        for name in graphs
        for data in data_files(folder / name)
    }
