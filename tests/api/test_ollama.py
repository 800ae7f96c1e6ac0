"""What Ollama's clients send and read, with raw requests; its SDKs are tested in tests/clients."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.api.dialects import WAYS
from tests.serving import Server

CURL = "application/x-www-form-urlencoded"  # what `curl -d` declares
CONFIG = """
server: {allowed_origins: ["http://localhost:3000"]}
models: {bge-small: {aliases: [MiniLM, "tagged:v1.5", "whole:latest"]}}
"""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with names that only differ in case, and with tags."""
    with Server(tmp_path_factory.mktemp("named"), config=CONFIG) as running:
        yield running


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no"),
        pytest.param({"input": []}, id="[]", marks=pytest.mark.slow),
        pytest.param({"input": None}, id="null", marks=pytest.mark.slow),
    ],
)
def test_a_request_without_texts_loads_the_model(home: Path, body: dict[str, Any]) -> None:
    with Server(home) as own:
        answer = own.http.post("/api/embed", json={"model": "all-minilm", **body})
        state = own.row()["state"]
        fingerprint = own.embed("a")["fingerprint"]

    assert answer.status_code == 200, answer.text
    assert answer.json()["embeddings"] == []
    assert (answer.json()["model"], answer.json()["prompt_eval_count"]) == ("minilm", 0)
    assert 0 < answer.json()["load_duration"] <= answer.json()["total_duration"]
    assert state == "ready"
    assert answer.headers["x-emberd-fingerprint"] == fingerprint


@pytest.mark.parametrize("body", [{}, {"prompt": None}])
def test_the_older_route_does_the_same(server: Server, body: dict[str, Any]) -> None:
    answer = server.http.post("/api/embeddings", json={"model": "minilm", **body})

    assert (answer.status_code, answer.json()) == (200, {"embedding": []})


def test_an_empty_text_is_a_text(server: Server) -> None:
    answer = server.http.post("/api/embed", json={"input": ""}).json()

    assert answer["embeddings"] == server.embed("")["embeddings"]


def test_every_name_is_listed_as_ollama_lists_it_and_shown(server: Server) -> None:
    server.embed("loaded, so that its files are known")
    rows = server.http.get("/models").json()["models"]

    tags = {tag["name"]: tag for tag in server.http.get("/api/tags").json()["models"]}
    ids = [model["id"] for model in server.http.get("/v1/models").json()["data"]]

    assert {"minilm:latest", "all-minilm:latest", "all-MiniLM-L6-v2:latest"} <= set(tags)
    assert {"minilm", "all-minilm", "all-MiniLM-L6-v2"} <= set(ids)
    assert len(ids) == len(set(ids)) == len(tags)
    assert not [name for name in (*tags, *ids) if "/" in name]  # Hub ids are taken, not listed
    for row in rows:
        assert f"{row['name']}:latest" in tags
        assert row["name"] in ids
    for name, tag in tags.items():
        shown = server.http.post("/api/show", json={"model": name})
        assert shown.status_code == 200, name
        assert shown.json()["modified_at"] == tag["modified_at"]
        assert tag["model"] == name


def test_files_that_are_here_have_a_size_and_a_time(server: Server) -> None:
    server.embed("loaded")

    tags = {tag["name"]: tag for tag in server.http.get("/api/tags").json()["models"]}
    (listed,) = [m for m in server.http.get("/v1/models").json()["data"] if m["id"] == "minilm"]
    shown = server.http.post("/api/show", json={"model": "all-minilm"}).json()

    mine, absent = tags["all-minilm:latest"], tags["mpnet:latest"]
    assert mine["size"] == shown["size"] > 20 * 2**20
    changed = datetime.fromisoformat(mine["modified_at"])
    assert datetime(2000, 1, 1, tzinfo=UTC) < changed < datetime.now(UTC)
    assert listed["created"] == changed.timestamp()
    assert (absent["size"], datetime.fromisoformat(absent["modified_at"]).timestamp()) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("minilm", "minilm"),
        ("MiniLM", "bge-small"),  # an alias that is written exactly so
        ("MINILM", "minilm"),  # a name beats an alias
        ("minilm:latest", "minilm"),
        ("All-MiniLM-L6-V2:latest", "minilm"),
        ("all-minilm-l6-v2", "minilm"),
        ("tagged:v1.5", "bge-small"),
        ("Whole:Latest", "bge-small"),
        ("whole:latest", "bge-small"),
        ("baai/BGE-small-en-v1.5", "bge-small"),
    ],
)
def test_names_ignore_case_when_nothing_is_called_exactly_so(
    named: Server, asked: str, means: str
) -> None:
    shown = named.http.post("/api/show", json={"model": asked})
    found = named.http.get(f"/v1/models/{asked}")

    assert (shown.status_code, found.status_code) == (200, 200)
    assert found.json()["id"] == means
    sources = {"minilm": "mlx-community/all-MiniLM-L6-v2-4bit",
               "bge-small": "mlx-community/bge-small-en-v1.5-4bit"}  # fmt: skip
    assert shown.json()["model_info"]["general.name"] == sources[means]


@pytest.mark.parametrize(
    ("asked", "hub_id"),
    [
        ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:v1.5:query", "nomic-ai/nomic-embed-text-v1.5"),
        ("granite-embedding:278m", "ibm-granite/granite-embedding-278m-multilingual"),
        ("snowflake-arctic-embed2:latest", "Snowflake/snowflake-arctic-embed-l-v2.0"),
    ],
)
def test_a_built_in_model_answers_to_its_name_in_ollama(
    server: Server, asked: str, hub_id: str
) -> None:
    shown = server.http.post("/api/show", json={"model": asked})
    listed = {tag["name"] for tag in server.http.get("/api/tags").json()["models"]}

    assert shown.json()["model_info"]["general.name"] == hub_id
    assert {"nomic-embed-text:latest", "nomic-embed-text:v1.5"} <= listed


def test_names_with_a_tag_are_listed_as_they_are(named: Server) -> None:
    names = {tag["name"] for tag in named.http.get("/api/tags").json()["models"]}

    assert {"tagged:v1.5", "whole:latest", "MiniLM:latest", "minilm:latest"} <= names


def test_what_ollama_lists_is_taken_in_every_dialect(server: Server) -> None:
    for way in WAYS.values():
        answer = way.ask(server.http, ["a"], model="All-Minilm:latest")
        assert answer.headers["x-emberd-model"] == "minilm", way


def test_a_text_too_long_is_refused_in_ollamas_words(server: Server) -> None:
    answer = server.http.post("/api/embed", json={"input": "b " * 600, "truncate": False})

    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "the input length exceeds the context length: Text 0 has 602 tokens"
    )


def test_a_model_that_is_not_there_is_not_found_in_ollamas_words(server: Server) -> None:
    answer = server.http.post("/api/show", json={"model": "minlm"})

    assert answer.status_code == 404
    assert answer.json()["error"].startswith("model not found: No model is called 'minlm'.")


# -- bodies not declared as JSON ------------------------------------------------------------


@pytest.mark.parametrize("declared", [CURL, "text/plain", "", None])
@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/api/embed", b'{"input": "a"}', "embeddings"),
        ("/api/embeddings", b'{"prompt": "a"}', "embedding"),
        ("/api/show", b'{"model": "minilm"}', "details"),
    ],
)
def test_bodies_need_not_be_declared_as_json(
    server: Server, path: str, body: bytes, key: str, declared: str | None
) -> None:
    headers = {} if declared is None else {"content-type": declared}

    answer = server.http.post(path, content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert key in answer.json()


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "http://localhost:3000"},  # allowed, but it still needs a preflight
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_unless_a_browser_may_have_sent_them(named: Server, header: dict[str, str]) -> None:
    for path in ("/api/embed", "/api/embeddings", "/api/show"):
        headers = {"content-type": "text/plain", **header}
        answer = named.http.post(path, content=b'{"input": "a"}', headers=headers)
        assert (answer.status_code, list(answer.json())) == (415, ["error"]), path


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/", "/tokenize", "/load", "/unload"])
def test_other_dialects_want_to_be_told(server: Server, path: str) -> None:
    answer = server.http.post(path, content=b'{"model": "minilm"}', headers={"content-type": CURL})

    assert answer.status_code == 415
