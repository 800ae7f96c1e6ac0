"""Undo beside a writer, with damaged backups, on a full disk: nothing that was written is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import BackupError, DiskFullError, MigrationError, StoreBusyError, StoreError
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.notes import Note
from emberd.migrate.plan import plan
from emberd.migrate.recovery import recover
from emberd.migrate.restore import Restored
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import complete
from emberd.migrate.turns import IN_FLIGHT
from emberd.migrate.undo import undo
from emberd.stores.base import Replacement
from emberd.stores.sqlite.cmem import CmemStore
from tests import disk
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import Made, Work
from tests.serving import wait_for

ROWS = 60
MODES = ["wal", "delete", "truncate", "persist"]


@pytest.fixture(scope="session")
def few(made: Made) -> Made:
    """The first of them: 60 of a store, and 240 for a writer."""
    count = ROWS + 240
    return Made(made.texts[:count], made.old[:count], made.new[:count])


@pytest.fixture
def store(few: Made, tmp_path: Path) -> Path:
    stores.make_cmem(tmp_path / "cmem", few.texts[:ROWS], few.old[:ROWS])
    return tmp_path / "cmem"


def agree(note: Note, changed: bool) -> None:
    """Confirm an undo."""


def undone(named: StoreRef, work: Work) -> Restored:
    return undo(named, work.state, confirm=agree)


def move(named: StoreRef, work: Work, to: str = "minilm-f32") -> None:
    migrate_all([named], work.target(to), work.embedder, work.state)


@contextmanager
def writing(database: Path, few: Made, folder: Path, *options: str) -> Iterator[None]:
    """Have somebody write to a store before, while and after something is done."""
    (folder / "texts.json").write_text(json.dumps(few.texts[ROWS:]))
    np.save(folder / "old.npy", few.old[ROWS:])
    np.save(folder / "new.npy", few.new[ROWS:])
    command = [sys.executable, "-m", "tests.migrate.writer", str(database), str(folder), *options]
    writer = subprocess.Popen(command)
    try:
        wait_for(lambda: len(turns(database)) > 5)
        yield
        seen = len(turns(database))
        wait_for(lambda: len(turns(database)) > seen + 5)
    finally:
        (folder / "stop").touch()
        assert writer.wait(60) == 0


def turns(database: Path) -> list[int]:
    connection = stores.connect(database)
    found = [turn for (turn,) in connection.execute("SELECT turn FROM turns ORDER BY turn")]
    connection.close()
    return found


def are_all_there(copy: Path, database: Path, folder: Path) -> None:
    """Every turn of the writer is in the copy, up to one of them, or in the store, from the next.

    Of a writer that began after the backup.
    """
    first, then = turns(copy), turns(database)
    written = json.loads((folder / "done.json").read_text())["written"]
    assert first + then == list(range(1, len(written) + 1))
    assert first
    assert then


def spaces(database: Path, few: Made) -> set[str]:
    """Return in which spaces the vectors of a store are."""
    connection = stores.connect(database)
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    rows = list(
        connection.execute(
            "SELECT m.content, v.embedding FROM vec_memories v JOIN memories m ON m.id = v.rowid"
        )
    )
    connection.close()
    places = [few.texts.index(text) for text, _ in rows]
    vectors = np.stack([np.frombuffer(raw, "<f4") for _, raw in rows])
    old = cosines(vectors, few.old[places]) > 0.9999
    new = cosines(vectors, few.new[places]) > 0.9999
    assert (old ^ new).all()
    return {"old" if each else "new" for each in old}


@pytest.mark.slow
@pytest.mark.parametrize("journal", MODES)
def test_what_is_written_during_an_undo_is_in_the_copy_or_in_the_store(
    journal: str, few: Made, work: Work, tmp_path: Path
) -> None:
    folder = tmp_path / "cmem"
    database = stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS], journal=journal)
    named = work.open(folder)
    for turn in range(3):
        move(named, work)
        (tmp_path / str(turn)).mkdir()
        with writing(database, few, tmp_path / str(turn), "--journal", journal, "--pause", "0.002"):
            copy = undone(named, work).copy

        assert copy
        are_all_there(copy, database, tmp_path / str(turn))
        assert (spaces(copy, few), spaces(database, few)) == ({"new"}, {"old"})
        connection = stores.connect(database)
        connection.execute("DELETE FROM turns")
        connection.close()


class Wrong:
    """A model that gives another space once the store is swapped, and written to after that."""

    at_once = IN_FLIGHT

    def __init__(self, work: Work, named: StoreRef, database: Path) -> None:
        self._work = work
        self._named = named
        self._database = database

    def submit(self, texts, **options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201
        """Embed."""
        if self._named.store.stamp():
            seen = len(turns(self._database))
            wait_for(lambda: len(turns(self._database)) > seen)
            options |= {"model": "minilm", "fingerprint": None}
        return self._work.embedder.submit(texts, **options)

    def release(self, model: str) -> None:
        """Nothing: the pool is everybody's."""
        del model


@pytest.mark.slow
@pytest.mark.parametrize("journal", MODES[:3])
def test_what_is_written_while_a_migration_is_taken_back_is_not_lost(
    journal: str, few: Made, work: Work, tmp_path: Path
) -> None:
    folder = tmp_path / "cmem"
    database = stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS], journal=journal)
    named = work.open(folder)

    with (
        writing(database, few, tmp_path, "--journal", journal, "--pause", "0.002"),
        pytest.raises(MigrationError, match=r"is in .*undone-0001.db"),
    ):
        migrate_all([named], work.target(), Wrong(work, named, database), work.state)

    (copy,) = (folder / "memories.db.emberd").glob("undone-*.db")
    first, then = turns(copy), turns(database)
    written = json.loads((tmp_path / "done.json").read_text())["written"]
    assert set(first) | set(then) == set(range(1, len(written) + 1))
    assert spaces(database, few) == {"old"}


def flip(backup: Path) -> None:
    """Change 40 bytes in it, in a vector, where SQLite does not look."""
    raw = bytearray(backup.read_bytes())
    connection = stores.connect(backup)
    vector = connection.execute("SELECT embedding FROM vec_memories WHERE rowid = 7").get
    connection.close()
    at = raw.index(vector[:64])
    raw[at : at + 40] = bytes(255 - byte for byte in raw[at : at + 40])
    backup.write_bytes(raw)


def cut(backup: Path) -> None:
    """Leave half of it."""
    os.truncate(backup, backup.stat().st_size // 2)


def empty(backup: Path) -> None:
    """Leave nothing, which is a whole database for SQLite."""
    os.truncate(backup, 0)


def overwrite(backup: Path) -> None:
    """Make it something else."""
    backup.write_bytes(b"garbage" * 4000)


def beside(folder: Path) -> Path:
    return folder / "memories.db.emberd"


def forget_hash(folder: Path) -> None:
    """Make the note what an older emberd wrote."""
    (path,) = beside(folder).glob("backup-*.json")
    note = json.loads(path.read_text())
    del note["backup_hash"], note["copy"]
    path.write_text(json.dumps(note))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut, empty, overwrite])
@pytest.mark.parametrize("hashed", [True, False])
def test_a_damaged_backup_is_not_restored(
    damage: Callable[[Path], None], hashed: bool, few: Made, store: Path, work: Work
) -> None:
    if damage is flip and not hashed:
        return  # nothing can tell: see the next test
    named = work.open(store)
    move(named, work)
    backup = beside(store) / "backup-0001.db"
    damage(backup)
    damaged = backup.read_bytes()
    if not hashed:
        forget_hash(store)
    digest = named.store.digest()

    with pytest.raises(BackupError, match=f"The backup {backup} is damaged.*store was not changed"):
        undone(named, work)

    assert named.store.digest() == digest
    assert backup.read_bytes() == damaged
    assert not list(beside(store).glob("undone-*"))
    assert recover(named, work.state) is None  # and nobody takes it up again


def test_a_backup_of_an_older_emberd_is_restored_and_the_copy_is_there(
    few: Made, store: Path, work: Work
) -> None:
    """Damage that only a hash would have revealed must not lose anything either."""
    named = work.open(store)
    move(named, work)
    forget_hash(store)

    done = undone(named, work)

    assert done.note.backup_hash is None  # which the command line says
    assert done.copy
    assert (spaces(done.copy, few), spaces(store / "memories.db", few)) == ({"new"}, {"old"})


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["[1", "", "{}", None])
def test_a_backup_without_its_note_is_told_as_that(
    damage: str | None, store: Path, work: Work
) -> None:
    named = work.open(store)
    move(named, work)
    note = beside(store) / "backup-0001.json"
    note.unlink() if damage is None else note.write_text(damage)

    with pytest.raises(BackupError, match=r"backup-0001\.json.*is damaged") as caught:
        undone(named, work)

    assert ".restore" in (caught.value.hint or "")
    backup = str(note.with_suffix(".db"))
    assert status(named, work.state)["unreadable"] == [backup]
    move(named, work, "minilm")  # it hinders nobody
    assert undone(named, work).note.model == "minilm"


@pytest.mark.slow
def test_a_damaged_note_of_a_swap_is_not_thrown_away_with_its_backup(
    store: Path, work: Work
) -> None:
    named = work.open(store)
    beside(store).mkdir()
    pending = beside(store) / "pending.db"
    named.store.backup(pending)
    pending.with_suffix(".json").write_text('{"migr')

    with pytest.raises(StoreError, match=r"pending\.json is damaged"):
        recover(named, work.state)

    assert pending.exists()


@pytest.mark.slow
@pytest.mark.parametrize("garbage", [b"some text" * 999, b"SQLite format 3\0" + bytes(5000)])
def test_garbage_in_place_of_the_staged_vectors_is_told_as_that(
    garbage: bytes, store: Path, work: Work
) -> None:
    named = work.open(store)
    beside(store).mkdir()
    staged = beside(store) / "staged.db"
    staged.write_bytes(garbage)

    with pytest.raises(StoreError, match=r"staged\.db.*is damaged") as caught:
        move(named, work)

    assert "--kind" not in (caught.value.hint or "")
    assert "delete" in (caught.value.hint or "").lower()
    staged.unlink()
    move(named, work)


def test_an_undo_that_was_stopped_is_ended_and_no_other_begun(
    few: Made, store: Path, work: Work
) -> None:
    named = work.open(store)
    move(named, work)
    move(named, work, "minilm")
    note = beside(store) / "backup-0002.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"undoing": True}))

    assert undone(named, work).note.model == "minilm"

    assert spaces(store / "memories.db", few) == {"new"}
    note = beside(store) / "backup-0001.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"undoing": True}))
    with named.store.restoring(note.with_suffix(".db")) as restoration:
        restoration.commit()
    note.with_suffix(".db").unlink()  # killed between the two deletions
    assert undone(named, work).note.model == "minilm-f32"
    assert not note.exists()
    with pytest.raises(StoreError, match="no backup"):
        undone(named, work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MiB."""
    try:
        with disk.mounted(tmp_path / "disk", 40) as folder:
            yield folder
    except disk.CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("journal", MODES[:3])
@pytest.mark.parametrize("left_kib", [0, 8, 600, 1400])
def test_a_disk_that_is_full_during_an_undo(
    journal: str,
    left_kib: int,
    few: Made,
    small_disk: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fills up after the room was checked, at several moments of the undo."""
    folder = small_disk / "cmem"
    stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS], journal=journal)
    named = work.open(folder)
    move(named, work)
    digest = named.store.digest()
    hogs: list[Path] = []

    def fill(place: object, needed: int) -> None:
        hogs.append(disk.fill(small_disk))
        os.truncate(hogs[0], hogs[0].stat().st_size - left_kib * 1024)

    monkeypatch.setattr("emberd.migrate.workplace.Workplace.require_room", fill)
    with pytest.raises(StoreError, match=r"full|cannot be"):
        undone(named, work)

    hogs[0].unlink()
    monkeypatch.undo()
    assert not list(beside(folder).glob("undone-*"))
    assert named.store.digest() == digest
    assert undone(named, work).copy
    assert spaces(folder / "memories.db", few) == {"old"}


def test_too_small_a_disk_is_met_before_an_undo_begins(
    few: Made, small_disk: Path, work: Work
) -> None:
    folder = small_disk / "cmem"
    stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS])
    named = work.open(folder)
    move(named, work)
    hog = disk.fill(small_disk)

    with pytest.raises(DiskFullError, match="left"):
        undone(named, work)

    hog.unlink()
    assert spaces(folder / "memories.db", few) == {"new"}


def test_a_writer_that_does_not_end_is_waited_for_and_nothing_is_done(
    store: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emberd.stores.sqlite.database.PATIENCE_S", 0.2)
    named = work.open(store)
    move(named, work)
    other = stores.connect(store / "memories.db")
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreBusyError):
        undone(named, work)

    other.close()
    assert not list(beside(store).glob("undone-*"))
    assert (beside(store) / "backup-0001.db").exists()


@pytest.mark.usefixtures("texts_come")
@pytest.mark.parametrize(
    "journal", ["wal", *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[1:3])]
)
def test_rows_written_in_two_halves_are_caught_up(
    journal: str, few: Made, work: Work, tmp_path: Path
) -> None:
    folder = tmp_path / "cmem"
    database = stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS], journal=journal)
    named = work.open(folder)

    with writing(database, few, tmp_path, "--journal", journal, "--vectors-first"):
        moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    written = dict(json.loads((tmp_path / "done.json").read_text())["written"])
    keys = {*range(1, ROWS + 1), *written} - {key for key, at in written.items() if at is None}
    assert stores.read(database)[0] == sorted(keys)
    assert spaces(database, few) == {"new"}
    assert (moved.strays, moved.set_aside) == (0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("texts_come")
def test_a_row_between_its_halves_is_no_vector_without_a_text(
    few: Made, work: Work, tmp_path: Path
) -> None:
    """A plan that is made while somebody writes vectors first is not refused for that."""
    folder = tmp_path / "cmem"
    database = stores.make_cmem(folder, few.texts[:ROWS], few.old[:ROWS])
    named, target = work.open(folder), work.target()

    with writing(database, few, tmp_path, "--vectors-first"):
        found = [plan(named, target, work.embedder, work.state) for _ in range(4)]

    assert not any(each.there or each.lacking.text for each in found)


@pytest.mark.usefixtures("nobody_writes")
def test_a_text_that_comes_after_a_run_has_ended_is_completed_by_the_next(
    few: Made, store: Path, work: Work
) -> None:
    database = stores.connect(store / "memories.db")
    insert = "INSERT INTO vec_memories(rowid, embedding) VALUES (?, ?)"
    database.execute(insert, (700, few.old[70].tobytes()))
    named, target = work.open(store), work.target()
    moved = migrate_all(
        [named], target, work.embedder, work.state, options=RunOptions(set_aside=True)
    )[named.name]
    database.execute("INSERT INTO memories(id, content) VALUES (700, ?)", (few.texts[70],))
    database.close()

    done = [complete(named, target, work.embedder, work.state) for _ in range(2)]

    assert (moved.set_aside, moved.completed) == (1, 0)
    assert done == [1, 0]
    keys, vectors = stores.read(store / "memories.db")
    assert keys[-1] == 700
    assert cosines(vectors[-1:], few.new[70:71]).min() > 0.9999


@pytest.mark.usefixtures("nobody_writes")
def test_a_completed_row_keeps_its_other_columns(few: Made, work: Work, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    database = stores.connect(path)
    database.execute(
        "CREATE TABLE notes(body TEXT);"
        "CREATE VIRTUAL TABLE v USING"
        " vec0(e float[384], user text partition key, n integer, +x text)"
    )
    for at in range(20):
        row = (at + 1, few.old[at].tobytes(), f"u{at % 2}", at, f"x{at}")
        database.execute("INSERT INTO v(rowid, e, user, n, x) VALUES (?, ?, ?, ?, ?)", row)
        if at != 7:
            database.execute(
                "INSERT INTO notes(rowid, body) VALUES (?, ?)", (at + 1, few.texts[at])
            )
    columns = "SELECT rowid, user, n, x FROM v ORDER BY rowid"
    before = database.execute(columns).fetchall()
    named, target = work.open(path, text="notes.body"), work.target()
    migrate_all([named], target, work.embedder, work.state, options=RunOptions(set_aside=True))
    database.execute("INSERT INTO notes(rowid, body) VALUES (8, ?)", (few.texts[7],))

    assert complete(named, target, work.embedder, work.state) == 1

    assert database.execute(columns).fetchall() == before
    assert not database.table_exists("main", "emberd_set_aside")  # it would be empty
    database.close()


@pytest.mark.parametrize("same_text", [False, True])
def test_vectors_of_a_writer_that_keeps_the_old_model_are_counted_exactly(
    same_text: bool, few: Made, store: Path, work: Work
) -> None:
    class Written(CmemStore):
        """Somebody writes nine rows as soon as the swap is through, three in the new space."""

        @contextmanager
        def replacing(self) -> Iterator[Replacement]:
            with super().replacing() as replacement:
                yield replacement
            if self.stamp():
                database = stores.connect(store / "memories.db")
                for at in range(10, 19):
                    key = at + 1 if same_text else 900 + at
                    database.execute("DELETE FROM memories WHERE id = ?", (key,))
                    database.execute("DELETE FROM vec_memories WHERE rowid = ?", (key,))
                    space = few.new if at < 13 else few.old
                    stores.add(database, [key], [few.texts[at]], space[at : at + 1])
                database.close()

    named = replace(work.open(store), store=Written(store))
    moved = migrate_all([named], work.target(), work.embedder, work.state)[named.name]

    assert (moved.strays, moved.gone) == (6, 0)
