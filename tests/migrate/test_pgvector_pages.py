"""The pages for newcomers to pgvector and LangChain's PGVector, followed to the letter."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_postgres import PGEngine

from emberd.config.load import load_config
from emberd.errors import NotAStoreError
from emberd.migrate.known import find
from tests.cosines import cosines
from tests.migrate import stores
from tests.migrate.kinds import langchain_pgvector
from tests.migrate.kinds.pgvector import is_stamped, read
from tests.migrate.postgres_server import PostgresServer, connect
from tests.migrate.recipes import CONFIG, ROOT, blocks, environ_of, shell
from tests.serving import Server, clean_environ, run_emberd

TEXTS = stores.texts(24)
ALL = "SELECT id, body, embedding FROM notes ORDER BY id"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server with the user and the database that the pages name."""
    with PostgresServer() as running:
        running.create("app")
        with connect(running.url()) as connection:
            connection.execute("CREATE ROLE me SUPERUSER LOGIN")
        yield running


@pytest.fixture
def app(postgres: PostgresServer) -> "Iterator[psycopg.Connection[Any]]":
    with connect(postgres.url("app", "me")) as connection:
        yield connection


def home_of(folder: Path, page: str) -> Path:
    """Return a home with the entry that a page has."""
    text = (ROOT / "docs" / "stores" / page).read_text()
    (entry,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    (folder / "config.yaml").write_text(CONFIG + entry)
    return folder


def warnings(server: Server) -> list[str]:
    return [each["code"] for each in server.http.get("/health").json()["warnings"]]


def test_the_page_of_pgvector(
    postgres: PostgresServer, app: "psycopg.Connection[Any]", tmp_path: Path
) -> None:
    home = home_of(tmp_path, "pgvector.md")
    old, new = (stores.embed(home, TEXTS, name) for name in ("minilm", "bge-small"))
    app.execute("CREATE TABLE notes (id serial PRIMARY KEY, body text, embedding vector(64))")
    app.execute("CREATE INDEX ON notes USING hnsw (embedding vector_cosine_ops)")
    for text, vector in zip(TEXTS, old, strict=True):
        app.execute(
            "INSERT INTO notes (body, embedding) VALUES (%s, %s)", (text, str(vector.tolist()))
        )
    environ = {**environ_of(home), "PGPORT": str(postgres.port), "PGPASSWORD": "s3cret"}
    (block,) = blocks("pgvector.md")
    check, run, look, back = block.splitlines()

    def stored() -> Any:  # noqa: ANN401 - a matrix
        return np.stack([vector for _, vector in read(app, ALL).values()])

    def checked(*further: str) -> dict[str, Any]:
        words = ("migrate", "check", "notes", "--json", *further)
        answer = run_emberd(*words, home=home, environ=environ).stdout
        found: dict[str, Any] = json.loads(answer)
        return found

    with Server(home, environ={"PGPORT": str(postgres.port)}) as server:
        assert "compatible" in shell(check, environ)
        said = checked()
        assert (said["model"], said["judged_by"]) == ("minilm", "sample")
        assert "postgresql://me@localhost/app" in said["store"]
        assert warnings(server) == []
        compared = run_emberd(
            "compare", "minilm", "bge-small", "--store", "notes", home=home, environ=environ
        )
        assert compared.returncode == 0, compared.stderr
        shell(run, environ)
        assert cosines(stored(), new).min() > 0.9999
        assert warnings(server) == ["store_mismatch"]
        assert "Backup from before bge-small" in shell(look, environ)
        assert checked()["judged_by"] == "stamp"
        app.execute("UPDATE notes SET embedding = %s WHERE id <= 8", (str(old[0].tolist()),))
        app.execute("UPDATE notes SET body = %s WHERE id <= 8", (TEXTS[0],))
        mixed = checked("--sample", "all")
        assert mixed["verdict"] == "mixed"
        assert {model: len(keys) for model, keys in mixed["made_by"].items()} == {
            "minilm": 8, "bge-small": 16,
        }  # fmt: skip
        shell(back, environ)
        assert np.array_equal(stored(), old)
        assert not is_stamped(app)
        assert warnings(server) == []
    for file in home.rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes()


def test_the_page_of_langchains_pgvector(
    postgres: PostgresServer, app: "psycopg.Connection[Any]", tmp_path: Path
) -> None:
    home = home_of(tmp_path, "langchain-pgvector.md")
    old, new = (stores.embed(home, TEXTS, name) for name in ("minilm", "bge-small"))
    url = postgres.url("app", "me")
    notes, other = (langchain_pgvector.Session(url, name) for name in ("notes", "other"))
    notes.put_all([(f"n{at}", text, old[at]) for at, text in enumerate(TEXTS)])
    other.put("o", "something else", np.ones(3, np.float32))
    environ = {**environ_of(home), "PGPORT": str(postgres.port)}
    (block,) = blocks("langchain-pgvector.md")
    check, run, back = block.splitlines()

    assert "compatible" in shell(check, environ)
    shell(run, environ)

    found = notes._store.similarity_search_by_vector(new[5].tolist(), k=1)
    assert [(each.page_content, each.metadata) for each in found] == [(TEXTS[5], {"of": "notes"})]
    assert other.rows()["o"][1].tolist() == [1, 1, 1]
    config = load_config(environ=clean_environ(home))
    with pytest.raises(NotAStoreError, match=r"2 collections \(notes, other\)") as caught:
        find(config, postgres.url("app"), kind="langchain-pgvector").store.inspect()
    assert "collection=NAME" in (caught.value.hint or "")
    shell(back, environ)
    rows = notes.rows()
    assert np.array_equal(np.stack([rows[f"n{at}"][1] for at in range(len(TEXTS))]), old)
    notes.close()
    other.close()


def test_a_table_of_the_newer_class_needs_only_its_name(
    postgres: PostgresServer, app: "psycopg.Connection[Any]", tmp_path: Path
) -> None:
    url = postgres.url("app", "me")
    engine = PGEngine.from_connection_string(url.replace("postgresql:", "postgresql+psycopg:"))
    engine.init_vectorstore_table("newer", 64)
    app.execute(
        "INSERT INTO newer VALUES (gen_random_uuid(), 'a text', %s, NULL)", (str([1] * 64),)
    )

    config = load_config(environ=clean_environ(tmp_path))
    store = find(config, url, kind="pgvector", options={"table": "newer"}).store

    assert [row.text for row in store.rows()] == ["a text"]
    assert store.inspect().dimensions == 64
    engine._run_as_sync(engine.close())
