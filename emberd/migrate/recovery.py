"""Finishes or takes back what a stopped run or undo left, by the table `workplace.STATES`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from emberd.config.paths import is_url
from emberd.errors import StoreError
from emberd.migrate.notes import Backup, Note
from emberd.migrate.restore import require_whole, roll_back, undo_backup
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import OnDisk, Recovery, StoreState, Workplace, state_of
from emberd.stores.plugins import open_store


def recover(ref: StoreRef, state: Path) -> str | None:
    """Finish what a stopped run or undo left; return what was done, in words.

    Raises:
        StoreBusyError: the run or undo was not stopped, but is still under way.
        StoreError: its note is damaged.
        BackupError: its backup is damaged.
    """
    place = Workplace(ref.store, state)
    if not place.folder.is_dir():
        return None
    with place.locked():
        return recover_locked(place)


def recover_locked(place: Workplace) -> str | None:
    """Do what `recover` does, for a store that is locked already.

    If one run was to change several stores together, all of them are finished or all are taken
    back, and so is the file that was edited with them.
    """
    place.sweep()
    with ExitStack() as locks:
        places = [place, *(locks.enter_context(one) for one in _others(place))]
        state = state_of(combined([one.on_disk() for one in places]))
        return _RECOVERIES[state.recovery](places)


def combined(found: Sequence[OnDisk]) -> OnDisk:
    """Return the state of a run from those of its stores; the one being opened comes first."""
    first = found[0]
    if len(found) == 1:
        return first
    new = [one for one in found if one.store == "new"]
    store: StoreState = "old" if not new else "new" if len(new) == len(found) else "some new"
    going_back = any(one.note == "taking back" for one in found)
    backup = all(one.backup for one in new or found)  # a store that is not committed needs none
    return OnDisk("taking back" if going_back else "swap", backup, store)


def _others(place: Workplace) -> "Iterator[AbstractContextManager[Workplace]]":
    """Yield the other stores of the stopped run, to be locked, except those that are done."""
    if place.on_disk().note not in ("swap", "taking back"):
        return
    note = place.pending_note()
    for member in note.together.stores if note and note.together else ():
        if member.folder == str(place.folder):
            continue  # it is open already, with a password that no note has
        try:
            where = member.path if is_url(member.path) else Path(member.path)
            store = open_store(where, kind=member.kind, options=member.options)
        except StoreError:
            continue  # the store or its kind is gone
        other = Workplace(store, place.state_folder)
        if other.folder == place.folder:  # in a note of a version that did not say where it is
            continue
        theirs = other.pending_note()
        if note and theirs and theirs.together == note.together:
            yield _held(other)


@contextmanager
def _held(place: Workplace) -> Iterator[Workplace]:
    with place.locked():
        yield place


def _nothing(places: Sequence[Workplace]) -> None:
    del places


def _discard(places: Sequence[Workplace]) -> None:
    for place in places:
        place.discard()


def _finish(places: Sequence[Workplace]) -> str:
    note = _note_of(places)
    for place in places:
        place.finish()
    return f"Finished a migration to {note.model} that had been stopped."


def _take_back(places: Sequence[Workplace]) -> str | None:
    """Restore all stores, after marking all; None if no store and no file had been changed."""
    note = _note_of(places)
    on_disk = [place.on_disk() for place in places]
    changed = any(one.note == "taking back" or one.store == "new" for one in on_disk)
    for place in places:
        place.mark()
    file = ""
    if note.together and note.together.restore_file():
        file = f" {note.together.file} was restored too."
    elif note.together and note.together.is_edited():
        file = f" {note.together.file} was left alone, because it has been edited: check it."
    kept = _kept_in([roll_back(place) for place in places])
    if not changed and not file:
        return None
    return f"Took back a migration to {note.model} that had been stopped.{file}{kept}"


def _end_undo(places: Sequence[Workplace]) -> str:
    (place,) = places
    stopped = place.stopped_undo()
    assert stopped  # the state says so
    return "Finished an undo that had been stopped." + _kept_in([undo_backup(place, stopped).copy])


def _refuse(places: Sequence[Workplace]) -> None:
    """Raise an error that says what is wrong with the note or the backup."""
    for place in places:
        stopped = place.stopped_undo()
        if stopped:
            require_whole(place, stopped)
        note = place.pending_note()
        if note and place.holds(note):
            require_whole(place, Backup(place.pending, note))


_RECOVERIES: Mapping[Recovery, Callable[[Sequence[Workplace]], str | None]] = {
    Recovery.NOTHING: _nothing,
    Recovery.DISCARD: _discard,
    Recovery.FINISH: _finish,
    Recovery.TAKE_BACK: _take_back,
    Recovery.END_UNDO: _end_undo,
    Recovery.REFUSE: _refuse,
}


def _note_of(places: Sequence[Workplace]) -> Note:
    note = places[0].pending_note()
    assert note  # the state says so
    return note


def _kept_in(copies: Iterable[Path | None]) -> str:
    """Say where to find what was written in the meantime."""
    kept = ", ".join(str(copy) for copy in copies if copy)
    return f" The store as it was, with everything written in the meantime: {kept}" if kept else ""
