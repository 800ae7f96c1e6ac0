"""Tables of Postgres with pgvector: all but the vectors stays, and readers see all or none."""

import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from emberd.config.load import load_config
from emberd.errors import (
    MigrationError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreKindError,
    StoreRowsError,
)
from emberd.migrate.joint_run import joint_run, migrate_all
from emberd.migrate.known import find
from emberd.migrate.plan import plan
from emberd.migrate.recovery import recover
from emberd.migrate.stage import staging
from emberd.migrate.status import status
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.swap import swapping
from emberd.migrate.undo import undo
from emberd.migrate.workplace import Workplace
from emberd.stores.pgvector import lock as pgvector_lock
from emberd.stores.pgvector import replace as pgvector_replace
from emberd.stores.pgvector.postgres_table import carry_over
from tests.migrate.drawn import DIMENSIONS, NEW, ROWS, TEXTS, DrawingEmbedder, vectors
from tests.migrate.kinds.pgvector import is_stamped, read
from tests.migrate.postgres_server import PostgresServer, connect
from tests.serving import clean_environ

NOTES = f"""
CREATE TABLE notes (id bigserial PRIMARY KEY, embedding vector({DIMENSIONS}) NOT NULL, body text);
CREATE INDEX notes_near ON notes USING hnsw (embedding vector_cosine_ops)"""
ALL = "SELECT id, body, embedding FROM notes"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'emberd%' ORDER BY 1"
Open = Callable[..., StoreRef]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.create(f"db-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def database(url: str) -> "Iterator[psycopg.Connection[Any]]":
    """A connection of a program of the user."""
    with connect(url) as connection:
        yield connection


@pytest.fixture
def notes(database: "psycopg.Connection[Any]") -> None:
    """A table of 20 rows with vectors of the model `old`."""
    database.execute(NOTES.encode())
    add(database, TEXTS, "old")


@pytest.fixture
def opened(tmp_path: Path, url: str) -> Open:
    def open_it(place: str = url, *, kind: str = "pgvector", **options: str) -> StoreRef:
        config = load_config(environ=clean_environ(tmp_path))
        return find(config, place, kind=kind, options=options)

    return open_it


def add(connection: "psycopg.Connection[Any]", texts: list[str], model: str) -> None:
    for text, vector in zip(texts, vectors(texts, model), strict=True):
        connection.execute(
            "INSERT INTO notes (body, embedding) VALUES (%s, %s)", (text, str(vector.tolist()))
        )


def move(ref: StoreRef, state: Path, embedder: DrawingEmbedder | None = None) -> None:
    migrate_all([ref], NEW, embedder or DrawingEmbedder(), state)


def holds(connection: "psycopg.Connection[Any]", model: str, count: int = ROWS) -> bool:
    """Whether all rows have their text's vector of this model, as somebody else reads them."""
    rows = read(connection, ALL)
    texts = [text for text, _ in rows.values()]
    found = np.stack([vector for _, vector in rows.values()])
    return len(rows) == count and np.array_equal(found, vectors(texts, model))


def kept(connection: "psycopg.Connection[Any]") -> list[str]:
    return [name for (name,) in connection.execute(SCHEMAS)]


# -- what stays --------------------------------------------------------------------------------


def test_everything_but_the_vectors_stays(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path
) -> None:
    """Also their size changes: from 3 to 8."""
    database.execute(
        """
        CREATE ROLE someone; CREATE TABLE docs (id int PRIMARY KEY); INSERT INTO docs VALUES (1);
        CREATE TABLE "no%tes" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text,
            "em bedding" vector(3) NOT NULL, n serial, doc int REFERENCES docs DEFAULT 1,
            low text GENERATED ALWAYS AS (lower(body)) STORED, at int DEFAULT 7,
            UNIQUE (body), CHECK (n > 0)) WITH (fillfactor = 90);
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN new.at = new.at + 1; RETURN new; END $$;
        CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON "no%tes" FOR EACH ROW
            EXECUTE FUNCTION touch();
        ALTER TABLE "no%tes" ENABLE ROW LEVEL SECURITY;
        CREATE POLICY theirs ON "no%tes" FOR SELECT TO someone USING (body LIKE 'text%');
        GRANT SELECT ON "no%tes" TO someone; GRANT UPDATE (body) ON "no%tes" TO someone;
        COMMENT ON TABLE "no%tes" IS 'it''s 50%'; COMMENT ON COLUMN "no%tes".body IS 'what';
        CREATE INDEX near ON "no%tes" USING hnsw ("em bedding" vector_l2_ops) WITH (m = 8);
        CREATE INDEX ON "no%tes" (lower(body)) WHERE n > 3;
        INSERT INTO "no%tes" (body, "em bedding")
            SELECT 'text ' || g, ARRAY[g, 1, 2]::vector FROM generate_series(0, 19) g
        """
    )
    columns = 'SELECT id, body, n, doc, low, at FROM "no%tes" ORDER BY id'
    before = database.execute(columns).fetchall()
    ref = opened()

    move(ref, tmp_path)

    assert database.execute(columns).fetchall() == before
    assert ref.store.inspect().dimensions == DIMENSIONS
    found = read(database, 'SELECT id, body, "em bedding" FROM "no%tes" ORDER BY id')
    assert np.array_equal(np.stack([row[1] for row in found.values()]), vectors(TEXTS, "new"))
    added = database.execute(
        'INSERT INTO "no%%tes" (body, "em bedding") VALUES (\'x\', %s) RETURNING id, n, low, at',
        (str([1.0] * DIMENSIONS),),
    ).fetchone()
    assert added == (21, 21, "x", 8)  # numbers go on, the trigger is there
    (index,) = database.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'near'"
                                " AND schemaname = 'public'").fetchone() or ("",)  # fmt: skip
    assert index.endswith("USING hnsw (\"em bedding\" vector_l2_ops) WITH (m='8')")
    undo(ref, tmp_path, confirm=lambda _note, changed: None)
    assert database.execute(columns).fetchall() == before


@pytest.mark.parametrize("kind", ["bigint", "text", "uuid"])
def test_keys_of_every_type_are_read_in_the_order_of_all_stores(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, kind: str
) -> None:
    made: dict[str, list[Any]] = {
        "bigint": [-5, 2, 10, 2**40], "text": ["A", "a", "ä", "Ω", "\U0001f600"],
        "uuid": [str(uuid.UUID(int=at)) for at in (3, 2**70, 2**127)],
    }  # fmt: skip
    keys = made[kind]
    database.execute(
        f"CREATE TABLE notes (id {kind} PRIMARY KEY, body text, embedding vector(8))".encode()
    )
    for key in reversed(keys):
        database.execute("INSERT INTO notes VALUES (%s, %s, %s)", (key, f"of {key}", str([1] * 8)))
    database.execute("INSERT INTO notes VALUES (%s, 'bare', NULL)",
                     ({"bigint": 7, "text": "b", "uuid": uuid.UUID(int=9)}[kind],))  # fmt: skip
    ref = opened()

    assert [row.key for row in ref.store.rows()] == keys
    assert [row.key for row in ref.store.rows(after=keys[1])] == keys[2:]
    assert len(ref.store.lacking().vector) == 1
    move(ref, tmp_path)
    assert [row.key for row in ref.store.rows()] == keys
    assert ref.store.inspect().without_vector == 1


def test_the_time_that_indexes_take_is_told_apart(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None
) -> None:
    moved = migrate_all([opened()], NEW, DrawingEmbedder(), tmp_path).popitem()[1]

    assert 0 < moved.index_s < moved.locked_s
    assert holds(database, "new")


def test_an_undo_restores_the_old_table_and_keeps_what_was_written_since(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None
) -> None:
    ref = opened()
    move(ref, tmp_path)
    assert holds(database, "new")
    add(database, ["since"], "new")

    undo(ref, tmp_path, confirm=lambda _note, changed: None)

    assert holds(database, "old")
    assert not is_stamped(database)
    (undone,) = [name for name in kept(database) if "undone" in name]
    rows = read(database, ALL.replace("notes", f"{undone}.notes"))
    assert [text for text, _ in rows.values()] == [*TEXTS, "since"]
    assert kept(database) == ["emberd", undone]
    assert status(ref, tmp_path)["backups"] == []


def test_a_backup_that_was_changed_or_dropped_is_not_restored(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None
) -> None:
    ref = opened()
    move(ref, tmp_path)
    (schema,) = [name for name in kept(database) if "backup" in name]

    change = "UPDATE notes SET body = 'x' WHERE id = 1".replace("notes", f"{schema}.notes")
    database.execute(change.encode())
    with pytest.raises(StoreError, match="not what it was"):
        undo(ref, tmp_path, confirm=lambda _note, changed: None)
    database.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    with pytest.raises(StoreError, match="is gone"):
        undo(ref, tmp_path, confirm=lambda _note, changed: None)

    assert holds(database, "new")
    place = Workplace(ref.store, tmp_path)
    (backup,) = place.backups()
    place.forget(backup)  # what it names is gone already


# -- those who use it meanwhile ----------------------------------------------------------------


def test_a_reader_at_repeatable_read_keeps_its_view_and_the_swap_waits_for_its_end(
    database: "psycopg.Connection[Any]", url: str, opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pgvector_lock, "MOMENT_S", 0.1)
    reader = connect(url)
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert holds(reader, "old")
    run = threading.Thread(target=move, args=(opened(), tmp_path))
    run.start()
    waits = "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
    while not database.execute(waits).rowcount:
        assert run.is_alive()

    assert holds(reader, "old")
    assert holds(database, "old")  # and others read on
    reader.execute("COMMIT")
    run.join(60)

    assert holds(reader, "new")
    reader.close()


def test_a_reader_that_does_not_end_is_named_and_nothing_changes(
    database: "psycopg.Connection[Any]", url: str, opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pgvector_lock, "MOMENT_S", 0.1)
    monkeypatch.setattr(pgvector_lock, "MOMENTS", 3)
    reader = psycopg.connect(f"{url}?application_name=dump")
    reader.execute("SELECT count(*) FROM notes")

    with pytest.raises(StoreBusyError, match=r"notes do not end \(pid \d+ dump\)"):
        move(opened(), tmp_path)

    reader.close()
    assert holds(database, "old")
    move(opened(), tmp_path)
    assert holds(database, "new")


def test_a_program_that_has_read_and_waits_to_write_is_named_too(
    database: "psycopg.Connection[Any]", url: str, opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It waits for the swap, and the swap for it."""
    original = carry_over
    other = psycopg.connect(f"{url}?application_name=orm")

    def begin_to_write(*args: object) -> None:
        other.execute("SELECT count(*) FROM notes")
        threading.Thread(target=other.execute, args=("DELETE FROM notes WHERE id = 1",)).start()
        waits = "SELECT FROM pg_locks WHERE mode = 'RowExclusiveLock' AND NOT granted"
        while not database.execute(waits).rowcount:
            pass
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pgvector_replace, "carry_over", begin_to_write)
    with pytest.raises(StoreBusyError, match="orm") as caught:
        move(opened(), tmp_path)

    assert "What is embedded is kept" in (caught.value.hint or "")
    while database.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount:
        pass
    other.commit()
    other.close()
    assert holds(database, "old", ROWS - 1)


def test_a_transaction_that_has_written_is_waited_for(
    database: "psycopg.Connection[Any]", url: str, opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pgvector_lock, "LOCK_S", 0.1)
    writer = psycopg.connect(url)
    writer.execute("UPDATE notes SET body = 'changed' WHERE id = 1")

    with pytest.raises(StoreBusyError, match="in use by another transaction"):
        plan(opened(), NEW, DrawingEmbedder(), tmp_path)

    writer.close()
    assert holds(database, "old")


def test_a_lost_connection_leaves_the_table_as_it_was(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def lose(*_: object) -> None:
        database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'emberd' AND datname = current_database()"
        )
        original(*_)  # type: ignore[arg-type]

    original = carry_over
    with monkeypatch.context() as patch:
        patch.setattr(pgvector_replace, "carry_over", lose)
        with pytest.raises(StoreError):
            move(opened(), tmp_path)

    assert holds(database, "old")
    assert kept(database) == []
    move(opened(), tmp_path)
    assert holds(database, "new")


# -- what is refused, with what to do ----------------------------------------------------------


@pytest.mark.parametrize(
    ("obstacle", "named"),
    [
        ("CREATE VIEW seen AS SELECT id FROM notes", "view seen"),
        ("CREATE TABLE kids (note bigint REFERENCES notes)", "on table kids"),
        ("CREATE RULE r AS ON DELETE TO notes DO INSTEAD NOTHING", "rule r"),
        ("CREATE PUBLICATION news FOR TABLE notes", "publication news"),
        ("CREATE TABLE kids () INHERITS (notes)", "kids"),
        ("ALTER TABLE notes ADD size int GENERATED ALWAYS AS (vector_dims(embedding)) STORED",
         "generated column"),
        ("CREATE FUNCTION f(notes) RETURNS int LANGUAGE sql RETURN 1", "function f"),
    ],
)  # fmt: skip
def test_what_would_stay_with_the_old_table_is_named_before_anything_is_written(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None,
    obstacle: str, named: str,
) -> None:  # fmt: skip
    database.execute(obstacle.encode())

    with pytest.raises(StoreError, match=named):
        plan(opened(), NEW, DrawingEmbedder(), tmp_path)

    assert kept(database) == []


def test_an_index_for_vectors_of_one_size_is_named(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector)")
    database.execute("INSERT INTO notes VALUES (1, 'text 1', '[1,2,3]')")
    database.execute(
        "CREATE INDEX sized ON notes USING hnsw ((embedding::vector(3)) vector_l2_ops)"
    )

    with pytest.raises(StoreError, match="in the definition of sized"):
        move(opened(), tmp_path)

    database.execute("DROP INDEX sized")
    move(opened(), tmp_path)
    assert opened().store.inspect().dimensions == DIMENSIONS


def test_vectors_without_a_text_are_refused(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None
) -> None:
    database.execute("UPDATE notes SET body = NULL WHERE id = 3")

    with pytest.raises(StoreRowsError, match=r"1 vectors have no text.*\(3\)"):
        plan(opened(), NEW, DrawingEmbedder(), tmp_path)


def test_a_role_that_only_reads_can_look_but_not_run(
    database: "psycopg.Connection[Any]", server: PostgresServer, url: str, opened: Open,
    tmp_path: Path, notes: None,
) -> None:  # fmt: skip
    move(opened(), tmp_path)
    database.execute("CREATE ROLE looker LOGIN; GRANT SELECT ON notes TO looker")
    theirs = opened(url.replace("postgres@", "looker@"))

    assert theirs.store.inspect().rows == ROWS
    assert [row.text for row in theirs.store.rows()] == TEXTS
    stamp = theirs.store.stamp()
    assert stamp and stamp.model == "new"
    assert theirs.store.cost(8).locked_s > 0
    with pytest.raises(StoreError) as caught, theirs.store.replacing():
        pass
    assert "A run needs" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({}, "has 2 tables with vectors", "--option table=NAME"),
        ({"table": "gone"}, "no table gone", "SCHEMA.TABLE"),
        ({"table": "two", "text": "a"}, "several vector columns", "--option vector=NAME"),
        ({"table": "two", "vector": "x"}, "no vector column x", "--option vector=NAME"),
        ({"table": "two", "vector": "v"}, "several text columns", "--option text=NAME"),
        ({"table": "two", "vector": "v", "text": "k"}, "no text column k", "was embedded"),
        ({"table": "two", "vector": "v", "text": "a", "id": "b"}, "cannot be the key", "unique"),
        ({"table": "two", "vector": "h", "text": "a"}, "of the type halfvec", "vector(SIZE)"),
    ],
)
def test_wrong_options_are_met_with_the_right_ones(
    database: "psycopg.Connection[Any]", opened: Open, notes: None,
    options: dict[str, str], message: str, hint: str,
) -> None:  # fmt: skip
    database.execute("CREATE TABLE two (k int PRIMARY KEY, a text, b text, v vector(3),"
                     " w vector(3), h halfvec(3))")  # fmt: skip

    with pytest.raises(NotAStoreError, match=message) as caught:
        opened(**options).store.inspect()

    assert hint in (caught.value.hint or "")


def test_a_password_is_used_and_never_shown(opened: Open, url: str, notes: None) -> None:
    secret = url.replace("postgres@", "postgres:s3cret%40x@")

    assert opened(secret).store.inspect().rows == ROWS
    assert "s3cret" not in opened(secret).address
    for wrong in (secret.replace("127.0.0.1", "127.0.0.1:1"), secret.replace("%40", "%4"),
                  secret.replace("/db-", "/gone-")):  # fmt: skip
        with pytest.raises(StoreError) as caught:
            opened(wrong).store.inspect()
        assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


@pytest.mark.parametrize("command", [recover, status])
def test_what_a_stopped_run_left_is_finished_with_a_password_that_no_note_has(
    server: PostgresServer, opened: Open, url: str, tmp_path: Path, notes: None,
    database: "psycopg.Connection[Any]", command: Callable[[StoreRef, Path], object],
) -> None:  # fmt: skip
    user = f"ann_{uuid.uuid4().hex[:8]}"
    server.require_password(user, "s3cret@x")
    with pytest.raises(StoreError):
        opened(url.replace("postgres@", f"{user}@")).store.inspect()
    secret = url.replace("postgres@", f"{user}:s3cret%40x@")

    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:  # noqa: PT012 - where is below
        staged = stack.enter_context(staging(opened(secret), NEW, DrawingEmbedder(), tmp_path))
        staged.joint = joint_run([staged.ref], None, tmp_path)
        stack.enter_context(swapping(staged))()
        raise KeyboardInterrupt  # nothing looks at what was committed

    command(opened(secret), tmp_path)
    assert holds(database, "new")
    assert status(opened(secret), tmp_path)["backups"]
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()
    ]


def test_without_psycopg_the_error_says_what_to_install(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = opened()
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreKindError, match="not installed") as caught:
        ref.store.inspect()

    assert "emberd[pgvector]" in (caught.value.hint or "")


def test_a_database_without_vectors_is_not_a_store(opened: Open) -> None:
    with pytest.raises(NotAStoreError, match="no table with a vector column"):
        opened().store.inspect()


def test_a_check_that_fails_after_the_commit_puts_the_old_table_back(
    database: "psycopg.Connection[Any]", opened: Open, tmp_path: Path, notes: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from emberd.migrate import joint_run

    def wrong(*_: object) -> None:
        raise MigrationError("It is wrong.")

    monkeypatch.setattr(joint_run, "verify", wrong)
    with pytest.raises(MigrationError):
        move(opened(), tmp_path)

    assert holds(database, "old")
    assert kept(database) == ["emberd"]
    assert json.dumps(status(opened(), tmp_path)["backups"]) == "[]"
