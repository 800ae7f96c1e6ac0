"""vec0 tables of all shapes keep everything but their vectors."""

from pathlib import Path

import pytest

from emberd.migrate.run import migrate_all
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
