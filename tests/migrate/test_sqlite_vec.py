"""vec0 tables of all shapes keep everything but their vectors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.errors import MigrationError, NotAStoreError
from emberd.migrate.joint_run import migrate_all
from emberd.stores.sqlite.vec0_replace import Vec0Replacement
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.conftest import Made, Work

DDL = """CREATE VIRTUAL TABLE "my vectors" USING vec0(
  id TEXT PRIMARY KEY, user integer partition key,
  the_vector float[384] distance_metric=cosine,
  kind text, score float, +body TEXT, chunk_size=64
)"""


def test_keys_metadata_partitions_and_auxiliary_columns_stay(
    tmp_path: Path, made: Made, work: Work
) -> None:
    path = tmp_path / "notes.db"
    database = stores.connect(path)
    database.execute(DDL)
    rows = [
        (f"key {at:03}", at % 3, made.old[at].tobytes(), f"k{at % 2}", at / 2, made.texts[at])
        for at in range(90)
    ]
    database.executemany('INSERT INTO "my vectors" VALUES (?, ?, ?, ?, ?, ?)', rows)
    columns = 'id, user, kind, score, body FROM "my vectors" ORDER BY id'
    before = list(database.execute(f"SELECT {columns}"))
    database.close()
    named = work.open(path, text="my vectors.body", id="id")

    migrate_all([named], work.target(), work.embedder, work.state)

    database = stores.connect(path)
    assert list(database.execute(f"SELECT {columns}")) == before
    assert database.execute("SELECT sql FROM sqlite_master WHERE name = 'my vectors'").get == DDL
    nearest = database.execute(
        'SELECT id FROM "my vectors" WHERE the_vector MATCH ? AND k = 3 AND user = 1',
        (made.new[4].tobytes(),),
    )
    assert next(nearest)[0] == "key 004"
    database.close()


@pytest.mark.parametrize(
    "options",
    [
        {"text": "docs.body"},
        {"text": "docs.body", "id": "rowid", "table": "v"},
        {"query": "SELECT d.rowid, h.title || ': ' || d.body FROM docs d JOIN heads h USING (h);"},
    ],
)
def test_texts_come_from_a_column_or_a_query(
    tmp_path: Path, made: Made, work: Work, options: dict[str, str]
) -> None:
    path = tmp_path / "docs.db"
    database = stores.connect(path)
    database.execute(
        "CREATE TABLE heads(h, title); INSERT INTO heads VALUES (1, 'Head');"
        "CREATE TABLE docs(body TEXT, h);"
        "CREATE VIRTUAL TABLE v USING vec0(e float[384])"
    )
    for at in range(5):
        database.execute("INSERT INTO docs VALUES (?, 1)", (made.texts[at],))
        vector = made.old[at].tobytes()
        database.execute("INSERT INTO v(rowid, e) VALUES (?, ?)", (at + 1, vector))
    database.close()

    rows = list(work.open(path, **options).store.rows())

    assert [row.key for row in rows] == [1, 2, 3, 4, 5]
    assert rows[2].text is not None and rows[2].text.endswith(made.texts[2])
    assert rows[2].vector == made.old[2].tobytes()
    assert [row.key for row in work.open(path, **options).store.rows(after=3)] == [4, 5]


def test_a_text_column_of_its_own_is_taken(tmp_path: Path, made: Made, work: Work) -> None:
    path = tmp_path / "own.db"
    database = stores.connect(path)
    database.execute("CREATE VIRTUAL TABLE v USING vec0(e float[384], +body text, n integer)")
    row = (made.old[0].tobytes(), made.texts[0], 3)
    database.execute("INSERT INTO v(e, body, n) VALUES (?, ?, ?)", row)
    database.close()

    (found,) = work.open(path).store.rows()

    assert (found.key, found.text) == (1, made.texts[0])


def test_a_text_column_of_its_own_that_is_named_goes_by_the_tables_key(
    tmp_path: Path, work: Work
) -> None:
    path = tmp_path / "own.db"
    database = stores.connect(path)
    database.execute(
        "CREATE VIRTUAL TABLE v USING vec0(id TEXT PRIMARY KEY, e float[3], title text, +body text)"
    )
    database.execute("INSERT INTO v VALUES ('k', vec_f32('[1,2,3]'), 'title', 'body')")
    database.close()

    (found,) = work.open(path, text="v.body").store.rows()

    assert (found.key, found.text) == ("k", "body")


def write(path: Path, ddl: str, *statements: str) -> None:
    """Make a database of one vec0 table and more."""
    database = stores.connect(path)
    database.execute(ddl)
    for statement in statements:
        database.execute(statement)
    database.close()


def insert(path: Path, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
    database = stores.connect(path)
    with database:
        database.executemany(sql, rows)
    database.close()


@pytest.mark.parametrize("options", [{}, {"text": "v.body"}])
def test_a_primary_key_that_is_none_leaves_rowids_and_pks_as_they_are(
    tmp_path: Path, made: Made, work: Work, options: dict[str, str]
) -> None:
    """sqlite-vec takes `pk` for metadata here: the word after its type is not `primary`."""
    path = tmp_path / "v.db"
    write(
        path,
        "CREATE VIRTUAL TABLE v USING"
        " vec0(pk text not null primary key, embedding float[384], +body text)",
    )
    rows = [
        (rowid, pk, made.old[at].tobytes(), made.texts[at])
        for at, (rowid, pk) in enumerate([(7, "b"), (3, "a"), (11, "c"), (12, "c"), (-5, "é'\"")])
    ]
    insert(path, "INSERT INTO v(rowid, pk, embedding, body) VALUES (?, ?, ?, ?)", rows)
    query = "SELECT rowid, pk, body FROM v ORDER BY rowid"
    before = stores.ask(path, query)
    named = work.open(path, **options)

    migrate_all([named], work.target(), work.embedder, work.state)

    assert stores.ask(path, query) == before
    assert [row[:2] for row in before] == [(-5, "é'\""), (3, "a"), (7, "b"), (11, "c"), (12, "c")]
    vectors = dict(stores.ask(path, "SELECT rowid, embedding FROM v"))
    for at, (rowid, *_) in enumerate(rows):
        assert cosines(np.frombuffer(vectors[rowid], "<f4")[None], made.new[at : at + 1]) > 0.9999


def test_what_only_looks_like_a_key_a_partition_or_a_size_is_read_as_sqlite_vec_does(
    tmp_path: Path, made: Made, work: Work
) -> None:
    """Abbreviated words, round brackets, comments with commas, quoted names."""
    path = tmp_path / "odd.db"
    ddl = """CREATE VIRTUAL TABLE [my, v] USING "vec0"( -- keys (and more
      user i part key, text text, /* e float[8], */ e float(384) distance_metric=cos
      , done b default 1, weight double, +text2 t, +raw blob, c=8)"""
    write(path, ddl)
    rows = [
        (
            2**62 - at, at % 3, "x" * at, made.old[at].tobytes(), at % 2, at / 7 * 1e-300,
            made.texts[at], None if at % 2 else bytes([0, 255]),
        )
        for at in range(40)
    ]  # fmt: skip
    sql = 'INSERT INTO "my, v"(rowid, user, text, e, done, weight, text2, raw)'
    insert(path, f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    query = 'SELECT rowid, user, text, done, weight, text2, raw FROM "my, v" ORDER BY rowid'
    before = stores.ask(path, query)
    named = work.open(path, text="my, v.text2")

    migrate_all([named], work.target(), work.embedder, work.state)

    assert len(before) == 40
    assert stores.ask(path, query) == before
    (after,) = stores.ask(path, "SELECT sql FROM sqlite_master WHERE name = 'my, v'")
    assert after[0].endswith(ddl.partition("[my, v]")[2])


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("+body text, e float[8], a int8[8]", "a store has one"),
        ("e float[8], f float[8], +body text", "a store has one"),
        ("e bit[12], +b text", "fill no byte"),
    ],
)
def test_several_vectors_of_a_row_and_bits_that_fill_no_byte_are_refused(
    tmp_path: Path, work: Work, about: str, words: str
) -> None:
    path = tmp_path / "v.db"
    write(path, f"CREATE VIRTUAL TABLE v USING vec0({about})")

    with pytest.raises(NotAStoreError, match=words):
        work.open(path).store.inspect()


def test_a_definition_that_is_read_differently_than_the_table_is_refused(
    tmp_path: Path, work: Work
) -> None:
    """As one of another version of sqlite-vec may be."""
    path = tmp_path / "v.db"
    write(
        path,
        "CREATE VIRTUAL TABLE v USING vec0(pk text primary key, e float[8], +body text)",
        "PRAGMA writable_schema = on",
        "UPDATE sqlite_master SET sql = replace(sql, 'pk text', 'pk text not null')",
    )

    with pytest.raises(NotAStoreError, match="does not understand the definition of v"):
        work.open(path).store.inspect()


@pytest.mark.parametrize("vectors", ["v", "kept"])
@pytest.mark.parametrize("texts", ["t", "v_texts"])
def test_tables_and_columns_may_be_called_as_names_inside_are(
    tmp_path: Path, made: Made, work: Work, vectors: str, texts: str
) -> None:
    path = tmp_path / "names.db"
    write(
        path,
        f"CREATE TABLE {texts}(body TEXT);"
        f"CREATE VIRTUAL TABLE {vectors} USING vec0(e float[384], emberd_key text, key text)",
    )
    add = f"INSERT INTO {texts} VALUES (?)"  # noqa: S608
    insert(path, add, [(text,) for text in made.texts[:3]])
    add = f"INSERT INTO {vectors}(e, emberd_key, key) VALUES (?, ?, ?)"  # noqa: S608
    insert(path, add, [(made.old[at].tobytes(), f"a{at}", f"b{at}") for at in range(3)])

    named = work.open(path, text=f"{texts}.body")
    migrate_all([named], work.target(), work.embedder, work.state)

    query = f"SELECT rowid, emberd_key, key FROM {vectors} ORDER BY rowid"  # noqa: S608
    assert stores.ask(path, query) == [(at + 1, f"a{at}", f"b{at}") for at in range(3)]
    assert named.store.inspect().rows == 3


def test_rowids_of_deleted_rows_are_not_given_again(tmp_path: Path, made: Made, work: Work) -> None:
    path = tmp_path / "v.db"
    write(path, "CREATE VIRTUAL TABLE v USING vec0(e float[384], +body text)")
    rows = [(made.old[at].tobytes(), made.texts[at]) for at in range(10)]
    insert(path, "INSERT INTO v(e, body) VALUES (?, ?)", rows)
    insert(path, "DELETE FROM v WHERE rowid > ?", [(6,)])

    migrate_all([work.open(path)], work.target(), work.embedder, work.state)

    insert(path, "INSERT INTO v(e, body) VALUES (?, ?)", rows[:1])
    assert [rowid for (rowid,) in stores.ask(path, "SELECT rowid FROM v")] == [1, 2, 3, 4, 5, 6, 11]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE INDEX mine ON v_rowids(chunk_id)", "the definition of mine"),
        (
            "CREATE TRIGGER follow AFTER INSERT ON v_rowids BEGIN DELETE FROM notes; END",
            "the definition of follow",
        ),
    ],
)
def test_a_swap_that_would_change_more_than_vectors_is_not_committed(
    tmp_path: Path, made: Made, work: Work, statement: str, named: str
) -> None:
    """What hangs on sqlite-vec's own tables would go with them."""
    path = tmp_path / "v.db"
    write(
        path,
        "CREATE VIRTUAL TABLE v USING vec0(e float[384], +body text)",
        "CREATE TABLE notes(x); INSERT INTO notes VALUES (1.5), ('1.5'), (NULL), (x'00')",
        statement,
    )
    insert(
        path,
        "INSERT INTO v(rowid, e, body) VALUES (?, ?, ?)",
        [(at, made.old[at].tobytes(), made.texts[at]) for at in range(5)],
    )
    before = stores.ask(path, "SELECT * FROM v")

    with pytest.raises(
        MigrationError, match=f"More than the vectors of .* would have changed: {named}"
    ):
        migrate_all([work.open(path)], work.target(), work.embedder, work.state)

    assert stores.ask(path, "SELECT * FROM v") == before
    assert stores.ask(path, "SELECT name FROM sqlite_master WHERE name IN ('mine', 'follow')")
    assert not stores.ask(path, "SELECT name FROM sqlite_master WHERE name = 'emberd_spaces'")


def test_a_key_or_value_that_comes_out_otherwise_is_not_committed(
    tmp_path: Path, made: Made, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else goes wrong while the table is filled: a bit of a number is enough."""
    path = tmp_path / "v.db"
    write(
        path,
        "CREATE VIRTUAL TABLE v USING vec0(e float[384], weight float, +body text)",
        "CREATE TABLE notes(x)",
    )
    insert(
        path,
        "INSERT INTO v(e, weight, body) VALUES (?, ?, ?)",
        [(made.old[at].tobytes(), 0.1, made.texts[at]) for at in range(5)],
    )
    fill = Vec0Replacement.fill

    for change, changed in (
        ("UPDATE v SET weight = 0.10000000000000002 WHERE rowid = 3", "v"),
        ("UPDATE v SET body = body || ' ' WHERE rowid = 3", "v"),
        ("INSERT INTO notes VALUES (NULL)", "notes"),
    ):

        def careless(self: Any, *args: Any, change: str = change, **kwargs: Any) -> None:  # noqa: ANN401
            fill(self, *args, **kwargs)
            self._connection.execute(change)

        monkeypatch.setattr(Vec0Replacement, "fill", careless)
        with pytest.raises(MigrationError, match=rf"would have changed: {changed}\."):
            migrate_all([work.open(path)], work.target(), work.embedder, work.state)
        assert set(stores.ask(path, "SELECT weight FROM v")) == {(0.1,)}
