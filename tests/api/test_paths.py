"""Paths that wrong base addresses produce: a slash too many, or a part twice."""

from collections.abc import Iterator
from typing import Any

import pytest

from emberd.api.paths import nearest, plain
from tests.api.guarded import raw, start
from tests.serving import Server

KNOWN = ["/", "/embed", "/v1/embeddings", "/embeddings", "/v1/models", "/api/embed", "/api/tags"]
BODY = b'{"texts": ["a"], "input": "a"}'


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("/embed", "/embed"), ("//embed", "/embed"), ("/v1//embeddings", "/v1/embeddings"),
        ("///", "/"), ("/", "/"), ("", "/"), ("//v1///embeddings//", "/v1/embeddings"),
    ],
)  # fmt: skip
def test_slashes_too_many_mean_nothing(path: str, means: str) -> None:
    assert plain(path) == means


@pytest.mark.parametrize("path", ["//embed", "/v1//embeddings", "//v1/embeddings", "//api//embed/"])
def test_they_reach_the_route(server: Server, path: str) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(BODY)

    assert raw(server, head % path.encode() + length + BODY).startswith(b"HTTP/1.1 200 ")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("g")) as running:
        yield running


def test_they_are_no_way_around_a_token(guarded: Server) -> None:
    for path, status in (("//models", b"401"), ("/models//", b"401"), ("//health", b"200")):
        answer = raw(guarded, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        assert answer.split()[1] == status, path


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("/api/v1/embeddings", "/v1/embeddings"),
        ("/openai/v1/models", "/v1/models"),
        ("/v1/embeddings/embeddings", "/embeddings"),
        ("/v1/api/tags", "/api/tags"),
        ("/v1/embedding", "/v1/embeddings"),
        ("/wp-login.php", None),
    ],
)
def test_who_misses_is_told_the_nearest(path: str, means: str | None) -> None:
    assert nearest(path, KNOWN) == means


def message(error: dict[str, Any]) -> str:
    """Return the message of an error in OpenAI's shape."""
    return str(error["error"]["message"])


@pytest.mark.parametrize("path", ["/v1/v1/embeddings", "/api/v1/embeddings"])
def test_a_base_address_that_is_there_twice_is_a_404_that_says_so(
    server: Server, path: str
) -> None:
    answer = server.http.post(path, json={"input": "a", "model": "minilm"})

    assert answer.status_code == 404
    assert "Did you mean /v1/embeddings?" in message(answer.json())


def test_routes_with_a_name_in_them_are_nearest_too(server: Server) -> None:
    answer = server.http.get("/v1/v1/models/minilm")

    assert answer.status_code == 404
    assert "Did you mean /v1/models/{model}?" in message(answer.json())


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/api/embed", "/load", "/"])
def test_who_compresses_is_told_not_to(server: Server, path: str, coding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}

    answer = server.http.post(path, content=b"\x1f\x8b", headers=headers)

    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


def test_another_media_type_is_no_matter_of_coding(server: Server) -> None:
    answer = server.http.post("/embed", content=b"{}", headers={"content-type": "text/plain"})

    assert answer.status_code == 415
    assert "accept-encoding" not in answer.headers


def test_a_template_of_routes_is_no_path_of_its_own(server: Server) -> None:
    for template in ("/v1/models/{model:path}", "/ui/{name:path}"):
        assert server.http.get(template).status_code == 404
