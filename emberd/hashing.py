"""Hashes of a folder's files; a file that has not changed is not read again."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from emberd.files import is_file


@dataclass(frozen=True, slots=True)
class FileHash:
    """A file's SHA-256, with the size, mtime and inode that show cheaply whether it changed."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str

    def is_of(self, status: os.stat_result) -> bool:
        """Whether a file has not changed, as far as its status shows."""
        seen = (status.st_size, status.st_mtime_ns, status.st_ino)
        return (self.size, self.mtime_ns, self.inode) == seen


def hash_file(file: Path, before: FileHash | None) -> FileHash:
    """Return the hash of a file; it is read only if it changed since `before`. Raises OSError."""
    status = file.stat()
    if before and before.is_of(status):
        return before
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return FileHash(status.st_size, status.st_mtime_ns, status.st_ino, digest)


def list_files(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Return the sorted relative names below `folder` that match any of the glob patterns."""
    names = [
        os.path.relpath(Path(root) / file, folder)
        for root, _, files in os.walk(folder)
        for file in files
        if is_file(Path(root, file))  # a dangling link is left out
    ]
    wanted = tuple(patterns)
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in wanted))
