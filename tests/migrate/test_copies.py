"""Vectors that a store's file holds a second time: named, and moved along when asked."""

import multiprocessing
import time
from collections.abc import Iterable
from pathlib import Path

import apsw
import numpy as np
import pytest

from emberd.cli.migrate_report import migrated_sentences, plan_sentences
from emberd.errors import NotAStoreError, StoreError, StoreRowsError
from emberd.migrate.check import check
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.plan import plan
from emberd.migrate.undo import undo
from emberd.vectors import Matrix
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import Made, Work

FORK = multiprocessing.get_context("fork")
ROWS = 60
OPTIONS = {"text": "langchain.text"}
ALSO = {**OPTIONS, "also": "langchain.text_embedding"}

# As langchain_community.vectorstores.SQLiteVec makes it (langchain-community 0.4), and fills it.
LANGCHAIN = """
CREATE TABLE IF NOT EXISTS langchain
(rowid INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, metadata BLOB, text_embedding BLOB);
CREATE VIRTUAL TABLE IF NOT EXISTS langchain_vec USING vec0(
    rowid INTEGER PRIMARY KEY,
    text_embedding float[{size}]
);
CREATE TRIGGER IF NOT EXISTS langchain_embed_text AFTER INSERT ON langchain
BEGIN
    INSERT INTO langchain_vec(rowid, text_embedding) VALUES (new.rowid, new.text_embedding);
END;
"""
STAMPED = "SELECT count(*) FROM sqlite_schema WHERE name = 'emberd_spaces'"
INSERT = "INSERT INTO langchain(text, metadata, text_embedding) VALUES (?, ?, ?)"


def add(database: apsw.Connection, texts: Iterable[str], vectors: Matrix) -> None:
    rows = ((text, "{}", vector.tobytes()) for text, vector in zip(texts, vectors, strict=True))
    database.executemany(INSERT, rows)


@pytest.fixture
def langchain(tmp_path: Path, made: Made) -> Path:
    path = tmp_path / "vec.db"
    database = stores.connect(path)
    database.execute(LANGCHAIN.format(size=384))
    add(database, made.texts[:ROWS], made.old[:ROWS])
    database.execute(
        "DELETE FROM langchain WHERE rowid = 7; DELETE FROM langchain_vec WHERE rowid = 7"
    )
    database.close()
    return path


KEPT = [at for at in range(ROWS) if at != 6]


@pytest.mark.slow
@pytest.mark.parametrize("options", [ALSO, {}])
def test_both_copies_move_in_one_transaction(
    options: dict[str, str], langchain: Path, made: Made, work: Work
) -> None:
    named, target = work.open(langchain, **options), work.target()
    rest = "SELECT rowid, text, metadata FROM langchain"
    before = stores.ask(langchain, rest)

    found = plan(named, target, work.embedder, work.state)
    moved = migrate_all([named], target, work.embedder, work.state)[named.name]

    copied = dict(stores.ask(langchain, "SELECT rowid, text_embedding FROM langchain"))
    assert copied == dict(stores.ask(langchain, "SELECT rowid, text_embedding FROM langchain_vec"))
    assert list(copied) == [at + 1 for at in KEPT]
    vectors = np.stack([np.frombuffer(raw, "<f4") for raw in copied.values()])
    assert cosines(vectors, made.new[KEPT]).min() > 0.9999
    assert stores.ask(langchain, rest) == before
    (copy,) = found.copies
    assert (copy.column, copy.rows, copy.same, copy.key) == (ALSO["also"], 59, 59, "rowid")
    assert copy.moves
    assert "59 were migrated too" in migrated_sentences(named, moved, "minilm-f32", "minilm-f32")
    database = stores.connect(langchain)  # LangChain goes on: its trigger is there and works
    add(database, made.texts[100:101], made.new[100:101])
    database.close()
    assert stores.ask(langchain, "SELECT max(rowid) FROM langchain_vec") == [(ROWS + 1,)]

    undo(named, work.state, confirm=lambda _note, _changed: None)
    (after,) = stores.ask(langchain, "SELECT text_embedding FROM langchain WHERE rowid = 3")
    assert after[0] == made.old[2].tobytes()


def keep_adding(path: Path, most: Made, stop: Path) -> None:
    """Add rows as LangChain does, in the space that the store names, until told to stop."""
    database = stores.connect(path)
    for at in range(ROWS, len(most.new)):
        if stop.exists():
            return
        database.execute("BEGIN IMMEDIATE")
        is_new = database.execute(STAMPED).get  # what a connection remembers may be older
        add(database, most.texts[at : at + 1], (most.new if is_new else most.old)[at : at + 1])
        database.execute("COMMIT")
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["wal", "delete", "truncate"])
def test_both_copies_are_the_same_whoever_writes_meanwhile(
    journal: str, langchain: Path, most: Made, work: Work, tmp_path: Path
) -> None:
    database = stores.connect(langchain, journal=journal)
    stop = tmp_path / "stop"
    writer = FORK.Process(target=keep_adding, args=(langchain, most, stop))
    writer.start()

    migrate_all([work.open(langchain, **ALSO)], work.target(), work.embedder, work.state)

    stop.touch()
    writer.join()
    assert writer.exitcode == 0
    query = "SELECT l.rowid, v.text_embedding FROM langchain l JOIN langchain_vec v USING (rowid)"
    found = list(database.execute(f"{query} WHERE l.text_embedding = v.text_embedding"))
    assert len(found) > ROWS
    for table in ("langchain", "langchain_vec"):
        assert database.execute(f"SELECT count(*) FROM {table}").get == len(found)  # noqa: S608
    vectors = np.stack([np.frombuffer(raw, "<f4") for _, raw in found])
    places = [rowid - 1 for rowid, _ in found]
    assert cosines(vectors, most.new[places]).min() > 0.9999
    database.close()


@pytest.mark.slow
def test_a_copy_that_does_not_move_is_named_before_and_after(
    langchain: Path, made: Made, work: Work
) -> None:
    named, target = work.open(langchain, **OPTIONS), work.target()

    report = check(work.config, named, work.embedder)
    found = plan(named, target, work.embedder, work.state)
    moved = migrate_all([named], target, work.embedder, work.state)[named.name]

    (reported,) = report.to_dict()["copies"]
    assert (reported["column"], reported["same"]) == ("langchain.text_embedding", 59)
    assert "`-o also=langchain.text_embedding` migrates them too" in plan_sentences(named, found)
    said = migrated_sentences(named, moved, "minilm-f32", "minilm-f32")
    assert "Warning: langchain.text_embedding still holds 59 of the old vectors." in said
    kept = stores.ask(langchain, "SELECT text_embedding FROM langchain")
    assert [raw for (raw,) in kept] == [made.old[at].tobytes() for at in KEPT]
    with pytest.raises(StoreRowsError, match=r"none of the 59 BLOBs in langchain\.text_embedding"):
        plan(work.open(langchain, **ALSO), work.target("minilm"), work.embedder, work.state)


def test_only_rows_that_hold_the_very_vector_of_their_key_move(
    langchain: Path, made: Made, work: Work
) -> None:
    """One of another text, one without a vector, one of zeros: named, and left as they are."""
    database = stores.connect(langchain)
    other = made.old[ROWS].tobytes()
    database.execute("UPDATE langchain SET text_embedding = ? WHERE rowid = 3", (other,))
    database.execute("UPDATE langchain SET text_embedding = zeroblob(1536) WHERE rowid = 4")
    database.execute("UPDATE langchain SET text_embedding = x'00' WHERE rowid = 5")
    database.execute("DELETE FROM langchain_vec WHERE rowid = 9")
    database.close()
    named, target = work.open(langchain, **ALSO), work.target()

    (copy,) = plan(named, target, work.embedder, work.state).copies
    migrate_all([named], target, work.embedder, work.state)

    assert (copy.rows, copy.same, list(copy.others)) == (58, 55, [3, 4, 9])
    left = dict(stores.ask(langchain, "SELECT rowid, text_embedding FROM langchain"))
    assert (left[3], left[4], left[5]) == (other, bytes(1536), b"\0")
    assert left[9] == made.old[8].tobytes()
    new = dict(stores.ask(langchain, "SELECT rowid, text_embedding FROM langchain_vec"))
    same = [key for key, raw in new.items() if left[key] == raw]
    assert same == [key for key in new if key not in (3, 4, 5)]


def test_triggers_of_the_users_do_not_fire(langchain: Path, made: Made, work: Work) -> None:
    database = stores.connect(langchain)
    database.execute(
        "CREATE TABLE edits(at); CREATE TRIGGER follow AFTER UPDATE ON langchain BEGIN"
        " INSERT INTO edits VALUES (new.rowid);"
        " UPDATE langchain_vec SET text_embedding = zeroblob(1536) WHERE rowid = new.rowid; END"
    )
    database.close()
    named = work.open(langchain, **ALSO)

    migrate_all([named], work.target(), work.embedder, work.state)

    assert not stores.ask(langchain, "SELECT * FROM edits")
    vectors = stores.ask(langchain, "SELECT text_embedding FROM langchain_vec")
    found = np.stack([np.frombuffer(raw, "<f4") for (raw,) in vectors])
    assert cosines(found, made.new[KEPT]).min() > 0.9999


def test_a_key_of_text_and_another_size_move_along(tmp_path: Path, made: Made, work: Work) -> None:
    """The key stands in a column of any name; texts that are no UTF-8 elsewhere do not matter."""
    path = tmp_path / "wide.db"
    wide = np.concatenate([made.old[:30], made.old[:30]], axis=1)
    database = stores.connect(path)
    database.execute(
        "CREATE VIRTUAL TABLE v USING vec0(id text primary key, e float[768], +body text);"
        'CREATE TABLE cache(n INTEGER, junk TEXT, "the key" TEXT, raw BLOB, other BLOB);'
        "CREATE TABLE fixed(id TEXT PRIMARY KEY, raw BLOB) WITHOUT ROWID"
    )
    for at in range(30):
        key, raw = f"k{at}'\"é", wide[at].tobytes()
        database.execute("INSERT INTO v VALUES (?, ?, ?)", (key, raw, made.texts[at]))
        row = (at, key, raw, bytes(3072))
        database.execute("INSERT INTO cache VALUES (?, CAST(x'ff' AS TEXT), ?, ?, ?)", row)
        database.execute("INSERT INTO fixed VALUES (?, ?)", (key, raw))
    database.close()
    named, target = work.open(path, also="cache.raw"), work.target()

    found = plan(named, target, work.embedder, work.state).copies
    migrate_all([named], target, work.embedder, work.state)

    assert [(each.column, each.same, each.key, each.moves) for each in found] == [
        ("cache.raw", 30, "the key", True),
        ("cache.other", 0, None, False),
        ("fixed.raw", 30, "id", False),
    ]
    query = 'SELECT raw = e FROM cache JOIN v ON v.id = "the key"'
    assert stores.ask(path, query) == [(1,)] * 30
    with pytest.raises(
        NotAStoreError, match=r"also=fixed\.raw is not a column of a table with rowids"
    ):
        work.open(path, also="fixed.raw").store.copies()


def test_a_constraint_on_the_copy_changes_nothing(tmp_path: Path, made: Made, work: Work) -> None:
    path = tmp_path / "wide.db"
    wide = np.concatenate([made.old[:9], made.old[:9]], axis=1)
    database = stores.connect(path)
    database.execute(
        "CREATE VIRTUAL TABLE v USING vec0(e float[768], +body text);"
        "CREATE TABLE cache(id INTEGER PRIMARY KEY, raw BLOB CHECK (length(raw) = 3072))"
    )
    for at in range(9):
        row = (at + 1, wide[at].tobytes())
        database.execute("INSERT INTO v(rowid, e, body) VALUES (?, ?, ?)", (*row, made.texts[at]))
        database.execute("INSERT INTO cache VALUES (?, ?)", row)
    database.close()
    named = work.open(path, also="cache.raw")
    before = named.store.digest()

    with pytest.raises(StoreError, match="CHECK constraint failed"):
        migrate_all([named], work.target(), work.embedder, work.state)

    assert named.store.digest() == before
