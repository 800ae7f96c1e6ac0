"""Everything a client can get wrong gives a clear error, and costs nobody else anything."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving import Server

JSON = {"content-type": "application/json"}
GOOD = b'{"texts": ["fine"]}'
MEDIA = "unsupported_media_type"

REFUSED: list[tuple[str, bytes, dict[str, str], int, str, str]] = [
    # what it is, body, headers, status, code, words that have to be in the detail
    ("an empty list", b'{"texts": []}', JSON, 400, "no_texts", "No texts provided"),
    ("no body", b"", JSON, 400, "malformed_body", "JSON"),
    ("broken JSON", b'{"texts": ["a"', JSON, 400, "malformed_body", "line 1, column"),
    ("NaN", b'{"texts": [NaN]}', JSON, 400, "malformed_body", "JSON"),
    ("not UTF-8", b'{"texts": ["\xff\xfe"]}', JSON, 400, "malformed_body", "UTF-8"),
    ("nested too deep", b"[" * 200_000, JSON, 400, "malformed_body", "deep"),
    ("nested deep and closed", b"[" * 5000 + b"]" * 5000, JSON, 400, "malformed_body", "deep"),
    ("no texts", b"{}", JSON, 422, "wrong_shape", "texts"),
    ("a list as the body", b'["a"]', JSON, 422, "wrong_shape", "object"),
    ("null", b"null", JSON, 422, "wrong_shape", "object"),
    ("texts a string", b'{"texts": "a"}', JSON, 422, "wrong_shape", "texts"),
    ("a number among the texts", b'{"texts": ["a", 7]}', JSON, 422, "wrong_shape", "texts.1"),
    ("null among the texts", b'{"texts": [null]}', JSON, 422, "wrong_shape", "texts.0"),
    ("model a number", b'{"texts": ["a"], "model": 3}', JSON, 422, "wrong_shape", "model"),
    ("truncate a string", b'{"texts": ["a"], "truncate": "no"}', JSON, 422, "wrong_shape", "trunc"),
    ("lone surrogate", b'{"texts": ["ok", "\\ud800"]}', JSON, 422, "wrong_shape", "texts.1"),
    ("unknown model", b'{"texts": ["a"], "model": "minlm"}', JSON, 404, "unknown_model", "minlm"),
    ("size", b'{"texts": ["a"], "dimensions": 100}', JSON, 400, "bad_option", "100 dimensions"),
    ("size 0", b'{"texts": ["a"], "dimensions": 0}', JSON, 400, "bad_option", "0 dimensions"),
    ("input_type", b'{"texts": ["a"], "input_type": "x"}', JSON, 400, "bad_option", "input_type"),
    ("encoding", b'{"texts": ["a"], "encoding": "hex"}', JSON, 400, "bad_option", "encoding"),
    ("not declared as JSON", GOOD, {"content-type": "text/plain"}, 415, MEDIA, "text/plain"),
    ("not declared at all", GOOD, {}, 415, MEDIA, "missing"),
    ("5,000 texts", json.dumps({"texts": ["x"] * 5000}).encode(), JSON, 413, "too_large", "5000"),
    ("17 MiB", b'{"texts": ["' + b"x" * (17 << 20) + b'"]}', JSON, 413, "too_large", "16 MiB"),
    ("rebound name", GOOD, {**JSON, "host": "evil.example"}, 403, "forbidden", "Host"),
    ("a web page", GOOD, {**JSON, "origin": "https://evil.example"}, 403, "forbidden", "pages"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "words"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_it_is_refused_in_the_native_shape(
    server: Server, body: bytes, headers: dict[str, str], status: int, code: str, words: str
) -> None:
    response = server.http.post("/embed", content=body, headers=headers)

    error: dict[str, Any] = response.json()
    assert (response.status_code, error["code"]) == (status, code)
    assert words in error["detail"]
    assert set(error) == {"detail", "code", "hint"}
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_route"),
        ("GET", "/embed", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
def test_routes_that_are_not_there(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    response = server.http.request(method, path)

    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/embed", "POST"),
        ("/reload", "GET, POST"),
        ("/", "GET, POST"),
        ("/v1/models/minilm", "GET"),
    ],
)
def test_the_methods_that_a_path_answers_are_named(server: Server, path: str, allowed: str) -> None:
    response = server.http.request("DELETE", path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/load", "/unload"])
def test_load_and_unload_name_an_unknown_model(server: Server, path: str) -> None:
    response = server.http.post(path, json={"model": "bge-smal"})

    assert response.status_code == 404
    assert "bge-small" in response.json()["hint"]


def test_a_misspelt_model_is_met_with_the_nearest_names(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": ["a"], "model": "minlm"})

    assert "minilm" in response.json()["hint"]


@pytest.mark.parametrize(
    "accept",
    ["text/plain; version=abc", "application/openmetrics-text; version=1.x", "text/plain;version"],
)
def test_metrics_are_given_to_who_asks_for_a_version_that_is_none(
    server: Server, accept: str
) -> None:
    assert server.http.get("/metrics", headers={"accept": accept}).status_code == 200


def test_an_error_repeats_no_more_than_the_start_of_what_was_sent(server: Server) -> None:
    long = "x" * 100_000
    for path, body in (
        ("/embed", {"texts": ["a"], "model": long}),
        ("/embed", {"texts": ["a"], "fingerprint": long}),
        ("/unload", {long: 1}),
        ("/v1/embeddings", {"input": {long: "\ud800"}}),
    ):
        response = server.http.post(path, content=json.dumps(body), headers=JSON)
        assert response.status_code >= 400
        assert len(response.content) < 1000, path


def test_a_text_too_long_is_named_when_it_must_not_be_cut(server: Server) -> None:
    texts = ["short", "word " * 600]

    response = server.http.post("/embed", json={"texts": texts, "truncate": False})

    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")
    assert "Text 1 has 602 tokens" in response.json()["detail"]


def test_another_space_than_the_expected_one_is_a_409_without_vectors(server: Server) -> None:
    by_field = {"texts": ["a"], "fingerprint": "0" * 16}

    for response in (
        server.http.post("/embed", json=by_field),
        server.http.post(
            "/embed", json={"texts": ["a"]}, headers={"X-Emberd-Expect-Fingerprint": "0" * 16}
        ),
    ):
        assert (response.status_code, response.json()["code"]) == (409, "fingerprint_mismatch")
        assert response.headers["x-should-retry"] == "false"
        assert "embeddings" not in response.json()


@pytest.mark.parametrize(
    "text",
    ["", "   ", "\x00", "a\x00b", "\x1b[31m\x07", "\ufeff", "\U0010ffff", "x" * 1_000_000],
    ids=["empty", "white space", "NUL", "NUL inside", "controls", "BOM", "last", "a megabyte"],
)
def test_odd_texts_are_texts(server: Server, text: str) -> None:
    answer = server.embed(text, "a neighbour")

    assert len(answer["embeddings"]) == 2
    assert answer["embeddings"][1] == pytest.approx(
        server.embed("a neighbour")["embeddings"][0], abs=1e-2
    )


def test_bad_requests_cost_the_good_ones_nothing(server: Server) -> None:
    def ask(number: int) -> int:
        bad = REFUSED[number % len(REFUSED)]
        if number % 2 or bad[0] in ("17 MiB",):
            return server.http.post("/embed", json={"texts": [f"good text {number}"]}).status_code
        server.http.post("/embed", content=bad[1], headers=bad[2])
        return 200

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(120))) == {200}


def test_half_a_request_then_silence_costs_nobody_anything(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 0)) as half:
        half.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
        half.sendall(b'Content-Type: application/json\r\n\r\n{"texts": ["never')

        assert server.embed("somebody else")["dimensions"] == 384


def test_no_text_is_in_the_log(server: Server) -> None:
    server.embed("a secret called Rumpelstilzchen")
    server.http.post("/embed", content=b'{"texts": ["Rumpelstilzchen', headers=JSON)
    server.http.post("/embed", json={"texts": ["Rumpelstilzchen", 3]})
    server.http.post("/embed", json={"texts": ["Rumpelstilzchen " * 600], "truncate": False})
    server.http.post("/embed", content=b'{"texts": ["Rumpelstilzchen \\ud800"]}', headers=JSON)

    assert "Rumpelstilzchen" not in server.log()
    assert "Traceback" not in server.log()
