"""The same vectors in every dialect, and the other requests of each dialect's clients."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.dialects import WAYS, Way
from tests.serving import Server

TEXTS = ["first text", "", "第三", "a fourth, longer than the others " * 9]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_the_same_vectors_bit_for_bit_and_whose_they_are(server: Server, way: Way) -> None:
    raw = server.http.post(
        "/embed", json={"texts": TEXTS}, headers={"accept": "application/octet-stream"}
    )

    response = way.ask(server.http, TEXTS)

    assert response.status_code == 200
    assert way.rows(response.json()).tobytes() == raw.content
    for header in ("x-emberd-model", "x-emberd-fingerprint"):
        assert response.headers[header] == raw.headers[header]


def test_ollamas_older_route_gives_the_same_vector(server: Server) -> None:
    way = Way("/api/embeddings", "prompt", {}, "embedding", frozenset({"error"}))

    old = way.rows(way.ask(server.http, TEXTS[0]).json())

    assert old.tobytes() == WAYS["native"].rows(server.embed(TEXTS[0])).tobytes()


@pytest.mark.parametrize("way", [w for w in WAYS.values() if w.texts != "texts"])
def test_one_text_may_stand_without_a_list(server: Server, way: Way) -> None:
    assert way.ask(server.http, "one").json() == way.ask(server.http, ["one"]).json() or (
        way.found == "embeddings"  # durations differ
        and way.rows(way.ask(server.http, "one").json()).shape == (1, 384)
    )


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model has a prompt and a smaller size."""
    config = "models: {minilm: {matryoshka: [128], prompts: {query: 'hello '}}}"
    with Server(tmp_path_factory.mktemp("configured"), config=config) as running:
        yield running


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_smaller_dimensions_reach_every_dialect(configured: Server, way: Way) -> None:
    assert way.rows(way.ask(configured.http, ["cats"], dimensions=128).json()).shape == (1, 128)


@pytest.mark.parametrize(
    "way", [way for way in WAYS.values() if way.path != "/api/embed"]
)  # Ollama has no word for prompts
def test_prompts_reach_every_dialect(configured: Server, way: Way) -> None:
    prompt = {"prompt_name": "query"} if way.texts == "inputs" else {"input_type": "query"}

    plain = way.rows(way.ask(configured.http, ["hello cats"]).json())
    prompted = way.rows(way.ask(configured.http, ["cats"], **prompt).json())

    assert prompted.tobytes() == plain.tobytes()


# -- OpenAI -------------------------------------------------------------------------------


def test_openais_usage_counts_tokens(server: Server) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": "hello world", "user": "u"}).json()

    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert (answer["object"], answer["model"]) == ("list", "minilm")


@pytest.mark.parametrize("name", ["minilm", "all-minilm", "mlx-community/all-MiniLM-L6-v2-4bit"])
def test_openais_models_answer_to_name_alias_and_hub_id(server: Server, name: str) -> None:
    listed = server.http.get("/v1/models").json()

    model = server.http.get(f"/v1/models/{name}").json()

    assert (model["id"], model["object"]) == ("minilm", "model")
    assert model in listed["data"]


# -- Ollama -------------------------------------------------------------------------------


@pytest.mark.slow
def test_ollamas_durations_say_what_a_load_took(home: Path) -> None:
    with Server(home) as own:
        cold, *others = (
            own.http.post("/api/embed", json={"model": "minilm:latest", "input": "a"}).json()
            for _ in range(6)
        )
        last_load_ns = own.row()["last_load_s"] * 1e9
    warm = min(others, key=lambda answer: answer["total_duration"])

    assert last_load_ns <= cold["load_duration"] <= cold["total_duration"]
    assert warm["load_duration"] < last_load_ns / 10
    assert warm["load_duration"] < warm["total_duration"] < cold["total_duration"]
    assert warm["prompt_eval_count"] == 3


def test_keep_alive_moves_nobodys_model(server: Server) -> None:
    server.embed("loaded")

    for keep_alive in (0, "0s", -1, "nonsense", None):
        answer = server.http.post("/api/embed", json={"input": "a", "keep_alive": keep_alive})
        assert answer.status_code == 200

    assert server.row()["state"] == "ready"
    assert 800 < server.row()["unloads_in_s"] <= 900


def test_ollama_lists_shows_and_says_what_runs(server: Server) -> None:
    fingerprint = server.embed("loaded")["fingerprint"]

    tags = server.http.get("/api/tags").json()["models"]
    running = server.http.get("/api/ps").json()["models"]
    shown = server.http.post("/api/show", json={"name": "minilm:latest"}).json()

    (mine,) = [tag for tag in tags if tag["name"] == "minilm:latest"]
    (loaded,) = [model for model in running if model["name"] == "minilm:latest"]
    assert mine["digest"] == loaded["digest"] == fingerprint
    assert mine["details"] == shown["details"]
    assert shown["details"]["family"] == "bert"
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.embedding_length"] == 384
    assert datetime.fromisoformat(loaded["expires_at"]) > datetime.now(UTC)
    assert server.http.get("/api/version").json() == {
        "version": server.http.get("/health").json()["version"]
    }


# -- TEI ----------------------------------------------------------------------------------


def test_vectors_of_their_own_length_are_another_space(server: Server) -> None:
    unit = server.http.post("/embed", json={"inputs": ["a text", "b"]})
    own = server.http.post("/embed", json={"inputs": ["a text", "b"], "normalize": False})

    rows = np.array(own.json(), "<f4")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.1).all()
    assert (rows / lengths).astype("<f4").tobytes() == np.array(unit.json(), "<f4").tobytes()
    assert own.headers["x-emberd-fingerprint"] != unit.headers["x-emberd-fingerprint"]


def test_a_client_that_expects_unit_vectors_gets_no_others(server: Server) -> None:
    unit = server.embed("a")["fingerprint"]
    body = {"inputs": "a", "normalize": False}
    own = server.http.post("/", json=body).headers["x-emberd-fingerprint"]

    refused, given = (
        server.http.post("/", json=body, headers={"x-emberd-expect-fingerprint": expected})
        for expected in (unit, own)
    )

    assert (refused.status_code, given.status_code) == (409, 200)


@pytest.mark.slow
def test_an_entry_that_does_not_normalize_is_left_so_unless_asked(home: Path) -> None:
    with Server(home, config="models: {minilm: {normalize: false}}") as own:
        left, same, unit = (
            own.http.post("/", json={"inputs": "a", **more})
            for more in ({}, {"normalize": False}, {"normalize": True})
        )
        native = own.embed("a")

    assert left.json() == same.json() == native["embeddings"]
    assert np.linalg.norm(left.json()) > 1.1
    assert np.linalg.norm(unit.json()) == pytest.approx(1, abs=1e-6)
    assert left.headers["x-emberd-fingerprint"] == native["fingerprint"]
    assert unit.headers["x-emberd-fingerprint"] != native["fingerprint"]


def tokens(server: Server, **body: object) -> list[dict[str, Any]]:
    """Return the tokens of one text."""
    (found,) = server.http.post("/tokenize", json=body).json()
    return list(found)


def test_tokens_say_what_and_where_they_are(server: Server) -> None:
    cls, hello, accent, sep = tokens(server, inputs="hello  naïve")

    assert cls == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert hello == {"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 5}
    assert (accent["text"], accent["start"], accent["stop"]) == ("naïve", 7, 12)
    assert sep["special"]


def test_tokens_are_not_cut_and_special_ones_can_be_left_out(server: Server) -> None:
    whole = tokens(server, inputs="hello " * 1200)
    plain = tokens(server, inputs="hello " * 1200, add_special_tokens=False)

    assert len(whole) == 1202
    assert [token["special"] for token in whole].count(True) == 2
    assert plain == whole[1:-1]
    assert plain[-1]["stop"] == len("hello " * 1200) - 1


def test_tokens_of_several_texts_prompt_included(configured: Server) -> None:
    one, two = configured.http.post(
        "/tokenize", json={"inputs": ["world", ""], "prompt_name": "query"}
    ).json()

    assert [token["text"] for token in one] == ["[CLS]", "hello", "world", "[SEP]"]
    assert [token["text"] for token in two] == ["[CLS]", "hello", "[SEP]"]


def test_info_says_what_a_request_may_hold(server: Server) -> None:
    info = server.http.get("/info").json()

    assert info["model_id"] == "mlx-community/all-MiniLM-L6-v2-4bit"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (512, 2048)


# -- all ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/models", "/v1/models", "/api/tags", "/info"]
)
def test_head_is_get_without_its_body(server: Server, path: str) -> None:
    head, get = server.http.head(path), server.http.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health/"), ("POST", "/embed/"), ("POST", "/v1/embeddings/")]
)
def test_a_slash_at_the_end_means_nothing(server: Server, method: str, path: str) -> None:
    body = {"texts": ["a"], "input": ["a"]} if method == "POST" else None

    response = server.http.request(method, path, json=body)

    assert (response.status_code, response.history) == (200, [])
