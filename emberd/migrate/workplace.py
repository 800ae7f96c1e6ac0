"""The folder beside a store, `NAME.emberd`: lock, sidecar, backups, and what a stopped run left.

A swap first writes `pending.db` (the backup) and `pending.json` (what has to follow the commit).
Whether the commit happened is read from the stamp inside the store, so whoever comes next either
finishes what follows or throws both away. Of stores that move together, either all are finished or
all are taken back, and the config file with them. An undo leaves a mark in its backup's note, which
goes last, until it is through.
"""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from emberd.errors import BackupError, DiskFullError, StoreBusyError, StoreError
from emberd.flock import LockedError, locked
from emberd.migrate import sidecar
from emberd.migrate.base import Store, part_of
from emberd.migrate.plugins import open_store
from emberd.replacing import replace_file
from emberd.spaces.stores import KnownStore, StoresFile
from emberd.units import format_size

TEMPORARY = ".emberd-new"
LOCK_TRIES = 3
T = TypeVar("T")
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
    `backup_hash` is of the backup's bytes; None: an older emberd kept none. While it is taken back,
    `undoing` holds, and `copy` is the name of the file with the store as it was until then.
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
            together = Together.from_dict(data["together"]) if data["together"] else None
            after = KnownStore.from_dict(data["after"])
            return cls(**{**data, "before": before, "after": after, "together": together})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            backup = path.with_suffix(".db")
            raise StoreError(
                f"{path} is damaged. It says what {backup} is, a copy of the store from before a"
                " migration.",
                hint="Move both to another folder, and run this again. To have the store as it was,"
                f' end what uses it first: sqlite3 STORE ".restore {backup}".',
            ) from None


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the store before one migration."""

    path: Path
    note: Note

    @property
    def note_path(self) -> Path:
        """Where its note is."""
        return self.path.with_suffix(".json")


@dataclass(frozen=True, slots=True)
class Undone:
    """What was restored. `copy` is the store as it was until then.

    `changed` says whether anything was written to it since the migration; None: nobody looked.
    """

    note: Note
    copy: Path | None
    changed: bool | None = None


class Workplace:
    """What belongs to one store. `state` is the state folder, where known stores are noted."""

    def __init__(self, store: Store, state: Path) -> None:
        self.store = store
        self.folder = store.path.with_name(f"{store.path.name}.emberd")
        self.staged = self.folder / "staged.db"
        self.pending = self.folder / "pending.db"
        self._state = state
        self._known = StoresFile(state)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other migrations of this store out; any death of this process lets them in."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(mode=0o700, exist_ok=True)
                held.enter_context(locked(self.folder / "lock", within_s=0))
            except LockedError as error:
                raise StoreBusyError(
                    f"Another migration of {self.store.path} is under way.",
                    hint=f"Wait until {error.holder} has finished.",
                ) from None
            except OSError as error:
                raise StoreError(
                    f"{self.folder} cannot be written: {error.strerror}.",
                    hint="A migration needs a folder beside the store; correct the permissions.",
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
        self.store.backup(self.pending)
        self._write_pending(replace(note, backup_hash=_hash_of(self.pending)))

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
        if self.pending.exists():
            backup = self.folder / f"backup-{self._next('backup'):04}.db"
            replace_text(backup.with_suffix(".json"), _as_json(replace(note, together=None)))
            self.pending.replace(backup)
        sidecar.delete(self.staged)
        self.discard()
        return note

    def mark(self) -> None:
        """Say for good that what was committed has to be taken back, also by whoever comes next."""
        note = self._pending_note()
        if note and not note.undoing and self.is_committed():
            self._write_pending(replace(note, undoing=True))

    def roll_back(self) -> Path | None:
        """Make the store what it was before; the sidecar stays.

        Return the copy of what it was until then, when somebody had written to it meanwhile.
        """
        self.mark()
        note, copy = self._pending_note(), None
        if note and note.undoing:
            undone = self._take_back(Backup(self.pending, note))
            if undone.copy and undone.changed is False:  # only vectors that were not right
                sidecar.delete(undone.copy)
            else:
                copy = undone.copy
        self.discard()
        return copy

    def discard(self) -> None:
        """Throw away what was prepared."""
        sidecar.delete(self.pending)
        self.pending.with_suffix(".json").unlink(missing_ok=True)

    def recover(self) -> str | None:
        """Finish what a stopped run left; return what was done, in words."""
        for partial in (*self.folder.glob("*.partial"), *self.folder.glob(f".*{TEMPORARY}")):
            sidecar.delete(partial)
        stopped = self.stopped_undo()
        if stopped:
            copy = self.undo(stopped).copy
            return "An undo that was stopped is finished." + _told([copy])
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
        return Note.read(self.pending.with_suffix(".json"))

    def _write_pending(self, note: Note) -> None:
        replace_text(self.pending.with_suffix(".json"), _as_json(note))

    def is_written_to(self) -> bool:
        """Whether anything was written since the swap that is not finished yet."""
        note = self._pending_note()
        return note is None or self.is_changed(note)

    def is_changed(self, note: Note) -> bool:
        """Whether anything in the store's file was written since the migration."""
        return self.store.digest() != note.digest

    def _take_back(self, backup: Backup) -> Undone:
        """Make the store what a backup of it is, and the settings, and what is known of it.

        The store is locked from before it is copied until it is restored, so what others write is
        in the copy or lands in the restored store. The mark in the note tells whoever comes after a
        kill that this was begun; what fails before the store is restored leaves the note as it was.
        """
        note, changed = backup.note, None
        if not note.undoing or self._holds(note):
            self._require_whole(backup)
            self.require_room(self.store.path.stat().st_size + backup.path.stat().st_size)
            name = note.copy or f"undone-{self._next('undone'):04}.db"
            marked = replace(note, undoing=True, copy=name)
            try:
                with patiently(lambda: self.store.restoring(backup.path)) as restoration:
                    replace_text(backup.note_path, _as_json(marked))
                    restoration.copy(self.folder / name)
                    changed = restoration.digest() != note.digest
                    restoration.commit()
            except BaseException:
                with suppress(StoreError):  # the disk may be full, or the store out of reach
                    if self._holds(note):  # an interrupt may come just after the commit
                        sidecar.delete(self.folder / name)
                        replace_text(backup.note_path, _as_json(note))
                raise
            note = marked
        self._restore_settings(note)
        return Undone(note, self.folder / note.copy if note.copy else None, changed)

    def _require_whole(self, backup: Backup) -> None:
        """Raise `BackupError` when a backup is not what was written once."""
        try:
            found = _hash_of(backup.path)
            if backup.note.backup_hash not in (None, found):
                raise StoreError("its bytes are not those that were written.")  # noqa: TRY301
            self.store.check_backup(backup.path)
        except (StoreError, OSError) as error:
            before = backup.note.before
            model = before.model if before and before.model else "MODEL"
            raise BackupError(
                f"The backup {backup.path} is damaged and cannot be restored: {error}"
                " The store is as it was.",
                hint="Put a copy of that file of yours in its place; or embed the store again with"
                f" the model of before, `emberd migrate run STORE --to {model}`; or keep the store"
                f" as it is: delete that file and {backup.note_path.name}.",
            ) from None

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
        """Return those that can be undone, oldest first."""
        return [backup for backup in self._noted() if backup.path.exists()]

    def unreadable(self) -> list[Path]:
        """Return the backups whose note is damaged or gone, oldest first."""
        readable = {backup.path for backup in self._noted()}
        found = sorted(self.folder.glob("backup-*.db"))
        return [path for path in found if _number("backup", path) and path not in readable]

    def stopped_undo(self) -> Backup | None:
        """Return the backup whose restoring was begun and not ended."""
        return next((backup for backup in self._noted() if backup.note.undoing), None)

    def _noted(self) -> Iterator[Backup]:
        for path in sorted(self.folder.glob("backup-*.json")):
            with suppress(StoreError):
                note = Note.read(path)
                if note:
                    yield Backup(path.with_suffix(".db"), note)

    def undo(self, backup: Backup) -> Undone:
        """Make store, settings and what is known of it as they were before that migration.

        Raises:
            BackupError: the backup is damaged.
            StoreError: the store is locked, or cannot be written; it is as it was.
        """
        undone = self._take_back(backup)
        self.forget(backup)
        return undone

    def _holds(self, note: Note) -> bool:
        """Whether the store is still what that migration made it."""
        stamp = self.store.stamp()
        return bool(stamp and stamp.migration == note.migration)

    def forget(self, backup: Backup) -> None:
        """Delete a backup; its note last, which says that nothing is left to do."""
        sidecar.delete(backup.path)
        backup.note_path.unlink(missing_ok=True)

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
        return max((_number(what, path) for path in self.folder.iterdir()), default=0) + 1


@contextmanager
def patiently(lock: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Lock a store that others may be writing to all the time."""
    with ExitStack() as stack:
        for tries_left in reversed(range(LOCK_TRIES)):
            try:
                locked = stack.enter_context(lock())
                break
            except StoreBusyError:
                if not tries_left:
                    raise
        yield locked


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
    return f" As it was until then, with all that was written meanwhile: {kept}" if kept else ""


def _number(what: str, path: Path) -> int:
    """Return the number in the name of a file of ours, 0 for others."""
    name = re.fullmatch(rf"{what}-(\d+)\.(db|json)", path.name)
    return int(name[1]) if name else 0


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Replace a file, keeping mode and owner; a link's target, not the link.

    What a kill leaves of that has one name, so that the next run overwrites it.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        replace_file(path, text.encode(), keep=True, temporary=temporary)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None


def now() -> str:
    """Return the time, for notes."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _as_json(note: Note) -> str:
    return json.dumps(asdict(note), indent=1)
