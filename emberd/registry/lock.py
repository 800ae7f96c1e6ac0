"""What was loaded on this machine before: `state/lock.json`, one entry per model.

Who writes is the server, or the command line when none runs. A write takes a file lock, reads
what is there, and replaces the file by rename, so a reader sees an old file or a new one.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from emberd.registry.fingerprint import FileHash


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What is remembered of one model. `peak_memory_bytes` is of its worker process; 0: unknown."""

    source: str
    folder: str
    files: Mapping[str, FileHash] = field(default_factory=dict)
    fingerprint: str | None = None
    max_tokens: int | None = None
    backend: str | None = None
    peak_memory_bytes: int = 0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`."""
        files = {name: FileHash(**file) for name, file in data["files"].items()}
        return cls(**{**data, "files": files})

    @property
    def is_here(self) -> bool:
        """Whether its files still lie where they were."""
        return bool(self.files) and all(Path(self.folder, name).is_file() for name in self.files)


class LockFile:
    """Read and write `lock.json`. A damaged or foreign file counts as empty and is replaced."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lock.json"
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, LockEntry] = {}

    def read(self) -> Mapping[str, LockEntry]:
        """Return the entries by model name; the file is read again only when it has changed."""
        try:
            status = self._path.stat()
        except OSError:
            return {}
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._entries, self._seen = self._parse(), seen
        return self._entries

    def put(self, name: str, entry: LockEntry) -> None:
        """Replace one model's entry; the highest peak memory is kept while the files are the same.

        Raises:
            OSError: the state folder cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".flock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            entries = self._parse()
            before = entries.get(name)
            if before and before.fingerprint == entry.fingerprint:
                peak = max(before.peak_memory_bytes, entry.peak_memory_bytes)
                entry = replace(entry, peak_memory_bytes=peak)
            entries[name] = entry
            text = json.dumps(
                {"version": 1, "models": {key: asdict(value) for key, value in entries.items()}},
                indent=1,
            )
            write_atomically(self._path, text)

    def _parse(self) -> dict[str, LockEntry]:
        try:
            models = json.loads(self._path.read_bytes())["models"]
            return {name: LockEntry.from_dict(entry) for name, entry in models.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def write_atomically(path: Path, text: str) -> None:
    """Write a file of mode 0600 beside `path` and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
