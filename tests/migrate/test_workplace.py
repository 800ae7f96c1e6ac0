"""The table of states beside a store: each is made on disk, recovered from, and looked at."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from emberd.errors import StoreBusyError, StoreError
from emberd.migrate.notes import JointRun, Member, Note, now
from emberd.migrate.recovery import combined, recover
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.workplace import (
    STATES,
    NoteState,
    OnDisk,
    Recovery,
    StoreState,
    Workplace,
    settings_of,
    state_of,
)
from emberd.spaces.stores import KnownStore
from emberd.stores.base import Stamp
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate import stores

ROWS = 5
CHANCE = np.random.default_rng(7)
OLD, NEW = (CHANCE.standard_normal((ROWS, 8)).astype("<f4") for _ in range(2))
LEFTOVERS = ("pending.db.partial", ".pending.json.emberd-new")


def possible_states() -> Iterator[OnDisk]:
    """Yield all that notes, backup and stamps can be together."""
    for note in get_args(NoteState):
        for store in (*get_args(StoreState), None):
            has_note = note not in ("none", "damaged")  # which says what the stamp should be
            joint_undo = note == "undo" and store == "some new"  # an undo is of one store
            if has_note is (store is not None) and not joint_undo:
                yield from (OnDisk(note, backup, store) for backup in (False, True))


POSSIBLE = list(possible_states())
CASES = [(found, 1) for found in POSSIBLE if found.store != "some new"]
CASES += [(found, 2) for found in POSSIBLE if found.note in ("swap", "taking back")]


class Migrating:
    """A store of a few rows that is taken from old to new vectors, step by step."""

    def __init__(self, folder: Path, state: Path) -> None:
        path = stores.make_cmem(folder, [f"text {at}" for at in range(ROWS)], OLD)
        self.store = CmemStore(path)
        self.ref = StoreRef(name=str(path), store=self.store)
        self.place = Workplace(self.store, state)
        self.place.folder.mkdir()
        self.member = Member(path=str(path), kind="cmem", options={})
        self.place.put_known(self.ref.name, self.known("old"))

    def known(self, model: str) -> KnownStore:
        """Return what is noted of the store."""
        return KnownStore(
            path=str(self.store.path), kind="cmem", model=model, fingerprint=None, migration="m"
        )

    def swap(self, *, commit: bool, joint: JointRun | None = None) -> None:
        """Prepare a swap, and commit it or die before that."""
        settings, _ = settings_of(self.store, model="new", dimensions=8)
        note = Note(
            migration="m", at=now(), model="new", dimensions=8, part=self.store.part, rows=ROWS,
            digest="", name=self.ref.name, before=self.known("old"), after=self.known("new"),
            settings=settings, together=joint,
        )  # fmt: skip
        stamp = Stamp(
            model="new", fingerprint="f", dimensions=8, probes="", migration="m", made_at=now()
        )
        vectors = ((key, NEW[key - 1].tobytes()) for key in range(1, ROWS + 1))
        with self.store.replacing() as replacement:
            self.place.prepare(note)
            replacement.fill(vectors, dimensions=8, stamp=stamp)
            self.place.filled(replacement.digest())
            if commit:
                replacement.commit()

    def restore(self, backup: Path) -> None:
        """Do the step of an undo that makes the store the old one."""
        with self.store.restoring(backup) as restoration:
            restoration.commit()

    @property
    def is_old(self) -> bool:
        """Whether vectors, settings and what is known are wholly the old ones; or wholly new."""
        _, vectors = stores.read(self.store.path)
        settings = json.loads(self.store.path.with_name("config.json").read_text())
        known = self.place.known(self.ref.name)
        found = {
            np.array_equal(vectors, OLD) or not np.array_equal(vectors, NEW),
            settings == stores.CMEM_CONFIG,
            known == self.known("old"),
        }
        assert len(found) == 1
        return bool(found.pop())


def make_none(all_: list[Migrating], backup: bool, store: StoreState | None) -> None:
    if backup:
        all_[0].store.backup(all_[0].place.pending)


def make_swap(all_: list[Migrating], backup: bool, store: StoreState | None) -> None:
    joint = JointRun(run="r", stores=tuple(one.member for one in all_))
    for at, one in enumerate(all_):
        committed = store == "new" or (store == "some new" and at == 0)
        one.swap(commit=committed, joint=joint)
        if not backup and (committed or store == "old"):
            one.place.pending.unlink()


def make_taking_back(all_: list[Migrating], backup: bool, store: StoreState | None) -> None:
    make_swap(all_, True, "new" if store == "old" else store)
    for one in all_:
        one.place.settle()
        one.place.mark()
        committed = one.place.on_disk().store == "new"
        if store == "old":
            one.restore(one.place.pending)
        if not backup and committed:
            one.place.pending.unlink()


def make_undo(all_: list[Migrating], backup: bool, store: StoreState | None) -> None:
    (one,) = all_
    one.swap(commit=True)
    one.place.finish()
    (kept,) = one.place.backups()
    replace(kept.note, undoing=True).write(kept.note_path)
    if store == "old":
        one.restore(kept.path)
    if not backup:
        kept.path.unlink()


def make_damaged(all_: list[Migrating], backup: bool, store: StoreState | None) -> None:
    make_swap(all_, backup, "old")
    all_[0].place.pending.with_suffix(".json").write_text('{"migr')


MAKE: dict[NoteState, Callable[[list[Migrating], bool, StoreState | None], None]] = {
    "none": make_none,
    "swap": make_swap,
    "taking back": make_taking_back,
    "undo": make_undo,
    "damaged": make_damaged,
}
HOLDS_OLD = {  # what all stores hold after each recovery
    Recovery.NOTHING: True,
    Recovery.DISCARD: True,
    Recovery.FINISH: False,
    Recovery.TAKE_BACK: True,
    Recovery.END_UNDO: True,
}


def test_every_state_that_is_possible_is_in_one_row_and_every_row_is_possible() -> None:
    rows = {found: [state for state in STATES if state.matches(found)] for found in POSSIBLE}

    assert {len(matching) for matching in rows.values()} == {1}
    assert [state for state in STATES if [state] not in rows.values()] == []


def files_of(migrating: Migrating) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in migrating.place.folder.iterdir()}
    return {name: content for name, content in found.items() if name not in ("lock", *LEFTOVERS)}


@pytest.mark.parametrize(("found", "count"), CASES)
def test_every_state_is_recovered_from_as_the_table_says(
    found: OnDisk, count: int, tmp_path: Path
) -> None:
    """`count` stores were changed by one run; the last of them is opened next."""
    all_ = [Migrating(tmp_path / str(at), tmp_path / "state") for at in range(count)]
    MAKE[found.note](all_, found.backup, found.store)
    for one in all_:
        one.place.staged.write_bytes(b"a sidecar")
    opened = all_[-1]
    for name in LEFTOVERS:
        (opened.place.folder / name).write_bytes(b"half of it")
    assert combined([one.place.on_disk() for one in all_]) == found
    recovery = state_of(found).recovery

    if recovery is Recovery.REFUSE:
        before = [files_of(one) for one in all_]
        with pytest.raises(StoreError):
            recover(opened.ref, tmp_path / "state")
        assert [files_of(one) for one in all_] == before
        return
    said = recover(opened.ref, tmp_path / "state")

    assert bool(said) is (recovery in (Recovery.FINISH, Recovery.END_UNDO) or was_changed(found))
    assert not [name for name in LEFTOVERS if (opened.place.folder / name).exists()]
    for one in all_:
        assert one.is_old is HOLDS_OLD[recovery]
        assert one.place.on_disk() == OnDisk("none", backup=False, store=None)
        assert one.place.staged.exists() is (recovery is not Recovery.FINISH)
        assert len(one.place.backups()) == (recovery is Recovery.FINISH and found.backup)
        assert recover(one.ref, tmp_path / "state") is None


def was_changed(found: OnDisk) -> bool:
    return found.note == "taking back" or (found.note, found.store) == ("swap", "some new")


def test_a_migration_that_is_under_way_is_left_alone(tmp_path: Path) -> None:
    migrating = Migrating(tmp_path / "one", tmp_path / "state")
    migrating.swap(commit=True)

    with migrating.place.locked(), pytest.raises(StoreBusyError):
        recover(migrating.ref, tmp_path / "state")

    assert migrating.place.on_disk() == OnDisk("swap", backup=True, store="new")


def test_what_was_written_before_a_migration_is_taken_back_is_in_a_copy(tmp_path: Path) -> None:
    migrating = Migrating(tmp_path / "one", tmp_path / "state")
    migrating.swap(commit=True)
    migrating.place.settle()
    migrating.place.mark()
    database = stores.connect(migrating.store.path)
    database.execute("INSERT INTO turns VALUES (1)")
    database.close()

    said = recover(migrating.ref, tmp_path / "state")

    (copy,) = migrating.place.copies()
    assert said
    assert str(copy) in said
    assert stores.read(copy)[0] == stores.read(migrating.store.path)[0]
    assert np.array_equal(stores.read(copy)[1], NEW)
    assert migrating.is_old
