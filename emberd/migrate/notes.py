"""Notes beside a store, in JSON: what a swap changes, so that the next run can finish or undo it.

Newer versions of emberd must be able to read these files, so field names never change.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from emberd.errors import StoreError
from emberd.spaces.stores import KnownStore
from emberd.stores.files import replace_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of several stores that are migrated together; from each, the others can be found.

    `path` is the address, so without a password; `folder` is its `Workplace`'s.
    """

    path: str
    kind: str
    options: Mapping[str, str]
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointRun:
    """What one run changes at once: its stores, and a file that is edited with them, if any.

    `before` is None if there was no such file.
    """

    run: str
    stores: tuple[Member, ...]
    file: str | None = None
    before: str | None = None
    after: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`."""
        return cls(**{**data, "stores": tuple(Member(**member) for member in data["stores"])})

    def restore_file(self) -> bool:
        """Restore the file unless somebody has edited it since; return whether it was restored."""
        if self.file is None or self.before == self.after:
            return False
        try:
            if Path(self.file).read_bytes() != (self.after or "").encode():
                return False
        except OSError:
            return False
        replace_text(Path(self.file), self.before or "")
        return True

    def is_edited(self) -> bool:
        """Whether somebody else edited the file: it is neither the old nor the new version."""
        if self.file is None:
            return False
        try:
            present = Path(self.file).read_bytes()
        except OSError:
            return False
        return present not in [(text or "").encode() for text in (self.before, self.after)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is kept with a backup: `pending.json` until a swap is done, then `backup-N.json`.

    `digest` covers everything the store held after the swap; it is "" until the store is filled.
    `settings` is the content of the store's settings file before, None if there is no such file.
    `part` says which of the file's stores it is about. `together` is set until the whole run is
    done. `backup_hash` is the hash of the backup's bytes; None if an older emberd recorded none.
    While the backup is being restored, `undoing` is true and `copy` names the file with the store
    as it was until then.
    """

    migration: str
    at: str
    model: str
    dimensions: int
    part: str
    rows: int
    digest: str
    name: str
    before: KnownStore | None
    after: KnownStore
    settings: str | None
    together: JointRun | None = None
    undoing: bool = False
    backup_hash: str | None = None
    copy: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a note; None if there is no such file.

        Raises:
            StoreError: it is damaged.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_bytes())
            before = KnownStore.from_dict(data["before"]) if data["before"] else None
            together = JointRun.from_dict(data["together"]) if data["together"] else None
            after = KnownStore.from_dict(data["after"])
            return cls(**{**data, "before": before, "after": after, "together": together})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            backup = path.with_suffix(".db")
            raise StoreError(
                f"{path} is damaged. It describes {backup}, a copy of the store from before a"
                " migration.",
                hint="Move both to another folder, then run this again. To get the old store back,"
                f' first end the programs that use it, then: sqlite3 STORE ".restore {backup}".',
            ) from None

    def write(self, path: Path) -> None:
        """Write it in one step. Raises `StoreError`."""
        replace_text(path, json.dumps(asdict(self), indent=1))


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the store from before one migration, and its note beside it."""

    path: Path
    note: Note

    @property
    def note_path(self) -> Path:
        """Where its note is."""
        return self.path.with_suffix(".json")


def now() -> str:
    """Return the time, for notes and stamps."""
    return datetime.now(UTC).isoformat(timespec="seconds")
