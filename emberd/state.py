"""Files of the state folder: entries by name in one JSON object.

Both the server and the command line write them. A write takes a file lock, reads the file, and
replaces it, so that a reader sees the old one or the new one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from emberd import files
from emberd.flock import locked
from emberd.replacing import replace_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Entry = TypeVar("Entry", bound="DataclassInstance")

LOCK_S = 2.0  # a write takes milliseconds; a process that holds the lock for longer hangs

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading a damaged or foreign file may raise."""


class StateFile(Generic[Entry]):
    """One such file. A damaged or foreign one is replaced at the next write.

    Until then it counts as what this process read before the damage, or as empty.

    Args:
        path: the file.
        group: the key above the entries.
        from_dict: reads an entry from what `asdict` made of it.
    """

    def __init__(
        self, path: Path, group: str, from_dict: Callable[[dict[str, Any]], Entry]
    ) -> None:
        self.path = path
        self._group = group
        self._from_dict = from_dict
        self._seen: tuple[int, ...] | None = None
        self._entries: dict[str, Entry] = {}

    def read(self) -> Mapping[str, Entry]:
        """Return the entries by name; the file is read only if it has changed."""
        try:
            status = self.path.stat()
        except (OSError, ValueError):
            return {}
        seen = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._entries, self._seen = self._parse(), seen
        return self._entries

    def damage(self) -> str | None:
        """Say what is wrong with the file; None if it is fine or does not exist."""
        try:
            self._load()
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            return f"{type(error).__name__}: {error}"
        return None

    @contextmanager
    def changing(self) -> Iterator[dict[str, Entry]]:
        """Yield the entries to be changed while nobody else can; write them if they changed.

        Raises:
            OSError: the state folder cannot be written, or another process keeps the lock for
                longer than `LOCK_S`; `strerror` says which.
        """
        self.path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".flock"), LOCK_S):
            entries = self._parse()
            before = dict(entries)
            yield entries
            if entries != before:
                group = {name: asdict(entry) for name, entry in entries.items()}
                content = {"version": 1, self._group: group}
                replace_file(self.path, json.dumps(content, indent=1).encode())

    def _parse(self) -> dict[str, Entry]:
        """Read the file; a damaged one counts as what was read before."""
        try:
            return self._load()
        except FileNotFoundError:
            return {}
        except DAMAGE:
            return dict(self._entries)

    def _load(self) -> dict[str, Entry]:
        group = json.loads(files.read(self.path))[self._group]
        return {name: self._from_dict(entry) for name, entry in group.items()}


def known_fields(cls: "type[DataclassInstance]", data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that `cls` has fields for; those that a newer version added are ignored.

    Raises:
        TypeError, AttributeError: `data` is not a mapping.
    """
    names = {field.name for field in fields(cls)}
    return {key: value for key, value in data.items() if key in names}
