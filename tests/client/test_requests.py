"""Building requests and reading answers, without a server or a network."""

import json
from typing import Any

import httpx2
import numpy as np
import pytest

from emberd.client import requests
from emberd.client.answers import Usage
from emberd.client.requests import Request
from emberd.errors import (
    EmberdError,
    FingerprintMismatchError,
    NoServerError,
    UnknownModelError,
    WrongShapeError,
)


def body_of(request: Request[Any]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.content or b"null")
    return body


def test_what_is_not_given_is_not_sent() -> None:
    plain = requests.embed(["a", "é"])
    full = requests.embed(
        ["a"], model="m", input_type="query", dimensions=3, truncate=False, fingerprint="f"
    )

    assert (plain.method, plain.path) == ("POST", "/embed")
    assert plain.headers["Accept"] == "application/octet-stream"
    assert body_of(plain) == {"texts": ["a", "é"], "truncate": True}
    assert body_of(full) == {
        "texts": ["a"], "truncate": False, "model": "m", "input_type": "query",
        "dimensions": 3, "fingerprint": "f",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "method", "path", "body"),
    [
        (requests.health(), "GET", "/health", None),
        (requests.models(), "GET", "/models", None),
        (requests.load(), "POST", "/load", {"model": None}),
        (requests.load("m"), "POST", "/load", {"model": "m"}),
        (requests.unload("m"), "POST", "/unload", {"model": "m"}),
        (requests.preview_reload(), "GET", "/reload", None),
        (requests.reload(), "POST", "/reload", {}),
        (
            requests.embed_as_json(["a"], model="m"),
            "POST",
            "/embed",
            {"texts": ["a"], "model": "m"},
        ),
    ],
)
def test_each_request_is_one_route(
    request_: Request[Any], method: str, path: str, body: dict[str, Any] | None
) -> None:
    assert (request_.method, request_.path, body_of(request_)) == (method, path, body)


def test_raw_vectors_are_read_with_what_the_headers_say() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    response = httpx2.Response(
        200,
        content=vectors.tobytes(),
        headers={
            "x-emberd-rows": "2", "x-emberd-dimensions": "3", "x-emberd-model": "m",
            "x-emberd-fingerprint": "f", "x-emberd-truncated": "0-1", "x-emberd-tokens": "7",
        },
    )  # fmt: skip

    answer = requests.embed(["a", "b"]).read(response)

    assert answer.vectors.tolist() == vectors.tolist()
    assert answer.vectors.flags.writeable
    assert (answer.model, answer.fingerprint) == ("m", "f")
    assert (answer.truncated, answer.usage) == ((0, 1), Usage(7))
    assert answer.cached is None  # these headers do not say


def test_lists_come_without_what_is_around_them() -> None:
    response = httpx2.Response(200, json={"status": "unloaded", "models": ["m"]})

    assert requests.unload().read(response) == ["m"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unknown_model", UnknownModelError),
        ("fingerprint_mismatch", FingerprintMismatchError),
        ("a_code_of_a_newer_server", EmberdError),
    ],
)
def test_what_is_refused_is_raised_as_its_class(code: str, kind: type[EmberdError]) -> None:
    response = httpx2.Response(400, json={"code": code, "detail": "why", "hint": "what to do"})

    with pytest.raises(kind) as refused:
        requests.health().read(response)

    assert (refused.value.message, refused.value.hint) == ("why", "what to do")


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"code": "x"}', b'"text"'])
def test_what_another_server_says_is_not_an_answer(status: int, content: bytes) -> None:
    response = httpx2.Response(status, content=content)

    with pytest.raises(NoServerError):
        requests.models().read(response)


def test_texts_that_cannot_be_sent_are_refused_before_they_are() -> None:
    with pytest.raises(WrongShapeError):
        requests.embed("one string")
    with pytest.raises(WrongShapeError) as half:
        requests.embed(["a", "\ud800"])

    assert half.value.field == "texts.1"
