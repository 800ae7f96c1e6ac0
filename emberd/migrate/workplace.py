"""The folder beside a store, `NAME.emberd`: its lock, what a swap prepares, and the backups.

What a migration leaves there, step by step:

    staged.db                    the sidecar; the next run continues with it
    pending.db                   the backup, copied while the store is locked
    pending.json                 its note: what must follow the commit
    (the store is committed)     its stamp names the migration
    backup-N.json, backup-N.db   once settings and `state/stores.json` are written

and an undo:

    backup-N.json                marked: `undoing`
    undone-N.db                  the store as it was until then, which is never deleted
    (the store is restored)      its stamp no longer names the migration
                                 backup-N.db is deleted, and its note last

A process may die between any two steps. The next one to open the store compares note and stamp,
each of which changes in one step, and looks up in `STATES` what to do. `*.partial` and
`.*.emberd-new` are files that were not completely written, and are deleted in every state. While a
process holds `lock`, the whole folder is its own, and others get `StoreBusyError`.
"""

import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Literal, TypeVar

from emberd.errors import DiskFullError, StoreBusyError, StoreError
from emberd.flock import LockedError, locked
from emberd.migrate.notes import Backup, Note
from emberd.spaces.stores import BACKUPS, STAGED, KnownStore, StoresFile, folder_of
from emberd.stores.base import Store, address_of, discard_backup, own_part, part_of, part_option_of
from emberd.stores.files import TEMPORARY, delete_database, replace_text
from emberd.units import format_size

LOCK_TRIES = 3
RESERVE_BYTES = 16 * 2**20  # of disk that stays free
T = TypeVar("T")

NoteState = Literal["none", "swap", "taking back", "undo", "damaged"]
StoreState = Literal["old", "some new", "new"]


class Recovery(Enum):
    """What is done about a state."""

    NOTHING = "there is nothing to do"
    DISCARD = "throw the backup away: the store was not touched"
    FINISH = "write settings and `state/stores.json`, and keep the backup"
    TAKE_BACK = "restore what was committed, and the file that was edited with it"
    END_UNDO = "restore the backup if that is not done, then delete it"
    REFUSE = "change nothing, and say what is damaged"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What distinguishes the states.

    `note` is what is unfinished according to the notes: "swap" and "taking back" in `pending.json`,
    "undo" in the note of a backup. `backup` says whether the copy that the note is about exists.
    `store` is "new" if the stamp is that of the note's migration, "some new" if only some of the
    stores of one run have it, and None if no note says which migration that is.
    """

    note: NoteState
    backup: bool
    store: StoreState | None


@dataclass(frozen=True, slots=True)
class State:
    """A row of the table; `backup` is None if it makes no difference."""

    meaning: str
    note: NoteState
    backup: bool | None
    store: tuple[StoreState | None, ...]
    recovery: Recovery

    def matches(self, found: OnDisk) -> bool:
        """Whether this row describes what was found."""
        backup = self.backup in (None, found.backup)
        return self.note == found.note and backup and found.store in self.store


STATES = (
    State("nothing is under way", "none", False, (None,), Recovery.NOTHING),
    State("stopped before the note", "none", True, (None,), Recovery.DISCARD),
    State("prepared, not committed", "swap", None, ("old",), Recovery.TAKE_BACK),
    State("only some stores committed", "swap", True, ("some new",), Recovery.TAKE_BACK),
    State("committed", "swap", None, ("new",), Recovery.FINISH),
    State("taking back begun", "taking back", True, ("some new", "new"), Recovery.TAKE_BACK),
    State("taken back, not tidied up", "taking back", None, ("old",), Recovery.TAKE_BACK),
    State("undo begun", "undo", True, ("new",), Recovery.END_UNDO),
    State("undone, not tidied up", "undo", None, ("old",), Recovery.END_UNDO),
    State("the note is damaged", "damaged", None, (None,), Recovery.REFUSE),
    # None of our steps leads to these: somebody deleted the backup.
    State("backup gone: some committed", "swap", False, ("some new",), Recovery.REFUSE),
    State("backup gone: taking back", "taking back", False, ("some new", "new"), Recovery.REFUSE),
    State("backup gone: undo", "undo", False, ("new",), Recovery.REFUSE),
)


def state_of(found: OnDisk) -> State:
    """Return the row that describes what was found."""
    return next(state for state in STATES if state.matches(found))


class Workplace:
    """What belongs to one store. `state` is the state folder, where known stores are noted."""

    def __init__(self, store: Store, state: Path) -> None:
        self.store = store
        self.state_folder = state
        self.folder = folder_for(store, state)
        self.staged = self.folder / STAGED
        self.pending = self.folder / "pending.db"
        self._known = StoresFile(state)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other migrations of this store out; the lock ends with this process."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(locked(self.folder / "lock", within_s=0))
            except LockedError as error:
                raise StoreBusyError(
                    f"Another migration of {address_of(self.store)} is under way.",
                    hint=f"Wait until {error.holder} has finished, then run this again.",
                ) from None
            except OSError as error:
                raise StoreError(
                    f"{self.folder} cannot be written: {error.strerror}.",
                    hint="A migration needs a folder beside the store; correct the permissions.",
                ) from None
            self.require_ours()
            yield

    def require_ours(self) -> None:
        """Raise `StoreError` if this folder belongs to another store of the same file.

        A backup covers the whole file, so undoing one migration would undo the other.
        """
        notes = [self.pending_note(), *(backup.note for backup in self.backups())]
        others = {note.part for note in notes if note} - {part_of(self.store)} if any(notes) else ()
        if others:
            other = min(others)
            name = part_option_of(self.store)
            option = shlex.join(["--option", f"{name}={other}"])
            raise StoreError(
                f"{self.folder} belongs to {other}, another {name} of the same file.",
                hint=f"Run `emberd migrate status` with `{option}`. Once you trust its new vectors,"
                " delete that folder, then run this again.",
            )

    def require_room(self, needed_bytes: int) -> None:
        """Raise `DiskFullError` if the disk has less than that left."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < needed_bytes + RESERVE_BYTES:
            raise DiskFullError(
                f"{folder} has {format_size(free)} left, but backup, new vectors"
                f" and swap need {format_size(needed_bytes + RESERVE_BYTES)}.",
                hint="Nothing was written. Free some space, then run this again.",
            )

    def on_disk(self) -> OnDisk:
        """Return the state of this store, without regard to others of the same run."""
        stopped = self.stopped_undo()
        if stopped:
            return OnDisk("undo", stopped.path.exists(), self._store_state(stopped.note))
        there = self.pending.exists()
        try:
            note = self.pending_note()
        except StoreError:
            return OnDisk("damaged", there, None)
        if note is None:
            return OnDisk("none", there, None)
        return OnDisk("taking back" if note.undoing else "swap", there, self._store_state(note))

    def _store_state(self, note: Note) -> StoreState:
        return "new" if self.holds(note) else "old"

    def holds(self, note: Note) -> bool:
        """Whether the store still holds what that migration wrote, by its stamp."""
        stamp = self.store.stamp()
        return bool(stamp and stamp.migration == note.migration)

    def sweep(self) -> None:
        """Delete files that were not completely written."""
        for partial in (*self.folder.glob("*.partial"), *self.folder.glob(f".*{TEMPORARY}")):
            delete_database(partial)

    # -- a swap -----------------------------------------------------------------------------

    def pending_note(self) -> Note | None:
        """Return the note of an unfinished swap. Raises `StoreError` if it is damaged."""
        return Note.read(self.pending.with_suffix(".json"))

    def _write_pending(self, note: Note) -> None:
        note.write(self.pending.with_suffix(".json"))

    def prepare(self, note: Note) -> None:
        """Back the store up and note what must follow the commit. The store must be locked."""
        self.store.backup(self.pending)
        self._write_pending(replace(note, backup_hash=hash_of(self.pending)))

    def filled(self, digest: str) -> None:
        """Note what the store holds once it is committed, so that later changes are noticed."""
        note = self.pending_note()
        assert note  # see `prepare`
        self._write_pending(replace(note, digest=digest))

    def is_written_to(self) -> bool:
        """Whether anything was written since the swap that is not finished yet."""
        note = self.pending_note()
        return note is None or self.is_changed(note)

    def is_changed(self, note: Note) -> bool:
        """Whether anything in the store's file was written since the migration."""
        return self.store.digest() != note.digest

    def settle(self) -> Note | None:
        """After a commit, write settings and what is known; None if nothing was committed."""
        note = self.pending_note()
        if note is None or not self.holds(note):
            return None
        if note.settings is not None and self.store.settings:
            present, wanted = self.settings(note)
            if present != wanted:
                replace_text(self.store.settings, wanted)
        self.put_known(note.name, note.after)
        return note

    def finish(self) -> Note | None:
        """Settle, keep the backup, drop the sidecar; if not committed, discard what is prepared."""
        note = self.settle()
        if note is None:
            self.discard()
            return None
        if self.pending.exists():
            backup = self.folder / f"backup-{self.next_number('backup'):04}.db"
            replace(note, together=None).write(backup.with_suffix(".json"))
            self.pending.replace(backup)
        delete_database(self.staged)
        self.discard()
        return note

    def mark(self) -> None:
        """Note that what was committed must be taken back, if need be by the next run."""
        note = self.pending_note()
        if note and not note.undoing and self.holds(note):
            self._write_pending(replace(note, undoing=True))

    def discard(self) -> None:
        """Throw away what was prepared."""
        discard_backup(self.store, self.pending)
        delete_database(self.pending)
        self.pending.with_suffix(".json").unlink(missing_ok=True)

    # -- backups ----------------------------------------------------------------------------

    def backups(self) -> list[Backup]:
        """Return the backups that can be restored, oldest first."""
        return [backup for backup in self._noted() if backup.path.exists()]

    def unreadable(self) -> list[Path]:
        """Return the backups whose note is damaged or missing, oldest first."""
        readable = {backup.path for backup in self._noted()}
        found = sorted(self.folder.glob(BACKUPS))
        return [path for path in found if _number("backup", path) and path not in readable]

    def stopped_undo(self) -> Backup | None:
        """Return the backup that was being restored when an undo was stopped."""
        return next((backup for backup in self._noted() if backup.note.undoing), None)

    def _noted(self) -> Iterator[Backup]:
        for path in sorted(self.folder.glob("backup-*.json")):
            with suppress(StoreError):
                note = Note.read(path)
                if note:
                    yield Backup(path.with_suffix(".db"), note)

    def forget(self, backup: Backup) -> None:
        """Delete a backup, and then its note, which says whether anything is left to do."""
        discard_backup(self.store, backup.path)
        delete_database(backup.path)
        backup.note_path.unlink(missing_ok=True)

    def copies(self) -> list[Path]:
        """Return the copies made before something was taken back, oldest first."""
        return sorted(self.folder.glob("undone-*.db"))

    def next_number(self, what: str) -> int:
        """Return a number above those of all copies, so that none is ever replaced.

        A note alone does not count: a `finish` that was stopped between note and backup uses its
        number again.
        """
        return max((_number(what, path) for path in self.folder.iterdir()), default=0) + 1

    # -- elsewhere --------------------------------------------------------------------------

    def known(self, name: str) -> KnownStore | None:
        """Return what `state/stores.json` says about the store."""
        return self._known.read().get(name)

    def put_known(self, name: str, store: KnownStore | None) -> None:
        """Note whose vectors the store holds, or forget it."""
        try:
            self._known.put(name, store)
        except OSError as error:
            raise StoreError(
                f"{self.state_folder} cannot be written: {error.strerror}.",
                hint="Correct the permissions, then run this again.",
            ) from None

    def settings(self, note: Note) -> tuple[str, str]:
        """Return the settings file as it is, and as it would be with the note's model."""
        return settings_of(self.store, model=note.model, dimensions=note.dimensions)


def folder_for(store: Store, state: Path) -> Path:
    """Return the folder in which the migrations of a store keep what belongs to it."""
    return folder_of(address_of(store), store.path, own_part(store), state)


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
    """Return the content of a store's settings file, and what it would be with another model.

    Raises:
        StoreError: it cannot be read, or is not such a file.
    """
    assert store.settings
    try:
        text = store.settings.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{store.settings} cannot be read: {error}.", hint="Correct it, then run this again."
        ) from None
    return text, store.new_settings(text, model=model, dimensions=dimensions)


def hash_of(path: Path) -> str:
    """Return the hash of a backup's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _number(what: str, path: Path) -> int:
    """Return the number in the name of a copy, or 0."""
    name = re.fullmatch(rf"{what}-(\d+)\.db", path.name)
    return int(name[1]) if name else 0
