"""A backup put back in place of the store; what was written since is copied first."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.errors import BackupError, StoreError
from emberd.migrate import sidecar
from emberd.migrate.notes import Backup, Note, replace_text
from emberd.migrate.workplace import Workplace, hash_of, patiently


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `copy` is the store as it was until then.

    `changed` says whether anything was written to it since the migration; None: unknown, because a
    stopped run restored it.
    """

    note: Note
    copy: Path | None
    changed: bool | None = None


def undo_backup(place: Workplace, backup: Backup) -> Restored:
    """Make store, settings and what is known of it as they were before that migration.

    Raises:
        BackupError: the backup is damaged.
        StoreError: the store is locked, or cannot be written; it is as it was.
    """
    restored = _restore(place, backup)
    place.forget(backup)
    return restored


def roll_back(place: Workplace) -> Path | None:
    """Make the store what it was before a swap that is not through; the sidecar stays.

    Return the copy of what it was until then, when somebody had written to it meanwhile.
    """
    place.mark()
    note, copy = place.pending_note(), None
    if note and note.undoing:
        restored = _restore(place, Backup(place.pending, note))
        if restored.copy and restored.changed is False:  # only vectors that were not right
            sidecar.delete(restored.copy)
        else:
            copy = restored.copy
    place.discard()
    return copy


def _restore(place: Workplace, backup: Backup) -> Restored:
    """Make the store what a backup of it is, and the settings, and what is known of it.

    The store is locked from before it is copied until it is restored, so what others write is in
    the copy or lands in the restored store. The mark in the note says that this was begun; what
    fails before the store is restored leaves the note as it was.
    """
    note, changed = backup.note, None
    if not note.undoing or place.holds(note):
        require_whole(place, backup)
        place.require_room(place.store.path.stat().st_size + backup.path.stat().st_size)
        name = note.copy or f"undone-{place.next_number('undone'):04}.db"
        marked = replace(note, undoing=True, copy=name)
        try:
            with patiently(lambda: place.store.restoring(backup.path)) as restoration:
                marked.write(backup.note_path)
                restoration.copy(place.folder / name)
                changed = restoration.digest() != note.digest
                restoration.commit()
        except BaseException:
            with suppress(StoreError):  # the disk may be full, or the store out of reach
                if place.holds(note):  # an interrupt may come just after the commit
                    sidecar.delete(place.folder / name)
                    note.write(backup.note_path)
            raise
        note = marked
    _restore_settings(place, note)
    return Restored(note, place.folder / note.copy if note.copy else None, changed)


def require_whole(place: Workplace, backup: Backup) -> None:
    """Raise `BackupError` when a backup is not what was once written."""
    try:
        found = hash_of(backup.path)
        if backup.note.backup_hash not in (None, found):
            raise StoreError("its bytes are not those that were written.")  # noqa: TRY301
        place.store.check_backup(backup.path)
    except (StoreError, OSError) as error:
        before = backup.note.before
        model = before.model if before and before.model else "MODEL"
        raise BackupError(
            f"The backup {backup.path} is damaged and cannot be restored: {error}"
            " The store is as it was.",
            hint="Put a copy of that file of yours in its place; or embed the store again with the"
            f" model of before, `emberd migrate run STORE --to {model}`; or keep the store as it"
            f" is: delete that file and {backup.note_path.name}.",
        ) from None


def _restore_settings(place: Workplace, note: Note) -> None:
    """Restore settings that name the new model; others were edited since and stay."""
    if note.settings is not None and place.store.settings:
        present, wanted = place.settings(note)
        if present == wanted:
            replace_text(place.store.settings, note.settings)
    place.put_known(note.name, note.before)
