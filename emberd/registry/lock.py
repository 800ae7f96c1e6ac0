"""What was loaded on this machine before: `state/lock.json`, one entry per model.

Who writes is the server, or the command line when none runs. A write takes a file lock, reads
what is there, and replaces the file by rename, so a reader sees an old file or a new one.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from emberd.registry.fingerprint import FileHash

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading a damaged or foreign file can raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What is remembered of one model.

    `fingerprints` are by output size, `equivalent` further ones that probes showed to be the same
    space. `engine` names the libraries that computed and their versions. `probes` holds the vectors
    of the probe texts as base64 float32. `peak_memory_bytes` is of its worker process; 0: unknown.
    `changed_to` is what the model gives now, when that is another space which nobody accepted yet,
    and `cosine` how near the two are at worst.
    """

    source: str
    folder: str
    files: Mapping[str, FileHash] = field(default_factory=dict)
    fingerprint: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    equivalent: tuple[str, ...] = ()
    max_tokens: int | None = None
    backend: str | None = None
    engine: str | None = None
    compute: str | None = None
    probes: str = ""
    peak_memory_bytes: int = 0
    changed_to: "LockEntry | None" = None
    cosine: float | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`, also by way of JSON.

        Raises:
            LookupError, TypeError, AttributeError: something is missing, or is of another type.
        """
        changed_to = data.get("changed_to")
        entry = cls(
            **{
                **data,
                "files": {name: FileHash(**file) for name, file in data["files"].items()},
                "equivalent": tuple(data.get("equivalent", ())),
                "changed_to": cls.from_dict(changed_to) if changed_to else None,
            }
        )
        entry._check()
        return entry

    def _check(self) -> None:
        """Raise TypeError where a damaged or foreign file had something else."""
        files, spaces = self.files, self.fingerprints
        texts: list[object] = [self.source, self.folder, self.probes, *self.equivalent]
        texts += [*files, *(file.sha256 for file in files.values()), *spaces, *spaces.values()]
        stated: list[object] = [self.fingerprint, self.backend, self.engine, self.compute]
        numbers: list[object] = [self.peak_memory_bytes, self.max_tokens or 0]
        numbers += [n for file in files.values() for n in (file.size, file.mtime_ns, file.inode)]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(text, str | None) for text in stated)
            and all(isinstance(number, int) and abs(number) < 2**63 for number in numbers)
            and isinstance(self.cosine, float if self.changed_to else float | None)
        ):
            raise TypeError("something in it is of another type")

    @property
    def now(self) -> "LockEntry":
        """What the model is at present: the accepted state, or the one it changed to."""
        return self.changed_to or self

    @property
    def is_here(self) -> bool:
        """Whether its files still lie where they were."""
        files, folder = self.now.files, self.now.folder
        return bool(files) and all(Path(folder, name).is_file() for name in files)

    def is_same_state(self, other: "LockEntry") -> bool:
        """Whether nothing that could move vectors differs, as far as is known without running."""
        return (self.fingerprint, self.backend, self.engine, self.compute) == (
            other.fingerprint, other.backend, other.engine, other.compute,
        )  # fmt: skip


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

    def damage(self) -> str | None:
        """Say what is wrong with the file; None when it is in order, or not there."""
        try:
            self._load()
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            return f"{type(error).__name__}: {error}"
        return None

    def put(self, name: str, entry: LockEntry) -> None:
        """Replace one model's entry; the highest peak memory is kept while the space is the same.

        Raises:
            OSError: the state folder cannot be written; of the other methods too.
        """
        with self._changing() as entries:
            before = entries.get(name)
            if before and before.fingerprint == entry.fingerprint:
                peak = max(before.peak_memory_bytes, entry.peak_memory_bytes)
                entry = replace(entry, peak_memory_bytes=peak)
            entries[name] = entry

    def note_peak(self, name: str, peak_memory_bytes: int) -> None:
        """Raise one model's peak memory, if this is a higher one."""
        with self._changing() as entries:
            before = entries.get(name)
            if before and before.peak_memory_bytes < peak_memory_bytes:
                entries[name] = replace(before, peak_memory_bytes=peak_memory_bytes)

    def accept(self, name: str) -> bool:
        """Make what a model changed to its accepted state; False when it has not changed."""
        with self._changing() as entries:
            entry = entries.get(name)
            if not entry or not entry.changed_to:
                return False
            entries[name] = replace(
                entry.changed_to, peak_memory_bytes=entry.peak_memory_bytes, cosine=None
            )
            return True

    def remove(self, name: str) -> None:
        """Forget a model."""
        with self._changing() as entries:
            entries.pop(name, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, LockEntry]]:
        """Give the entries to change, alone; write them afterwards when they did."""
        self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".flock")):
            entries = self._parse()
            before = dict(entries)
            yield entries
            if entries != before:
                models = {name: asdict(entry) for name, entry in entries.items()}
                write_atomically(self._path, json.dumps({"version": 1, "models": models}, indent=1))

    def _parse(self) -> dict[str, LockEntry]:
        try:
            return self._load()
        except DAMAGE:
            return {}

    def _load(self) -> dict[str, LockEntry]:
        models = json.loads(self._path.read_bytes())["models"]
        return {name: LockEntry.from_dict(entry) for name, entry in models.items()}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock file of mode 0600. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a file of mode 0600 beside `path` and rename it there."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
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
