"""Cohere's routes, with raw requests; Cohere's own SDK is tested in tests/clients."""

import base64
import uuid

import httpx2
import numpy as np
import pytest

from tests.api.dialects import WAYS
from tests.serving import Server

EACH = pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])


@EACH
def test_an_answer_has_what_its_clients_read(server: Server, path: str) -> None:
    body = {"texts": ["hello world", "b"], "input_type": "clustering"}

    said = server.http.post(path, json=body).json()

    assert uuid.UUID(said["id"]).version == 4
    assert said["texts"] == ["hello world", "b"]
    assert said["meta"] == {
        "api_version": {"version": path[2]},
        "billed_units": {"input_tokens": 4 + 3},
    }
    bare = path == "/v1/embed"
    assert said["response_type"] == ("embeddings_floats" if bare else "embeddings_by_type")
    assert isinstance(said["embeddings"], list if bare else dict)


@EACH
def test_texts_that_were_cut_are_named_in_a_warning(server: Server, path: str) -> None:
    answer = server.http.post(path, json={"texts": ["a", "b " * 600], "truncate": "END"}).json()

    [warning] = answer["meta"]["warnings"]
    assert "minilm" in warning
    assert warning.endswith("cut: 1.")


@EACH
def test_several_types_are_one_vector_each_under_its_key(server: Server, path: str) -> None:
    kinds = ["int8", "base64", "ubinary", "float", "binary", "uint8", "float"]
    body = {"texts": ["a", "", "第三"], "embedding_types": kinds}

    response = server.http.post(path, json=body)
    alone = {
        kind: server.http.post(path, json={**body, "embedding_types": [kind]}) for kind in kinds
    }

    found = response.json()["embeddings"]
    assert set(found) == set(kinds)
    for kind, answer in alone.items():
        assert answer.json()["embeddings"] == {kind: found[kind]}
    packed = [np.frombuffer(base64.b64decode(row), "<f4") for row in found["base64"]]
    assert (np.array(packed) == np.array(found["float"], np.float32)).all()
    signs = np.packbits(np.array(found["float"]) > 0, axis=1)
    assert (signs == np.array(found["ubinary"])).all()
    assert (signs.astype(int) - 128 == np.array(found["binary"])).all()
    assert (np.array(found["int8"]) + 128 == np.array(found["uint8"])).all()


def test_several_types_are_as_many_spaces(server: Server) -> None:
    def ask(kinds: list[str], **headers: str) -> httpx2.Response:
        body = {"texts": ["a"], "embedding_types": kinds}
        return server.http.post("/v2/embed", json=body, headers=headers)

    names = [ask([kind]).headers["x-emberd-fingerprint"] for kind in ("float", "int8", "binary")]
    both = ask(["int8", "base64", "float"])

    assert len({*names}) == 3
    assert both.headers["x-emberd-fingerprint"] == f"{names[1]}, {names[0]}"
    for expected, status in zip(names, (200, 200, 409), strict=True):
        headers = {"x-emberd-expect-fingerprint": expected}
        assert ask(["int8", "float"], **headers).status_code == status


@EACH
@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"embedding_types": ["int4"]}, 400, "embedding_types.0: should be 'float', 'int8', "),
        ({"embedding_types": ["float", "float16"]}, 400, "embedding_types.1: should be 'float'"),
        ({"embedding_types": "float"}, 422, "embedding_types: should be a valid list"),
        ({"images": ["data:image/png;base64,AAAA"]}, 400, "embeds only texts"),
        ({"inputs": [{"content": []}]}, 400, "embeds only texts"),
        ({"max_tokens": 7}, 400, "embeds only texts"),
        ({"truncate": "START"}, 400, "truncate: "),
    ],
)
def test_what_is_not_offered_is_refused(
    server: Server, path: str, options: dict[str, object], status: int, words: str
) -> None:
    answer = server.http.post(path, json={"texts": ["a"], **options})

    assert answer.status_code == status
    assert words in WAYS["Cohere"].message(answer.json())


@EACH
def test_images_alone_are_refused_as_such(server: Server, path: str) -> None:
    answer = server.http.post(path, json={"images": ["data:,"], "input_type": "search_document"})

    assert answer.status_code == 400
    assert "only texts" in answer.json()["message"]


def test_null_for_all_that_its_sdk_may_send(server: Server) -> None:
    body = dict.fromkeys(
        ("images", "inputs", "max_tokens", "output_dimension", "embedding_types", "truncate")
    )

    assert server.http.post("/v2/embed", json={"texts": ["a"], **body}).status_code == 200
