"""Databases that a process left half changed, copies that cannot be made, and restoring."""

import shutil
from pathlib import Path

import apsw
import pytest

from emberd.errors import NotAStoreError, StoreBusyError, StoreError
from emberd.stores.sqlite import database as sqlite


def make(path: Path, body: str = "old", journal: str = "delete") -> apsw.Connection:
    """Make a database of one table with a few hundred rows; return a connection to it."""
    database = apsw.Connection(str(path))
    database.pragma("journal_mode", journal)
    database.execute("CREATE TABLE notes(body)")
    with database:
        database.executemany("INSERT INTO notes VALUES (?)", [(body * 50,)] * 500)
    return database


def bodies(path: Path) -> set[str]:
    with sqlite.opened(path) as database:
        return {body[:3] for (body,) in database.execute("SELECT body FROM notes")}


def test_what_a_process_left_half_changed_is_rolled_back_before_it_is_read(tmp_path: Path) -> None:
    database = make(tmp_path / "store.db")
    database.pragma("cache_size", 1)  # changed pages go to the file before the commit
    database.execute("BEGIN; UPDATE notes SET body = 'new'")
    for name in ("store.db", "store.db-journal"):  # what is there if the process dies now
        shutil.copy(tmp_path / name, tmp_path / f"dead-{name}")
    database.close(True)
    dead = tmp_path / "dead-store.db"
    assert b"new" in dead.read_bytes()

    assert bodies(dead) == {"old"}

    assert b"new" not in dead.read_bytes()
    assert not dead.with_name("dead-store.db-journal").exists()


def test_a_file_that_is_no_database_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("no database" * 500)

    with pytest.raises(NotAStoreError, match=str(path)):
        sqlite.connect(path)


def test_a_copy_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path / "store.db").close()
    target = tmp_path / "no-folder" / "copy.db"

    with pytest.raises(StoreError, match=str(target)) as caught:
        sqlite.copy(tmp_path / "store.db", target)

    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_store_is_copied_and_restored_while_others_are_locked_out(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE_S", 0.01)
    path, backup, copy = (tmp_path / name for name in ("store.db", "backup.db", "copy.db"))
    make(backup, "old").close()
    make(path, "new", journal).close()

    with sqlite.restoring(path, backup) as restoring:
        restoring.copy(copy)
        with pytest.raises(StoreBusyError), sqlite.opened(path, write=True) as other:
            other.execute("DELETE FROM notes")
        restoring.commit()

    assert (bodies(path), bodies(copy)) == ({"old"}, {"new"})
