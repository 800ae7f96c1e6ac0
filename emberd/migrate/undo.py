"""Undoing the last migration of a store, from its backup, or ending an undo that was stopped."""

from collections.abc import Callable
from pathlib import Path

from emberd.errors import BackupError, StoreError
from emberd.migrate.notes import Backup, Note
from emberd.migrate.recovery import recover_locked
from emberd.migrate.restore import Restored, undo_backup
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import Workplace


def undo(ref: StoreRef, state: Path, *, confirm: Callable[[Note, bool], None]) -> Restored:
    """Restore the newest backup and the settings that went with it.

    Args:
        ref: the store.
        state: the state folder.
        confirm: called with the backup's note and whether the store was written to after the
            migration; raises to stop.

    If an undo was stopped, this finishes it without asking again, and does not begin another.

    Raises:
        BackupError: the backup or its note is damaged; nothing was changed.
        StoreError: there is no backup, or the store is locked.
    """
    place = Workplace(ref.store, state)
    if not place.folder.is_dir():
        raise _no_backup(ref)
    with place.locked():
        backup = place.stopped_undo()
        if backup is None:
            recover_locked(place)
            backup = _newest(ref, place)
            confirm(backup.note, place.is_changed(backup.note))
        restored = undo_backup(place, backup)
        place.put_known(ref.name, backup.note.before)  # the store may have another name by now
        return restored


def _newest(ref: StoreRef, place: Workplace) -> Backup:
    backups, unreadable = place.backups(), place.unreadable()
    if unreadable and not (backups and backups[-1].path > unreadable[-1]):
        newest = unreadable[-1]
        raise BackupError(
            f"{newest.with_suffix('.json')}, which describes the backup {newest}, is damaged or"
            " missing. The store was not changed.",
            hint="To restore it by hand, end the programs that use the store and put the backup in"
            f' its place (SQLite: `sqlite3 {ref.address} ".restore {newest}"`). To undo'
            " the migration before that one, move both files elsewhere.",
        )
    if not backups:
        raise _no_backup(ref)
    return backups[-1]


def _no_backup(ref: StoreRef) -> StoreError:
    return StoreError(
        f"{ref.address} has no backup of a migration.", hint="There is nothing to undo."
    )
