"""Compiled models that backends keep for the next start, each in a folder `cache/BACKEND/KEY/`.

The key covers exactly what a compiled model depends on, so entries that differ only in prompts,
limits or output size share one. A folder that no entry of `lock.json` leads to may be deleted at
any time.
"""

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath

from emberd.files import delete_tree
from emberd.hashing import FileHash
from emberd.models.modules import TRANSFORMER_FILES
from emberd.registry.spec import ModelSpec, is_of_kind
from emberd.spaces.lock import LockEntry

LENGTH = 16  # hex digits
NEW_FOR_S = 60.0


def compiled_key(spec: ModelSpec, files: Mapping[str, FileHash]) -> str:
    """Return the key of what is compiled from these files, with this precision and pooling."""
    parts: list[str] = [spec.precision, spec.pooling]
    if spec.kind != "embed":
        parts.append(spec.kind)
    for name in (name for name in sorted(files) if is_of_kind(name, spec.kind)):
        if PurePath(name).suffix not in (".txt", ".md") and not _is_of_tokenizer(name):
            parts += [name, files[name].sha256]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:LENGTH]


def _is_of_tokenizer(name: str) -> bool:
    path = PurePath(name)
    return path.name in (
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "config_sentence_transformers.json", *TRANSFORMER_FILES,
    ) or path.parent.name.endswith("_Pooling")  # fmt: skip


def folders(cache: Path, spec: ModelSpec, entry: LockEntry | None) -> list[Path]:
    """Return the folders, one for each backend, that hold a model as it was loaded last."""
    if entry is None or not entry.now.files:
        return []
    return sorted(cache.glob(f"*/{compiled_key(spec, entry.now.files)}"))


def unused(cache: Path, models: Iterable[tuple[ModelSpec, LockEntry | None]]) -> list[Path]:
    """Return everything that backends keep but none of these models would use.

    In a folder that is used, these are files for an earlier `compute`, processor or version. What
    is new is spared: a start, in any process, may be about to mention it in `lock.json`.
    """
    kept: dict[Path, list[Collection[str]]] = {}
    for spec, entry in models:
        for folder in folders(cache, spec, entry):
            kept.setdefault(folder, []).append(entry.now.kept if entry else ())
    found = [path for path in cache.glob("*/*") if path not in kept and _is_old(path)]
    for folder, names in kept.items():
        if all(names):  # each model's backend has said what it needs of it
            needed = {name for some in names for name in some}
            found += [
                path for path in folder.glob("*") if path.name not in needed and _is_old(path)
            ]
    return sorted(found)


def _is_old(path: Path) -> bool:
    """Say whether nothing has been written to a file, or below a folder, for a while."""
    try:
        changed_s = max(each.stat().st_mtime for each in (path, *path.glob("*")))
    except OSError:  # gone, or being replaced
        return False
    return time.time() - changed_s > NEW_FOR_S


def size_of(*paths: Path) -> int:
    """Return the bytes of disk that files and folders take, including what links lead to."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        below = (Path(at, name) for at, _, names in os.walk(path) for name in names)
        for file in (path, *below):
            try:
                status = file.stat()
            except OSError:  # deleted meanwhile, or a dangling link
                continue
            seen[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(seen.values())


def give_back(paths: Iterable[Path]) -> int:
    """Delete files and folders; return the bytes of disk that came back.

    Raises:
        OSError: something could not be deleted.
    """
    freed = 0
    for path in paths:
        taken = size_of(path)
        if path.is_dir() and not path.is_symlink():
            delete_tree(path)
        else:
            path.unlink(missing_ok=True)
        freed += taken
    return freed
