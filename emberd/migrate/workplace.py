"""The folder beside a store, `NAME.emberd`: lock, sidecar, backups, and what a stopped run left.

A swap first writes `pending.db` (the backup) and `pending.json` (what has to follow the commit).
Whether the commit happened is read from the stamp inside the store, so whoever comes next either
finishes what follows or throws both away. Of stores that move together, either all are finished or
all are taken back, and the config file with them. An undo leaves a mark in its backup's note until
it is through.
"""

import fcntl
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from emberd.errors import DiskFullError, EmberdError, StoreBusyError, StoreError
from emberd.flock import holder
from emberd.migrate import sidecar
from emberd.migrate.base import Store, part_of
from emberd.migrate.plugins import open_store
from emberd.registry.stores import KnownStore, StoresFile
from emberd.units import format_size

RESERVE_BYTES = 16 * 2**20  # of disk that stays free


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A store of several that move together, so that whoever finds one finds the others."""

    path: str
    kind: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What one run changes at once: its stores, and a file edited along with them, if any.

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

    def take_back(self) -> bool:
        """Restore the file, unless somebody has edited it since; return whether that was done."""
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
        """Whether the file is somebody's own by now: neither what it was nor what was written."""
        if self.file is None:
            return False
        try:
            present = Path(self.file).read_bytes()
        except OSError:
            return False
        return present not in [(text or "").encode() for text in (self.before, self.after)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is kept with a backup. `digest` is of all that the store held after the swap.

    `settings` is the content of the store's settings file before; None: there is no such file.
    `part` says which of its file's stores it is about. `together` is there until all is through.
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
    together: Together | None = None
    undoing: bool = False

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read it; None for what is none."""
        try:
            data: dict[str, Any] = json.loads(path.read_bytes())
            before = KnownStore.from_dict(data["before"]) if data["before"] else None
            together = Together.from_dict(data["together"]) if data["together"] else None
            after = KnownStore.from_dict(data["after"])
            return cls(**{**data, "before": before, "after": after, "together": together})
        except (OSError, ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the store before one migration."""

    path: Path
    note: Note


class Workplace:
    """What belongs to one store. `state` is the state folder, where known stores are noted."""

    def __init__(self, store: Store, state: Path) -> None:
        self.store = store
        self.folder = store.path.with_name(f"{store.path.name}.emberd")
        self.staged = self.folder / "staged.db"
        self._pending = self.folder / "pending.db"
        self._state = state
        self._known = StoresFile(state)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other migrations of this store out; any death of this process lets them in."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            guard = (self.folder / "lock").open("w")
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be written: {error.strerror}.",
                hint="A migration needs a folder beside the store; correct the permissions.",
            ) from None
        with guard:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreBusyError(
                    f"Another migration of {self.store.path} is under way.",
                    hint=f"Wait until {holder(guard.fileno())} has finished.",
                ) from None
            self.require_ours()
            yield

    def require_ours(self) -> None:
        """Raise `StoreError` when what lies here is of another store of the same file.

        A backup is of the whole file: undoing one would undo the other.
        """
        notes = [self._pending_note(), *(backup.note for backup in self.backups())]
        others = {note.part for note in notes if note} - {part_of(self.store)} if any(notes) else ()
        if others:
            other = min(others)
            option = shlex.join(["--option", f"table={other}"])
            raise StoreError(
                f"{self.folder} keeps what belongs to {other}, another table of the same file.",
                hint=f"Run `emberd migrate status` with `{option}`; when you trust"
                f" its new vectors, delete that folder, and run this again.",
            )

    def require_room(self, needed_bytes: int) -> None:
        """Raise `DiskFullError` when the disk has not so much left."""
        free = shutil.disk_usage(self.store.path.parent).free
        if free < needed_bytes + RESERVE_BYTES:
            raise DiskFullError(
                f"{self.store.path.parent} has {format_size(free)} left, and backup, new vectors"
                f" and swap take {format_size(needed_bytes + RESERVE_BYTES)}.",
                hint="Make room first; nothing was written.",
            )

    # -- a swap -----------------------------------------------------------------------------

    def prepare(self, note: Note) -> None:
        """Back the store up and note what has to follow the commit. The store must be locked."""
        self.store.backup(self._pending)
        self._write_pending(note)

    def filled(self, digest: str) -> None:
        """Note what the store holds if it is committed now, so that later changes are seen."""
        note = self._pending_note()
        assert note  # see `prepare`
        self._write_pending(replace(note, digest=digest))

    def settle(self) -> Note | None:
        """After a commit: write the settings and what is known; None when nothing was committed."""
        note = self._pending_note()
        if note is None or not self.is_committed():
            return None
        if note.settings is not None and self.store.settings:
            present, wanted = self._settings(note)
            if present != wanted:
                replace_text(self.store.settings, wanted)
        self.note(note.name, note.after)
        return note

    def is_committed(self) -> bool:
        """Whether what was prepared is in the store: its stamp says so, and nothing else can."""
        note = self._pending_note()
        return bool(note and self._holds(note))

    def finish(self) -> Note | None:
        """Settle, keep the backup, drop the sidecar; throw away what never led to a commit."""
        note = self.settle()
        if note is None:
            self.discard()
            return None
        if self._pending.exists():
            backup = self.folder / f"backup-{self._next('backup'):04}.db"
            replace_text(backup.with_suffix(".json"), _as_json(replace(note, together=None)))
            self._pending.replace(backup)
        sidecar.delete(self.staged)
        self.discard()
        return note

    def mark(self) -> None:
        """Say for good that what was committed has to be taken back, also by whoever comes next."""
        note = self._pending_note()
        if note and not note.undoing and self.is_committed():
            self._write_pending(replace(note, undoing=True))

    def roll_back(self) -> Path | None:
        """Make the store what it was before; the sidecar stays. Return the copy, if one was due."""
        copy, note = None, self._pending_note()
        if note and self.is_committed():
            self.mark()
            copy = self._keep_what_changed(note)
            self.store.restore(self._pending)
            self._restore_settings(note)
        elif note and note.undoing:  # stopped once between the store and what goes with it
            self._restore_settings(note)
        self.discard()
        return copy

    def discard(self) -> None:
        """Throw away what was prepared."""
        sidecar.delete(self._pending)
        self._pending.with_suffix(".json").unlink(missing_ok=True)

    def recover(self) -> str | None:
        """Finish what a stopped run left; return what was done, in words."""
        for partial in self.folder.glob("*.partial"):
            sidecar.delete(partial)
        undone = next((backup for backup in self.backups() if backup.note.undoing), None)
        if undone:
            return "An undo that was stopped is finished." + _told([self.undo(undone)])
        note = self._pending_note()
        if note is None:
            self.discard()
            return None
        with ExitStack() as locks:
            places = [self, *(locks.enter_context(one) for one in self._others(note))]
            going_back = any(one.is_going_back() for one in places)
            if not going_back and all(one.is_committed() for one in places):
                for one in places:
                    one.finish()
                return f"A migration to {note.model} that was stopped is finished."
            changed = going_back or any(one.is_committed() for one in places)
            for one in places:
                one.mark()
            file = ""
            if note.together and note.together.take_back():
                file = f" {note.together.file} is what it was, too."
            elif note.together and note.together.is_edited():
                file = f" {note.together.file} was edited since and is left alone: look at it."
            told = _told([one.roll_back() for one in places])
            if changed or file:
                return f"A migration to {note.model} that was stopped is taken back.{file}{told}"
            return None

    def is_going_back(self) -> bool:
        """Whether taking it back was begun."""
        note = self._pending_note()
        return bool(note and note.undoing)

    def _others(self, note: Note) -> "Iterator[AbstractContextManager[Workplace]]":
        """Give the places, to be locked, of stores that the same run prepared but did not end."""
        for member in note.together.stores if note.together else ():
            if member.path == str(self.store.path):
                continue
            try:
                store = open_store(Path(member.path), kind=member.kind, options=member.options)
            except StoreError:
                continue  # it is gone, or its kind
            place = Workplace(store, self._state)
            theirs = place._pending_note()
            if theirs and theirs.together == note.together:
                yield place._held()

    @contextmanager
    def _held(self) -> Iterator["Workplace"]:
        with self.locked():
            yield self

    def _pending_note(self) -> Note | None:
        return Note.read(self._pending.with_suffix(".json"))

    def _write_pending(self, note: Note) -> None:
        replace_text(self._pending.with_suffix(".json"), _as_json(note))

    def is_changed(self, note: Note) -> bool:
        """Whether anything in the store's file was written since the migration."""
        return self.store.digest() != note.digest

    def _keep_what_changed(self, note: Note) -> Path | None:
        """Copy the store when a backup lacks anything of it; return where to."""
        if not self.is_changed(note):
            return None
        self.require_room(2 * self.store.path.stat().st_size)
        path = self.folder / f"undone-{self._next('undone'):04}.db"
        self.store.backup(path)
        return path

    def _restore_settings(self, note: Note) -> None:
        """Put settings back that name the new model; others are somebody's own by now."""
        if note.settings is not None and self.store.settings:
            present, wanted = self._settings(note)
            if present == wanted:
                replace_text(self.store.settings, note.settings)
        self.note(note.name, note.before)

    def _settings(self, note: Note) -> tuple[str, str]:
        """Return the settings as they are, and as they are with the note's model."""
        return settings_of(self.store, model=note.model, dimensions=note.dimensions)

    # -- backups ----------------------------------------------------------------------------

    def backups(self) -> list[Backup]:
        """Return them, oldest first."""
        found = [
            (path, Note.read(path.with_suffix(".json")))
            for path in sorted(self.folder.glob("backup-*.db"))
        ]
        return [Backup(path, note) for path, note in found if note]

    def undo(self, backup: Backup) -> Path | None:
        """Make store, settings and what is known of it as they were before that migration.

        Returns the copy of the store as it was until now, when anything was written since.
        What fails before the store is restored leaves no mark: nobody takes it up again unasked.
        """
        copy, note = None, backup.note
        note_path = backup.path.with_suffix(".json")
        if not note.undoing or self._holds(note):
            copy = self._keep_what_changed(note)
            replace_text(note_path, _as_json(replace(note, undoing=True)))
            try:
                self.store.restore(backup.path)
            except (EmberdError, OSError):
                replace_text(note_path, _as_json(replace(note, undoing=False)))
                if copy:
                    sidecar.delete(copy)
                raise
        self._restore_settings(note)
        self.forget(backup)
        return copy

    def _holds(self, note: Note) -> bool:
        """Whether the store is still what that migration made it."""
        stamp = self.store.stamp()
        return bool(stamp and stamp.migration == note.migration)

    def forget(self, backup: Backup) -> None:
        """Delete a backup."""
        sidecar.delete(backup.path)
        backup.path.with_suffix(".json").unlink(missing_ok=True)

    def copies(self) -> list[Path]:
        """Return what was copied before something was taken back, oldest first."""
        return sorted(self.folder.glob("undone-*.db"))

    def known(self, name: str) -> KnownStore | None:
        """Return what is noted of the store."""
        return self._known.read().get(name)

    def note(self, name: str, store: KnownStore | None) -> None:
        """Note whose vectors the store holds, or forget it."""
        try:
            self._known.put(name, store)
        except OSError as error:
            raise StoreError(f"The state folder cannot be written: {error.strerror}.") from None

    def _next(self, what: str) -> int:
        """Return a number above all in use, so that nothing is ever replaced."""
        names = (re.fullmatch(rf"{what}-(\d+)\.db", path.name) for path in self.folder.iterdir())
        return max((int(name[1]) for name in names if name), default=0) + 1


def settings_of(store: Store, *, model: str, dimensions: int) -> tuple[str, str]:
    """Return the content of a store's settings file, and what it is with another model.

    Raises:
        StoreError: it cannot be read, or is no such file.
    """
    assert store.settings
    try:
        text = store.settings.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{store.settings} cannot be read: {error}.", hint="Correct it, and run this again."
        ) from None
    return text, store.new_settings(text, model=model, dimensions=dimensions)


def _told(copies: Iterable[Path | None]) -> str:
    """Say where it is kept what was written meanwhile."""
    kept = ", ".join(str(copy) for copy in copies if copy)
    return f" What it was until then, with what was written meanwhile: {kept}" if kept else ""


def replace_text(path: Path, text: str) -> None:
    """Replace a file by rename, keeping its mode; a link's target, not the link."""
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        Path(temporary).replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            Path(temporary).unlink()


def now() -> str:
    """Return the time, for notes."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _as_json(note: Note) -> str:
    return json.dumps(asdict(note), indent=1)
