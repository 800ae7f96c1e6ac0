"""The identity of a vector space: two vectors may be compared when their fingerprints are equal.

Over everything that moves vectors: model files, tokenizer, precision, pooling, normalization,
max_tokens, prompts and output dimensions. Not over the backend or the compute precision: those
must not move them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.files import is_file
from emberd.registry.folder import MEND, listed_weights
from emberd.registry.options import SpaceOptions
from emberd.registry.spec import ModelSpec

FORMAT = 1  # raise it when the same inputs must give another fingerprint
LENGTH = 16  # hex digits: 64 bits


@dataclass(frozen=True, slots=True)
class FileHash:
    """A file's content hash and what tells cheaply that it may have changed."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str


def hash_files(
    folder: Path, patterns: Iterable[str], known: Mapping[str, FileHash]
) -> dict[str, FileHash]:
    """Return the hash of each file below `folder` that matches a pattern, by relative name.

    Weights that the folder's own lists name are among them, whatever the patterns are. A file is
    read only when its size, mtime or inode differ from what `known` says.

    Raises:
        ModelLoadError: one of the files cannot be read.
    """
    hashes: dict[str, FileHash] = {}
    for name in list_files(folder, [*patterns, *listed_weights(folder)]):
        try:
            hashes[name] = _hash(folder / name, known.get(name))
        except OSError as error:
            raise ModelLoadError(
                f"{folder / name} cannot be read: {error.strerror}.", hint=MEND
            ) from None
    return hashes


def _hash(file: Path, before: FileHash | None) -> FileHash:
    status = file.stat()
    seen = (status.st_size, status.st_mtime_ns, status.st_ino)
    if before and (before.size, before.mtime_ns, before.inode) == seen:
        return before
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return FileHash(*seen, digest)


def list_files(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Return the sorted relative names below `folder` that match any of the glob patterns."""
    names = [
        os.path.relpath(Path(root) / file, folder)
        for root, _, files in os.walk(folder)
        for file in files
        if is_file(Path(root, file))  # no link that leads nowhere
    ]
    wanted = tuple(patterns)
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in wanted))


def fingerprint(
    spec: ModelSpec, *, files: Mapping[str, FileHash], options: SpaceOptions, dimensions: int
) -> str:
    """Return the fingerprint of the space that `spec` gives with these files.

    Args:
        spec: the registry's entry: its precision and pooling.
        files: hashes of the files that the backend uses.
        options: the limits and options in force, whether the entry or the checkpoint says so.
        dimensions: length of the vectors that are given out.
    """
    identity: dict[str, object] = {
        "format": FORMAT,
        "files": {name: files[name].sha256 for name in sorted(files) if _moves_vectors(name)},
        "precision": spec.precision,
        "pooling": spec.pooling,
        "normalize": options.normalize,
        "max_tokens": options.max_tokens,
        "prompts": options.prompts,
        "dimensions": dimensions,
    }
    # What came later counts only where it moves vectors, so that the others keep their fingerprint.
    if options.lower_case:
        identity["lower_case"] = True
    if options.normalizer:
        identity["normalizer"] = options.normalizer
    if options.include_prompt is False and any((options.prompts or {}).values()):
        identity["include_prompt"] = False
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]


def _moves_vectors(name: str) -> bool:
    """Weights, the model's config, Dense heads and tokenizer.json; not what only describes them.

    Of the descriptions counts what they effect, not their bytes: it is in `SpaceOptions` and in the
    pooling of the registry, which a file may contradict or leave out.
    """
    path = Path(name)
    if path.parent.name.endswith("_Pooling"):
        return False
    described = path.suffix in (".json", ".txt", ".md")
    return not described or path.name in ("config.json", "tokenizer.json")
