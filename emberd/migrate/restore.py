"""Puts a backup back in place of the store, after copying what was written since."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.errors import BackupError, StoreError
from emberd.migrate.notes import Backup, Note
from emberd.migrate.workplace import Workplace, hash_of, patiently
from emberd.stores.base import discard_backup
from emberd.stores.files import delete_database, replace_text


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `copy` is the file with the store as it was until then.

    `changed` says whether anything was written to it after the migration; None if unknown, because
    a run that was stopped had restored it.
    """

    note: Note
    copy: Path | None
    changed: bool | None = None


def undo_backup(place: Workplace, backup: Backup) -> Restored:
    """Restore the store, its settings and what is noted about it, as before that migration.

    Raises:
        BackupError: the backup is damaged.
        StoreError: the store is locked or cannot be written; it stays as it was.
    """
    restored = _restore(place, backup)
    place.forget(backup)
    return restored


def roll_back(place: Workplace) -> Path | None:
    """Restore the store as it was before a swap that was not completed; the sidecar stays.

    If somebody has written to the store in the meantime, return the path of a copy with that.
    """
    place.mark()
    note, copy = place.pending_note(), None
    if note and note.undoing:
        restored = _restore(place, Backup(place.pending, note))
        if restored.copy and restored.changed is False:  # it only has vectors that were wrong
            _delete_copy(place, restored.copy)
        else:
            copy = restored.copy
    place.discard()
    return copy


def _restore(place: Workplace, backup: Backup) -> Restored:
    """Restore the store from a backup, and its settings and what is noted about it.

    The store is locked from before it is copied until it is restored, so what others write is
    either in the copy or in the restored store. The mark in the note says that this was begun. A
    failure before the store is restored leaves the note as it was.
    """
    note, changed = backup.note, None
    if not note.undoing or place.holds(note):
        require_whole(place, backup)
        place.require_room(_bytes_of(place.store.path) + _bytes_of(backup.path))
        name = note.copy or f"undone-{place.next_number('undone'):04}.db"
        marked = replace(note, undoing=True, copy=name)
        _delete_copy(place, place.folder / name)  # of an undo that was stopped
        try:
            with patiently(lambda: place.store.restoring(backup.path)) as restoration:
                marked.write(backup.note_path)
                restoration.copy(place.folder / name)
                changed = restoration.digest() != note.digest
                restoration.commit()
        except BaseException:
            with suppress(StoreError):  # the disk may be full, or the store out of reach
                if place.holds(note):  # an interrupt may come just after the commit
                    _delete_copy(place, place.folder / name)
                    note.write(backup.note_path)
            raise
        note = marked
    _restore_settings(place, note)
    return Restored(note, place.folder / note.copy if note.copy else None, changed)


def _delete_copy(place: Workplace, copy: Path) -> None:
    discard_backup(place.store, copy)
    delete_database(copy)


def _bytes_of(file: Path | None) -> int:
    """Return what a file takes; what an engine keeps itself takes nothing more."""
    return file.stat().st_size if file and file.is_file() else 0


def require_whole(place: Workplace, backup: Backup) -> None:
    """Raise `BackupError` if a backup is not what was once written."""
    try:
        found = hash_of(backup.path)
        if backup.note.backup_hash not in (None, found):
            raise StoreError("its content has changed since it was written.")  # noqa: TRY301
        place.store.check_backup(backup.path)
    except (StoreError, OSError) as error:
        before = backup.note.before
        model = before.model if before and before.model else "MODEL"
        raise BackupError(
            f"The backup {backup.path} is damaged and cannot be restored: {error}"
            " The store was not changed.",
            hint="If you have a copy of that file, put it in its place. Or embed the store again"
            f" with the previous model: `emberd migrate run STORE --to {model}`. Or keep the store"
            f" as it is, and delete that file and {backup.note_path.name}.",
        ) from None


def _restore_settings(place: Workplace, note: Note) -> None:
    """Restore settings that still name the new model; if they were edited since, leave them."""
    if note.settings is not None and place.store.settings:
        present, wanted = place.settings(note)
        if present == wanted:
            replace_text(place.store.settings, note.settings)
    place.put_known(note.name, note.before)
