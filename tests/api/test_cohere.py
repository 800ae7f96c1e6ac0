"""Cohere's routes, with raw requests; Cohere's own SDK is tested in tests/clients."""

import uuid

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
@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_smaller_types_are_refused_by_name(server: Server, path: str, kind: str) -> None:
    for kinds in ([kind], ["float", kind]):
        answer = server.http.post(path, json={"texts": ["a"], "embedding_types": kinds})
        assert answer.status_code == 400
        assert f"embedding_types: {kind} " in answer.json()["message"]


@EACH
@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"embedding_types": ["float", "base64"]}, 400, "only one"),
        ({"embedding_types": ["float16"]}, 400, "embedding_types.0: should be 'float' or 'base64'"),
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
