"""Vectors in a column of any SQLite table: found or named, moved, and nothing else is."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytest

from emberd.config.load import load_config
from emberd.errors import NotAStoreError, StoreBusyError, StoreError, StoreKindError, StoreRowsError
from emberd.migrate.embedding import Embedded, Options, Target
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.known import find
from emberd.migrate.plan import plan
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.textless import complete
from emberd.migrate.undo import undo
from emberd.stores import plugins
from emberd.stores.passes import search_all
from emberd.stores.sqlite import blob
from emberd.stores.sqlite.blob import BlobStore
from emberd.stores.sqlite.blob_replace import BlobReplacement
from tests.migrate import stores
from tests.migrate.drawn import NEW, TEXTS, DrawingEmbedder, vectors
from tests.migrate.recipes import CONFIG, blocks, environ_of, shell
from tests.serving import Server, clean_environ, wait_for

OLD = vectors(TEXTS, "old")
AFTER = vectors(TEXTS, "new")


def make(path: Path, *statements: str) -> Path:
    """Make a database."""
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return path


def insert(path: Path, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    with sqlite3.connect(path) as database:
        database.executemany(sql, rows)
    database.close()


def ask(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a database that must be whole."""
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = database.execute(sql).fetchall()
    database.close()
    return found


def opened(path: Path, **options: str) -> StoreRef:
    """Return the store at a path, of the kind `blob` or, without options, recognised."""
    config = load_config(environ=clean_environ(path.parent))
    return find(config, str(path), kind="blob" if options else None, options=options)


def moved(ref: StoreRef, target: Target = NEW, **options: bool) -> None:
    """Migrate a store to the model `new`."""
    folder = Path(str(ref.store.path)).parent / "state"
    migrate_all([ref], target, DrawingEmbedder(), folder, options=RunOptions(**options))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A table that is recognised by itself."""
    path = make(
        tmp_path / "notes.db",
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT, embedding BLOB, seen REAL)",
        "CREATE INDEX seen ON notes(seen)",
    )
    rows = [(3 * at, text, OLD[at].tobytes(), at / 7) for at, text in enumerate(TEXTS)]
    insert(path, "INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
    return path


def test_a_table_of_texts_and_vectors_is_recognised_moved_and_undone(notes: Path) -> None:
    ref = opened(notes)
    rest = "SELECT id, body, seen FROM notes"
    before, schema = ask(notes, rest), ask(notes, "SELECT sql FROM sqlite_schema")
    assert (ref.store.kind, ref.store.inspect().rows) == ("blob", len(TEXTS))

    moved(ref)

    found = ask(notes, "SELECT embedding FROM notes ORDER BY id")
    assert [raw for (raw,) in found] == [row.tobytes() for row in AFTER]
    assert ask(notes, rest) == before
    assert (
        ask(notes, "SELECT sql FROM sqlite_schema WHERE name NOT LIKE '%emberd_spaces%'") == schema
    )
    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"
    assert next(iter(ref.store.search(AFTER[4].tobytes(), 3))) == 12

    undo(ref, notes.parent / "state", confirm=lambda _note, _changed: None)

    found = ask(notes, "SELECT embedding FROM notes ORDER BY id")
    assert [raw for (raw,) in found] == [row.tobytes() for row in OLD]
    assert ask(notes, "SELECT sql FROM sqlite_schema") == schema
    assert ref.store.stamp() is None


def test_a_search_is_exact_over_all_blocks(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob, "SEARCHED", 3)
    insert(notes, "UPDATE notes SET embedding = ? WHERE id = 0", [(bytes(32),)])  # no direction
    unit = OLD / np.linalg.norm(OLD, axis=1, keepdims=True)
    cosines = unit @ unit[17]
    cosines[0] = 0

    store = opened(notes, vector="embedding").store
    found = store.search(OLD[17].tobytes(), 6)

    assert list(found) == [3 * int(at) for at in np.argsort(-cosines)[:6]]
    several = [OLD[at].tobytes() for at in (2, 17, 5)]
    assert search_all(store, several, 6) == [list(store.search(each, 6)) for each in several]


def test_a_kind_that_knows_better_is_asked_first() -> None:
    assert plugins.kinds()[-1] == "blob"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("v BLOB", [row.astype("<f8").tobytes() for row in OLD]),
        ("v BLOB", [row.astype("<f2").tobytes() * 2 for row in OLD]),
        ("v BLOB", [hashlib.sha256(text.encode()).digest() for text in TEXTS]),
        ("v BLOB", [(40 * row).astype("|i1").tobytes() * 4 for row in OLD]),
        ("v BLOB", [row[:4].tobytes() for row in OLD]),
        ("v TEXT", [json.dumps(row.tolist()) for row in OLD]),
    ],
    ids=["float64", "float16", "hashes", "int8", "short", "JSON"],
)
def test_what_may_be_something_else_is_not_recognised(
    tmp_path: Path, column: str, values: list[object]
) -> None:
    path = make(tmp_path / "odd.db", f"CREATE TABLE odd(body TEXT, {column})")
    insert(path, "INSERT INTO odd VALUES ('text', ?)", [(value,) for value in values])

    assert not BlobStore.recognises(path)
    with pytest.raises(NotAStoreError, match="not a store that emberd recognizes"):
        opened(path)


def test_vectors_of_two_sizes_two_tables_or_two_texts_are_not_recognised(tmp_path: Path) -> None:
    table = "CREATE TABLE {}(id INTEGER PRIMARY KEY, body TEXT, {} embedding BLOB)"
    row = [(1, "a", OLD[0].tobytes())]
    two_sizes = make(tmp_path / "sizes.db", table.format("one", ""))
    insert(two_sizes, "INSERT INTO one VALUES (?, ?, ?)", [*row, (2, "b", OLD[1].tobytes() * 2)])
    two_tables = make(tmp_path / "tables.db", table.format("one", ""), "CREATE TABLE two(x)")
    insert(two_tables, "INSERT INTO one VALUES (?, ?, ?)", row)
    two_texts = make(tmp_path / "texts.db", table.format("one", "title TEXT,"))
    insert(two_texts, "INSERT INTO one VALUES (?, ?, 't', ?)", row)
    empty = make(tmp_path / "empty.db", table.format("one", ""))

    for path in (two_sizes, two_tables, two_texts, empty, tmp_path, tmp_path / "none.db"):
        assert not BlobStore.recognises(path), path


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"vector": "nothing"}, "0 tables have a column nothing", "vector=TABLE.COLUMN"),
        ({"table": "nothing"}, "has no table nothing, only: copies, notes", "vector=TABLE.COLUMN"),
        (
            {"table": "notes"},
            r"2 columns are certainly .* \(notes.embedding, notes.other\)",
            "Name",
        ),
        ({"vector": "embedding"}, "2 tables have a column embedding", "vector=TABLE.COLUMN"),
        ({"vector": "notes.title"}, "notes.title holds does not look like", "format=f32"),
        ({"vector": "notes.embedding"}, r"3 columns of notes .* \(title, body, kept\)", "text="),
        (
            {"vector": "notes.embedding", "text": "nothing"},
            "notes has no column nothing",
            "Its columns: title, body, kept, other, key",
        ),
        ({"vector": "notes.embedding", "text": "a.b"}, "has no column a.b", "TABLE.COLUMN"),
        (
            {"vector": "notes.embedding", "text": "body", "id": "title"},
            "notes.title cannot be used as a key",
            "id=rowid",
        ),
        (
            {"vector": "notes.embedding", "text": "body", "id": "no"},
            "notes has no column no",
            "id=COLUMN",
        ),
        ({"vector": "notes.embedding", "text": "body", "also": "x.y"}, "also=x.y", "TABLE.COLUMN"),
    ],
)
def test_what_the_options_leave_open_is_named(
    tmp_path: Path, options: dict[str, str], said: str, hint: str
) -> None:
    path = make(
        tmp_path / "two.db",
        "CREATE TABLE notes(key TEXT PRIMARY KEY, title TEXT, body TEXT, kept TEXT,"
        " embedding BLOB, other BLOB)",
        "CREATE TABLE copies(embedding BLOB)",
    )
    raw = OLD[0].tobytes()
    insert(path, "INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?)", [("k", "t", "b", "c", raw, raw)])

    with pytest.raises(NotAStoreError, match=said) as refused:
        plan(opened(path, **options), NEW, DrawingEmbedder(), tmp_path / "state")

    assert hint in (refused.value.hint or "")


def test_an_unknown_format_and_an_unknown_option_are_named(notes: Path) -> None:
    with pytest.raises(StoreKindError, match="no format 'f64'") as refused:
        opened(notes, format="f64")
    assert refused.value.hint == "The formats are f32, f16, json."
    with pytest.raises(StoreKindError, match="no option 'colum'"):
        opened(notes, colum="x")


class Half(DrawingEmbedder):
    """It answers with float16, as the pool does when asked for it."""

    def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
        """Round what was drawn."""
        answer: Future[Embedded] = Future()
        drawn = super().submit(texts, **options).result()
        answer.set_result(Embedded(drawn.vectors.astype("<f2"), drawn.fingerprint))
        return answer


def test_float16_stays_float16(tmp_path: Path) -> None:
    path = make(tmp_path / "half.db", "CREATE TABLE n(id TEXT PRIMARY KEY, body TEXT, v BLOB)")
    rows = [(f"é{at:02}", TEXTS[at], OLD[at].astype("<f2").tobytes()) for at in range(len(TEXTS))]
    insert(path, "INSERT INTO n VALUES (?, ?, ?)", rows)
    ref = opened(path, vector="v", format="f16")
    target = Target(model="new", dimensions=8, fingerprint="of new", probes="", dtype="float16")
    assert ref.wanted == ref.store.inspect().dtype == "float16"

    done = migrate_all([ref], target, Half(), tmp_path / "state")[ref.name]

    assert done.lowest_cosine is not None and done.lowest_cosine > 0.9999
    found = ask(path, "SELECT id, v FROM n ORDER BY id")
    assert found == [(key, AFTER[at].astype("<f2").tobytes()) for at, (key, *_) in enumerate(rows)]
    assert ref.store.search(found[5][1], 1) == ["é05"]
    other = StoreRef(name=ref.name, store=ref.store, dtype="int8")
    with pytest.raises(StoreKindError, match="no vectors of the type int8"):
        _ = other.wanted


def test_json_stays_json_and_keeps_every_bit(tmp_path: Path) -> None:
    path = make(tmp_path / "json.db", "CREATE TABLE n(body TEXT, v TEXT)")
    rows = [(TEXTS[at], json.dumps(OLD[at].tolist())) for at in range(len(TEXTS))]
    insert(path, "INSERT INTO n VALUES (?, ?)", rows)
    ref = opened(path, vector="n.v", text="body")
    assert [row.vector for row in ref.store.rows()] == [row.tobytes() for row in OLD]

    moved(ref)

    found = [json.loads(text) for (text,) in ask(path, "SELECT v FROM n")]
    assert np.array_equal(np.array(found, "<f4"), AFTER)
    insert(path, "UPDATE n SET v = ? WHERE rowid = 4", [("[1, 2",)])
    with pytest.raises(StoreRowsError, match="row 4 has 0 dimensions"):
        plan(ref, NEW, DrawingEmbedder(), tmp_path / "state")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("docs.body", None),
        (None, "SELECT d.doc, h.title || d.body FROM docs d JOIN heads h USING (h);"),
    ],
)
def test_texts_are_in_another_table_or_come_from_a_query(
    tmp_path: Path, text: str | None, query: str | None
) -> None:
    path = make(
        tmp_path / "docs.db",
        "CREATE TABLE heads(h, title)",
        "CREATE TABLE docs(doc INTEGER PRIMARY KEY, body TEXT, h)",
        "CREATE TABLE vecs(of INTEGER UNIQUE, v BLOB) ",
    )
    insert(path, "INSERT INTO heads VALUES (1, ?)", [("",)])
    insert(path, "INSERT INTO docs VALUES (?, ?, 1)", [*enumerate(TEXTS[:5], 1), (9, "alone")])
    insert(path, "INSERT INTO vecs VALUES (?, ?)", [(at + 1, OLD[at].tobytes()) for at in range(5)])
    insert(path, "INSERT INTO vecs VALUES (?, ?)", [(77, OLD[6].tobytes())])
    given = {"text": text} if text else {"query": str(query)}
    ref = opened(path, table="vecs", id="of", **given)
    assert ref.store.inspect().without_vector == ref.store.inspect().without_text == 1
    with pytest.raises(StoreRowsError, match=r"1 vectors have no text.*\(77\)"):
        plan(ref, NEW, DrawingEmbedder(), tmp_path / "state")

    moved(ref, set_aside=True)

    found = ask(path, "SELECT * FROM vecs ORDER BY of")
    assert found == [(at + 1, AFTER[at].tobytes()) for at in range(5)]
    insert(path, "INSERT INTO docs VALUES (77, ?, 1)", [(TEXTS[6],)])
    assert complete(ref, NEW, DrawingEmbedder(), tmp_path / "state") == 1  # its text has come
    assert ask(path, "SELECT v FROM vecs WHERE of = 77") == [(AFTER[6].tobytes(),)]
    assert not ask(path, "SELECT * FROM sqlite_schema WHERE name = 'emberd_set_aside'")


def test_a_row_without_a_text_is_set_aside_and_one_that_comes_instead_is_completed(
    notes: Path,
) -> None:
    insert(notes, "UPDATE notes SET body = ? WHERE id = 6", [("",)])
    ref = opened(notes, vector="embedding")

    moved(ref, set_aside=True)

    assert not ask(notes, "SELECT * FROM notes WHERE id = 6")
    aside = ask(notes, 'SELECT "column", value FROM emberd_set_aside WHERE key = 6')
    assert dict(aside) == {"embedding": OLD[2].tobytes(), "body": "", "seen": 2 / 7}
    insert(notes, "INSERT INTO notes(id, body) VALUES (6, ?)", [(TEXTS[2],)])
    assert complete(ref, NEW, DrawingEmbedder(), notes.parent / "state") == 1
    assert ask(notes, "SELECT body, embedding, seen FROM notes WHERE id = 6") == [
        (TEXTS[2], AFTER[2].tobytes(), None)
    ]


def test_rows_without_a_vector_stay_as_they_are_and_copies_move_when_asked(notes: Path) -> None:
    make(notes, "ALTER TABLE notes ADD COLUMN copy BLOB", "UPDATE notes SET copy = embedding")
    insert(notes, "UPDATE notes SET embedding = ? WHERE id = ?", [(None, 0), (b"", 3)])
    ref = opened(notes, vector="embedding", also="notes.copy")
    assert list(ref.store.lacking().vector) == [0, 3]

    moved(ref)

    found = ask(notes, "SELECT embedding, copy FROM notes ORDER BY id")
    assert found[:2] == [(None, OLD[0].tobytes()), (b"", OLD[1].tobytes())]
    assert found[2:] == [(row.tobytes(), row.tobytes()) for row in AFTER[2:]]


def test_a_table_without_rowids_and_triggers_are_left_alone(tmp_path: Path) -> None:
    path = make(
        tmp_path / "w.db",
        "CREATE TABLE n(id TEXT PRIMARY KEY, body TEXT, v BLOB, size INT AS (length(v)))"
        " WITHOUT ROWID",
        "CREATE TABLE edits(id)",
        "CREATE TRIGGER edited AFTER UPDATE ON n BEGIN INSERT INTO edits VALUES (new.id); END",
    )
    rows = [(f"{10 - at}", TEXTS[at], OLD[at].tobytes()) for at in range(10)]
    insert(path, "INSERT INTO n(id, body, v) VALUES (?, ?, ?)", rows)
    wide = Target(model="wide", dimensions=8, fingerprint="of wide", probes="")

    ref = opened(path, vector="v")
    assert [row.key for row in ref.store.rows()][:3] == ["1", "10", "2"]
    moved(ref, wide)

    found = dict(ask(path, "SELECT id, v FROM n"))
    assert found == {
        key: row.tobytes() for (key, *_), row in zip(rows, vectors(TEXTS, "wide"), strict=False)
    }
    assert not ask(path, "SELECT * FROM edits")


def test_another_column_waits_until_the_first_one_is_trusted(notes: Path) -> None:
    make(notes, "ALTER TABLE notes ADD COLUMN other BLOB", "UPDATE notes SET other = embedding")
    moved(opened(notes, vector="embedding"))

    with pytest.raises(StoreError, match=r"belongs to notes\.embedding, another") as refused:
        moved(opened(notes, vector="other"))

    assert "--option vector=notes.embedding" in (refused.value.hint or "")


def test_a_swap_that_would_change_more_than_vectors_is_not_committed(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(notes, "CREATE TABLE kept(x)", "INSERT INTO kept VALUES (1)")
    before = ask(notes, "SELECT * FROM notes")
    ref, fill = opened(notes, vector="embedding"), BlobReplacement.fill
    for change, changed in (
        ("UPDATE notes SET seen = 0.25 WHERE id = 3", "notes"),
        ("UPDATE notes SET id = 100 WHERE id = 3", "notes"),
        ("DELETE FROM kept", "kept"),
        ("DROP INDEX seen", "the definition of seen"),
    ):

        def careless(self: Any, *args: Any, change: str = change, **kwargs: Any) -> None:  # noqa: ANN401
            fill(self, *args, **kwargs)
            self._connection.execute(change)

        monkeypatch.setattr(BlobReplacement, "fill", careless)
        with pytest.raises(StoreError, match=rf"would have changed: {changed}\."):
            moved(ref)
    assert ask(notes, "SELECT * FROM notes") == before
    assert status(ref, notes.parent / "state")["backups"] == []


def test_keys_that_several_rows_share_or_that_are_no_keys_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "k.db", "CREATE TABLE n(k, body TEXT, v BLOB)", "CREATE INDEX i ON n(k)")
    insert(path, "INSERT INTO n VALUES (?, ?, ?)", [(1, "a", OLD[0].tobytes())] * 2)
    with pytest.raises((NotAStoreError, StoreRowsError), match="several texts"):
        plan(opened(path, vector="v", id="k"), NEW, DrawingEmbedder(), tmp_path / "state")
    insert(path, "UPDATE n SET k = ? WHERE rowid = 2", [(b"uuid",)])
    with pytest.raises(NotAStoreError, match="1 vectors of n have a k that is neither"):
        opened(path, vector="v", id="k").store.inspect()

    moved(opened(path, vector="v"))  # by the rowid

    assert ask(path, "SELECT k, v FROM n") == [
        (1, vectors(["a"], "new")[0].tobytes()),
        (b"uuid", vectors(["a"], "new")[0].tobytes()),
    ]


def test_an_empty_column_is_stamped_and_knows_its_size(tmp_path: Path) -> None:
    path = make(tmp_path / "e.db", "CREATE TABLE n(id INTEGER PRIMARY KEY, body TEXT, v BLOB)")
    ref = opened(path, vector="n.v")
    assert (ref.store.inspect().rows, ref.store.inspect().dimensions) == (0, 0)

    moved(ref)

    assert ref.store.inspect().dimensions == 8
    stamp = ref.store.stamp()
    assert stamp is not None and stamp.model == "new"


def test_a_store_that_somebody_holds_is_named(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emberd.stores.sqlite.database.PATIENCE_S", 0.1)
    holder = stores.connect(notes)
    holder.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreBusyError, match="locked by another process"):
        moved(opened(notes, vector="embedding"))

    holder.close()
    moved(opened(notes, vector="embedding"))


def test_a_backup_without_the_column_is_refused(notes: Path) -> None:
    store = opened(notes, vector="embedding").store
    other = make(notes.parent / "other.db", "CREATE TABLE other(x)")

    with pytest.raises(StoreError, match="has no such vectors"):
        store.check_backup(other)


def test_a_read_only_file_is_checked(notes: Path) -> None:
    config = load_config(environ=clean_environ(notes.parent))
    notes.chmod(0o400)

    shape = find(config, str(notes)).store.inspect()

    assert shape.rows == len(TEXTS)


@pytest.mark.slow
def test_the_recipe_works_as_it_is_written(tmp_path: Path) -> None:
    alone, options = blocks("blob.md")
    look, run, back = alone.splitlines()
    home = tmp_path / "home"
    path = make(tmp_path / "notes.db", "CREATE TABLE n(id INTEGER PRIMARY KEY, body TEXT, v BLOB)")
    (tmp_path / "several").mkdir()
    several = make(
        tmp_path / "several" / "notes.db",
        "CREATE TABLE chunks(id INTEGER PRIMARY KEY, title TEXT, body TEXT, embedding BLOB)",
        "CREATE TABLE vectors(chunk_id INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, title TEXT, body TEXT, v BLOB)",
    )
    stores_ = f"stores: {{notes: {{kind: blob, path: {path}, options: {{vector: n.v}}}}}}\n"
    with Server(home, config=CONFIG + stores_) as server:

        def embedded(texts: Sequence[str]) -> list[bytes]:
            return [row.tobytes() for row in np.array(server.embed(*texts)["embeddings"], "<f4")]

        raw = embedded(TEXTS)
        insert(path, "INSERT INTO n(body, v) VALUES (?, ?)", list(zip(TEXTS, raw, strict=True)))
        rows = list(zip(TEXTS, raw, strict=True))
        insert(several, "INSERT INTO chunks(title, body, embedding) VALUES ('t', ?, ?)", rows)
        insert(several, "INSERT INTO vectors(v) VALUES (?)", [(each,) for each in raw])
        titled = zip(TEXTS, embedded([f"t: {text}" for text in TEXTS]), strict=True)
        insert(several, "INSERT INTO docs(title, body, v) VALUES ('t', ?, ?)", list(titled))
        environ = environ_of(home)

        assert "compatible" in shell(look, environ, tmp_path)
        said = shell(options, environ, several.parent)
        assert said.count("compatible") == 3
        shell(run, environ, tmp_path)

        wanted = np.array(server.embed(*TEXTS, model="bge-small")["embeddings"], "<f4")
        found = ask(path, "SELECT v FROM n ORDER BY id")
        assert np.allclose([np.frombuffer(each, "<f4") for (each,) in found], wanted, atol=1e-6)
        (warned,) = wait_for(lambda: server.http.get("/health").json()["warnings"])
        assert "notes holds vectors made by bge-small" in warned["message"]
        compared = server.run("compare", "bge-small", "minilm", "--store", "notes")
        assert compared.returncode == 0, compared.stderr
        shell(back, environ, tmp_path)
    assert [each for (each,) in ask(path, "SELECT v FROM n ORDER BY id")] == raw
