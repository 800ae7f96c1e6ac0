"""SQLite's own errors, made by real databases, as ours: each names the file and says what to do."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from emberd.errors import (
    DiskFullError,
    EmberdError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreRowsError,
)
from emberd.stores.sqlite.errors import explained


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table of a few pages."""
    path = tmp_path / "store.db"
    with apsw.Connection(str(path)) as database:
        database.execute("CREATE TABLE notes(body); INSERT INTO notes VALUES (zeroblob(100000))")
    return path


@contextmanager
def failing(path: Path, error: type[EmberdError]) -> Iterator[None]:
    """Fail unless exactly this error is raised, with the file and with what to do."""
    with pytest.raises(error) as caught, explained(path):
        yield
    assert type(caught.value) is error
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_full_database_is_a_full_disk(path: Path) -> None:
    database = apsw.Connection(str(path))
    database.execute("PRAGMA max_page_count = 1")
    with failing(path, DiskFullError):
        database.execute("INSERT INTO notes VALUES (zeroblob(100000))")
    database.close()


def test_a_file_that_cannot_grow_is_a_full_disk(path: Path) -> None:
    database = apsw.Connection(str(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        with failing(path, DiskFullError):
            database.execute("INSERT INTO notes VALUES (zeroblob(1000000))")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        database.close()


def test_a_database_that_may_only_be_read(path: Path) -> None:
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    with failing(path, StoreError):
        database.execute("DELETE FROM notes")
    database.close()


def test_a_locked_database(path: Path) -> None:
    one, other = apsw.Connection(str(path)), apsw.Connection(str(path))
    one.execute("BEGIN EXCLUSIVE")
    with failing(path, StoreBusyError):
        other.execute("DELETE FROM notes")
    one.close()
    other.close()


def test_a_database_that_cannot_be_opened(path: Path) -> None:
    with failing(path, StoreError):
        apsw.Connection(str(path / "below-a-file"))


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    database = apsw.Connection(str(path))
    with failing(path, NotAStoreError):
        database.execute("SELECT * FROM notes")
    database.close()


def test_a_damaged_database(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 2 * 4096] = b"\xff" * 4096  # the table's first page
    path.write_bytes(content)
    database = apsw.Connection(str(path))
    with failing(path, StoreError):
        list(database.execute("SELECT * FROM notes"))
    database.close()


@pytest.mark.parametrize("column", ["rowid", "content"])
def test_a_column_that_is_not_there(column: str, path: Path) -> None:
    database = apsw.Connection(str(path))
    database.execute("CREATE TABLE keyed(id TEXT PRIMARY KEY) WITHOUT ROWID")
    with pytest.raises(NotAStoreError) as caught, explained(path):
        database.execute(f"SELECT {column} FROM keyed")  # noqa: S608
    database.close()

    assert ("--option id=COLUMN" in (caught.value.hint or "")) is (column == "rowid")


def test_a_text_that_is_not_utf_8(path: Path) -> None:
    database = apsw.Connection(str(path))
    with failing(path, StoreRowsError):
        list(database.execute("SELECT CAST(x'ff' AS TEXT)"))
    database.close()


@pytest.mark.parametrize("kind", [apsw.IOError, apsw.TooBigError])
def test_any_other_error_names_the_file_and_quotes_sqlite(
    kind: type[Exception], path: Path
) -> None:
    with pytest.raises(StoreError, match="as SQLite says it") as caught, explained(path):
        raise kind("as SQLite says it")

    assert str(path) in caught.value.message
