"""What people point at by mistake: one clear error, and nothing is changed."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import (
    EmberdError,
    NotAStoreError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreKindError,
    StoreRowsError,
    UnknownModelError,
)
from emberd.migrate.check import check
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.status import status
from emberd.stores.sqlite import database as sqlite
from tests.migrate import stores
from tests.migrate.conftest import ROWS, Made, Work
from tests.powers import powerless
from tests.serving import clean_environ


@contextmanager
def refused(
    folder: Path, kind: type[EmberdError], words: str
) -> Iterator[pytest.ExceptionInfo[EmberdError]]:
    """Expect an error of exactly this kind with these words, and no file changed."""
    before = contents(folder)
    with pytest.raises(kind, match=words) as caught:
        yield caught
    assert type(caught.value) is kind
    assert caught.value.hint
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, str]:
    """Return the hashes of all files; SQLite's own companions come and go."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def test_a_path_that_is_not_there(tmp_path: Path, work: Work) -> None:
    with refused(tmp_path, NotAStoreError, "There is no store"):
        work.open(tmp_path / "nowhere.db")


@pytest.mark.parametrize("content", [b"", b"some text", b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes, work: Work) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(content)

    with refused(tmp_path, NotAStoreError, "is not a store"):
        work.open(path)


def test_a_folder_that_is_no_store(tmp_path: Path, work: Work) -> None:
    with refused(tmp_path, NotAStoreError, "is not a store"):
        work.open(tmp_path)


def change(path: Path, *statements: str) -> None:
    database = stores.connect(path)
    for statement in statements:
        database.execute(statement)
    database.close()


def test_cmem_with_another_schema(cmem: Path, work: Work) -> None:
    change(cmem / "memories.db", "ALTER TABLE memories RENAME COLUMN content TO body")

    with refused(cmem, NotAStoreError, "expected schema.*content"):
        plan(work.open(cmem), work.target(), work.embedder, work.state)


def test_a_vec0_table_whose_texts_are_nowhere(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "vectors.db"
    change(path, "CREATE VIRTUAL TABLE v USING vec0(e float[3])")

    with refused(tmp_path, NotAStoreError, "no text column of its own"):
        work.open(path).store.inspect()


def test_a_vec0_table_with_several_text_columns(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "vectors.db"
    change(path, "CREATE VIRTUAL TABLE v USING vec0(e float[3], title text, +body text)")

    with refused(tmp_path, NotAStoreError, r"v has several text columns \(title, body\)") as caught:
        work.open(path).store.inspect()
    assert caught.value.hint == "Name the one that was embedded: `--option text=v.COLUMN`."


def test_texts_of_a_table_without_rowid(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "vectors.db"
    change(
        path,
        "CREATE TABLE docs(name TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID",
        "CREATE VIRTUAL TABLE v USING vec0(id TEXT PRIMARY KEY, e float[3])",
    )

    with refused(tmp_path, NotAStoreError, "no such column: .*rowid") as caught:
        work.open(path, text="docs.body").store.inspect()
    assert "`--option id=COLUMN`" in (caught.value.hint or "")
    assert work.open(path, text="docs.body", id="name").store.inspect().rows == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "docs"}, "expected TABLE.COLUMN"),
        ({"text": "nothing.body"}, "expected schema.*nothing"),
        ({"text": "docs.nothing"}, "no text|expected schema"),
        ({"query": "SELECT 1"}, "expected schema"),
        ({"query": "DELETE FROM docs"}, "expected schema"),
        ({"table": "w", "text": "docs.body"}, "no vec0 table w, only: v"),
        ({"text": "docs.body", "id": "other"}, "no text belongs to any of the 1 vectors"),
        ({"query": "SELECT 1, 'a' UNION ALL SELECT 1, 'b'"}, "several texts belong to one vector"),
    ],
)
def test_options_that_do_not_fit_the_database(
    tmp_path: Path, work: Work, options: dict[str, str], words: str
) -> None:
    path = tmp_path / "vectors.db"
    change(
        path,
        "CREATE TABLE docs(body TEXT, other INTEGER)",
        "CREATE VIRTUAL TABLE v USING vec0(e float[3])",
        "INSERT INTO docs VALUES ('text', 7)",
        "INSERT INTO v(rowid, e) VALUES (1, vec_f32('[1,2,3]'))",
    )

    with refused(tmp_path, NotAStoreError, words):
        work.open(path, **options).store.inspect()


@pytest.mark.parametrize("columns", ["a float[2], b float[2]", "a float[8], b int8[8]"])
def test_two_columns_of_vectors(tmp_path: Path, work: Work, columns: str) -> None:
    path = tmp_path / "vectors.db"
    change(path, f"CREATE VIRTUAL TABLE v USING vec0({columns}, +body text)")

    with refused(tmp_path, NotAStoreError, "a store has one"):
        work.open(path).store.inspect()


def test_two_vec0_tables_are_not_chosen_from(tmp_path: Path, work: Work) -> None:
    path = tmp_path / "vectors.db"
    for name in "ab":
        change(path, f"CREATE VIRTUAL TABLE {name} USING vec0(e float[3], +body text)")

    with refused(tmp_path, NotAStoreError, r"2 vec0 tables \(a, b\)"):
        work.open(path).store.inspect()
    assert work.open(path, table="b").store.inspect().dimensions == 3


@pytest.mark.usefixtures("nobody_writes")
@pytest.mark.parametrize("text", ["''", "NULL", "x'ff'"])
def test_texts_that_are_null_or_empty(cmem: Path, work: Work, text: str) -> None:
    change(cmem / "memories.db", f"UPDATE memories SET content = {text} WHERE id IN (3, 9)")  # noqa: S608

    with refused(cmem, StoreRowsError, r"2 vectors have no text, .* \(3, 9\)"):
        plan(work.open(cmem), work.target(), work.embedder, work.state)


def test_texts_that_are_not_utf_8(cmem: Path, work: Work) -> None:
    change(
        cmem / "memories.db",
        "UPDATE memories SET content = CAST(x'ff61' AS TEXT) WHERE id IN (3, 9, 12, 30, 50, 299)",
        "UPDATE memories SET content = 'Gr\u00fc\u00dfe' WHERE id = 4",
        "UPDATE memories SET content = NULL WHERE id = 5",
    )
    words = r"the text of 6 rows of memories.content is not UTF-8 \(3, 9, 12, 30, 50, \.\.\.\)"

    with refused(cmem, StoreRowsError, words):
        check(work.config, work.open(cmem), work.embedder)
    with refused(cmem, StoreRowsError, words):
        plan(work.open(cmem), work.target(), work.embedder, work.state)


@pytest.mark.parametrize(
    ("options", "where"),
    [({}, "v.body"), ({"query": "SELECT rowid, body FROM v"}, "the query")],
)
def test_texts_that_are_not_utf_8_are_found_wherever_they_are(
    tmp_path: Path, work: Work, options: dict[str, str], where: str
) -> None:
    path = tmp_path / "vectors.db"
    change(
        path,
        "CREATE VIRTUAL TABLE v USING vec0(e float[3], +body text)",
        "INSERT INTO v(rowid, e, body) VALUES (1, vec_f32('[1,2,3]'), 'text')",
        "INSERT INTO v(rowid, e, body) VALUES (7, vec_f32('[1,2,3]'), CAST(x'c3' AS TEXT))",
    )

    with refused(tmp_path, StoreRowsError, rf"1 rows of {where} is not UTF-8 \(7\)"):
        list(work.open(path, **options).store.rows())


def test_a_model_that_is_not_pulled_or_not_known(cmem: Path, work: Work) -> None:
    with refused(cmem, SourceError, "mpnet is not on this machine"):
        work.target("mpnet")
    with refused(cmem, UnknownModelError, "minlm"):
        work.target("minlm")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for others' locks."""
    monkeypatch.setattr(sqlite, "PATIENCE_S", 0.2)


@pytest.mark.usefixtures("patience")
def test_a_locked_database(cmem: Path, work: Work) -> None:
    named, target = work.open(cmem), work.target()
    other = stores.connect(cmem / "memories.db")
    other.execute("BEGIN IMMEDIATE")

    with refused(cmem, StoreBusyError, "locked by another process"):
        plan(named, target, work.embedder, work.state)

    other.close()


@pytest.mark.usefixtures("patience")
def test_a_database_that_nobody_may_even_read(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    other = stores.connect(cmem / "memories.db")
    other.pragma("journal_mode", "delete")
    other.execute("BEGIN EXCLUSIVE")

    with refused(cmem, StoreBusyError, "locked by another process"):
        check(work.config, named, work.embedder)

    other.close()


def without_power(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line without root's power to write anywhere."""
    return subprocess.run(
        [*powerless(), sys.executable, "-m", "emberd.cli.main", *arguments],
        capture_output=True,
        env=clean_environ(home),
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_read_only_store_can_be_checked_and_not_moved(
    tmp_path: Path, originals: Callable[[int], Path], which: str
) -> None:
    home = tmp_path / "home"
    store = Path(shutil.copytree(originals(300), tmp_path / "cmem"))
    change(store / "memories.db", "PRAGMA journal_mode = delete")
    (store / "memories.db").chmod(0o444 if which == "file" else 0o644)
    store.chmod(0o555 if which == "folder" else 0o755)
    before = contents(store)

    checked = without_power(home, "migrate", "check", str(store), "--sample", "20")
    moved = without_power(home, "migrate", "run", str(store), "--to", "minilm-f32", "--yes")

    assert checked.returncode == 0, checked.stderr
    assert moved.returncode == 1
    assert (b"is read-only" if which == "file" else b"cannot be written") in moved.stderr
    assert contents(store) == before
    store.chmod(0o755)


@pytest.mark.slow
def test_a_read_only_store_that_is_there_already_is_left_alone(
    cmem: Path, home: Path, work: Work
) -> None:
    migrate_all(
        [work.open(cmem)],
        work.target(),
        work.embedder,
        work.state,
        options=RunOptions(keep_backup=False),
    )
    shutil.rmtree(cmem / "memories.db.emberd")
    change(cmem / "memories.db", "PRAGMA journal_mode = delete")
    cmem.chmod(0o555)
    before = contents(cmem)

    done = without_power(home, "migrate", "run", str(cmem), "--to", "minilm-f32", "--yes")

    cmem.chmod(0o755)
    assert (done.returncode, b"already" in done.stdout) == (0, True), done.stderr
    assert contents(cmem) == before


def test_settings_of_somebody_else_stay_theirs(cmem: Path, work: Work) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to somebody")
    os.chown(cmem / "config.json", 4321, 4321)

    migrate_all([work.open(cmem)], work.target(), work.embedder, work.state)

    there = (cmem / "config.json").stat()
    assert (there.st_uid, there.st_gid) == (4321, 4321)


DIES = """
import os, sys
from pathlib import Path
from tests.migrate import stores
database = stores.connect(Path(sys.argv[1]), journal=sys.argv[2])
database.pragma("cache_size", 5)  # so that it writes to the file before it commits
database.execute("BEGIN IMMEDIATE; UPDATE memories SET content = 'half done ' || id")
database.execute("DELETE FROM vec_memories WHERE rowid > 20")
os.kill(os.getpid(), 9)
"""


def die_writing(database: Path, journal: str) -> None:
    """Have a process killed in the middle of a transaction."""
    command = [sys.executable, "-c", DIES, str(database), journal]
    assert subprocess.run(command, check=False).returncode == -9
    if journal != "wal":
        assert Path(f"{database}-journal").stat().st_size > 512


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_what_a_killed_process_left_half_done_is_rolled_back(
    journal: str, cmem: Path, made: Made, work: Work
) -> None:
    named, database = work.open(cmem), cmem / "memories.db"
    for look in (
        named.store.inspect,
        lambda: status(named, work.state),
        lambda: check(work.config, named, work.embedder, sample=20),
        lambda: plan(named, work.target(), work.embedder, work.state),
        named.store.stamp,
    ):
        change(database, f"PRAGMA journal_mode = {journal}")
        die_writing(database, journal)

        look()

        assert np.array_equal(stores.read(database)[1], made.old[:ROWS])


@pytest.mark.parametrize("which", ["file", pytest.param("folder", marks=pytest.mark.slow)])
def test_what_cannot_be_rolled_back_is_told_as_that(
    tmp_path: Path, originals: Callable[[int], Path], which: str
) -> None:
    store = Path(shutil.copytree(originals(300), tmp_path / "cmem"))
    change(store / "memories.db", "PRAGMA journal_mode = delete")
    die_writing(store / "memories.db", "delete")
    (store / "memories.db").chmod(0o444 if which == "file" else 0o644)
    store.chmod(0o555 if which == "folder" else 0o755)
    before = contents(store)

    checked = without_power(tmp_path / "home", "migrate", "check", str(store), "--kind", "cmem")

    assert checked.returncode == 1
    assert b"A process that died left" in checked.stderr
    assert b"cannot be rolled back" in checked.stderr
    if which == "file":  # in a folder SQLite may take it back, and cannot say that it did
        assert contents(store) == before
    store.chmod(0o755)


def test_settings_that_are_no_json_object(cmem: Path, work: Work) -> None:
    (cmem / "config.json").write_text("[1, 2")

    with refused(cmem, NotAStoreError, "not the JSON object that cmem writes"):
        plan(work.open(cmem), work.target(), work.embedder, work.state)


def test_a_damaged_database(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    target = work.target()
    change(cmem / "memories.db", "PRAGMA wal_checkpoint(TRUNCATE)")
    with (cmem / "memories.db").open("r+b") as file:
        file.seek(4096 * 20)
        file.write(bytes(range(256)) * 16 * 60)

    with pytest.raises(StoreError, match="damaged"):
        plan(named, target, work.embedder, work.state)


def test_an_unknown_kind_is_met_with_those_there_are(cmem: Path, work: Work) -> None:
    from emberd.migrate.known import find

    with refused(cmem, StoreKindError, "the kinds are cmem, llm, sqlite-vec"):
        find(work.config, str(cmem), kind="pinecone")
