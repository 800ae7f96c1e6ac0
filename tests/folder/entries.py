"""Entries of the registry for a model's folder, and where the two differ."""

from pathlib import Path
from typing import Any

from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from emberd.registry.spec import ModelSpec, Source


def entry(folder: Path, **keys: Any) -> ModelSpec:  # noqa: ANN401 - any of an entry's
    """Return an entry for a folder of `tests.folders`; `keys` are what it says otherwise."""
    return ModelSpec(
        **{
            "name": "mine", "sources": (Source(path=str(folder)),), "dimensions": 64,
            "pooling": "mean", **keys,
        }
    )  # fmt: skip


def said(folder: Path, **keys: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - as above
    """Return key and line of each difference from an entry."""
    found = differences(read_folder(folder), entry(folder, **keys))
    return [(difference.key, difference.line) for difference in found]
