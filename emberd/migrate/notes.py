"""Notes beside a store, in JSON: what a swap changes, so that anyone can finish it or take it back.

Newer versions of emberd have to read these files: the names of the fields stay.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from emberd.errors import StoreError
from emberd.replacing import replace_file
from emberd.spaces.stores import KnownStore

TEMPORARY = ".emberd-new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of several stores that are migrated together, so that each leads to the others."""

    path: str
    kind: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointRun:
    """What one run changes at once: its stores, and a file that is edited with them, if any.

    `before` is None where there was no such file.
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
        """Restore the file unless somebody has edited it since; return whether that was done."""
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
        """Whether somebody edited the file: it is neither as it was nor as it was written."""
        if self.file is None:
            return False
        try:
            present = Path(self.file).read_bytes()
        except OSError:
            return False
        return present not in [(text or "").encode() for text in (self.before, self.after)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is kept with a backup: `pending.json` until a swap is through, then `backup-N.json`.

    `digest` stands for all that the store held after the swap; "" until it is filled. `settings` is
    the content of the store's settings file before; None: there is none. `part` says which of the
    file's stores it is about. `together` is there until all is through. `backup_hash` is of the
    backup's bytes; None: an older emberd kept none. While it is restored, `undoing` is true, and
    `copy` names the file with the store as it was until then.
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
        """Read it; None when it is not there.

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
                hint="Move both to another folder, and run this again. To have the store as it was,"
                f' end what uses it first: sqlite3 STORE ".restore {backup}".',
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


def replace_text(path: Path, text: str) -> None:
    """Replace a file by rename, keeping mode and owner; a link's target, not the link.

    What a kill leaves of it always has the same name, so that the next run replaces it.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        replace_file(path, text.encode(), keep=True, temporary=temporary)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
