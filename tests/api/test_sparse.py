"""Sparse vectors over HTTP: TEI's `/embed_sparse`, and `/embed` with a sparse model."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from emberd.vectors import Matrix
from tests.serving import Server
from tests.sparse_models import CONFIG, FAR, dense, reference

TEXTS: list[str] = reference("bert")["texts"]
ENTRIES = 149


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


def as_tei(server: Server, **body: object) -> Matrix:
    """Ask TEI's route; return the vectors with their zeros."""
    answer = server.http.post("/embed_sparse", json={"inputs": TEXTS, **body})
    assert answer.status_code == 200, answer.text
    assert len(answer.headers["x-emberd-fingerprint"]) == 16
    rows = answer.json()
    assert all({*entry} == {"index", "value"} for row in rows for entry in row)
    objects = [
        {"indices": [one["index"] for one in row], "values": [one["value"] for one in row]}
        for row in rows
    ]
    assert all(row["indices"] == sorted({*row["indices"]}) for row in objects)
    assert all(value > 0 for row in objects for value in row["values"])
    return dense(objects, 171)


def natively(server: Server, **body: object) -> Any:  # noqa: ANN401 - any JSON
    answer = server.http.post("/embed", json={"texts": TEXTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def expected(name: str, side: str = "documents") -> Matrix:
    return dense(reference(name)[side], 171)


def test_teis_route_answers_with_pairs(sparse: Server) -> None:
    assert as_tei(sparse) == pytest.approx(expected("bert"), abs=FAR)
    one = sparse.http.post("/embed_sparse", json={"inputs": TEXTS[0], "truncate": False}).json()
    assert len(one) == 1
    assert len(one[0]) == (expected("bert")[0] > 0).sum()


def test_the_native_route_answers_with_indices_and_values(sparse: Server) -> None:
    said = natively(sparse, model="tiny")

    assert {*said} == {"sparse", "dimensions", "model", "fingerprint", "truncated", "usage"}
    assert dense(said["sparse"], 171) == pytest.approx(expected("bert"), abs=FAR)
    assert (said["dimensions"], said["model"], said["truncated"]) == (ENTRIES, "tiny", [5])
    assert said["usage"]["tokens"] > len(TEXTS)
    assert natively(sparse, kind="sparse") == said
    assert natively(sparse, kind="sparse", fingerprint=said["fingerprint"]) == said


def test_values_are_the_shortest_decimals(sparse: Server) -> None:
    body = sparse.http.post("/embed_sparse", json={"inputs": TEXTS[:1]}).text
    values = [part.split("}")[0] for part in body.split('"value":')[1:]]
    assert max(map(len, values)) <= 12


def test_another_space_is_refused(sparse: Server) -> None:
    wrong = {"texts": TEXTS, "model": "tiny", "fingerprint": "0" * 16}
    assert sparse.http.post("/embed", json=wrong).status_code == 409
    headers = {"X-Emberd-Expect-Fingerprint": "0" * 16}
    answer = sparse.http.post("/embed_sparse", json={"inputs": TEXTS}, headers=headers)
    assert answer.status_code == 409
    assert {*answer.json()} == {"error", "error_type"}


def test_every_model_has_a_space_of_its_own(sparse: Server) -> None:
    spaces = [natively(sparse, model=name)["fingerprint"] for name in ("tiny", "routed", "m3")]
    assert len({*spaces}) == 3


def test_queries_are_looked_up(sparse: Server) -> None:
    documents, queries = expected("distilbert"), expected("distilbert", "queries")
    assert as_tei(sparse, model="routed") == pytest.approx(documents, abs=FAR)
    assert as_tei(sparse, model="routed", prompt_name="document") == pytest.approx(
        documents, abs=FAR
    )
    assert as_tei(sparse, model="routed", prompt_name="query") == pytest.approx(queries, abs=FAR)
    said = natively(sparse, model="routed:query")
    assert dense(said["sparse"], 171) == pytest.approx(queries, abs=FAR)
    assert said["truncated"] == [5]
    assert said["sparse"][3] == {"indices": [], "values": []}  # an empty text


def test_many_queries_at_once(sparse: Server) -> None:
    texts = [TEXTS[index % 5] for index in range(700)]
    said = natively(sparse, texts=texts, model="routed:query")
    assert len(said["sparse"]) == 700
    assert said["sparse"][5:10] == said["sparse"][695:]


def test_a_query_that_is_cut_is_refused_if_asked_for(sparse: Server) -> None:
    body = {"inputs": TEXTS, "model": "routed", "truncate": False}
    for extra in ({}, {"prompt_name": "query"}):
        answer = sparse.http.post("/embed_sparse", json=body | extra)
        assert answer.status_code == 422, answer.text
        assert "Text 5 has" in answer.json()["error"]


def test_weights_of_tokens(sparse: Server) -> None:
    assert as_tei(sparse, model="m3") == pytest.approx(expected("bge-m3"), abs=FAR)
    said = natively(sparse, model="m3")
    assert said["sparse"][3] == {
        "indices": [],
        "values": [],
    }  # special tokens are left out


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": TEXTS, "model": "tiny"}),
        ("/", {"inputs": TEXTS, "model": "tiny"}),
        ("/v1/embeddings", {"input": TEXTS, "model": "tiny"}),
        ("/api/embed", {"input": TEXTS, "model": "tiny"}),
        ("/v2/embed", {"texts": TEXTS, "model": "tiny", "input_type": "search_query"}),
        ("/embed", {"texts": TEXTS, "model": "tiny", "kind": "embed"}),
    ],
)
def test_dense_routes_refuse_a_sparse_model(
    sparse: Server, path: str, body: dict[str, Any]
) -> None:
    answer = sparse.http.post(path, json=body)
    assert answer.status_code == 400
    assert "tiny makes sparse vectors of texts; needed is a model that embeds texts" in answer.text
    assert "minilm" in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed_sparse", {"inputs": TEXTS, "model": "minilm"}),
        ("/embed", {"texts": TEXTS, "model": "minilm", "kind": "sparse"}),
    ],
)
def test_a_dense_model_is_refused(sparse: Server, path: str, body: dict[str, Any]) -> None:
    answer = sparse.http.post(path, json=body)
    assert answer.status_code == 400
    assert "minilm embeds texts; needed is a model that makes sparse vectors" in answer.text
    assert "granite-sparse" in answer.text


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ({"encoding": "base64"}, {}, "only one form: JSON"),
        ({}, {"Accept": "application/octet-stream"}, "only one form: JSON"),
        ({}, {"Accept": "application/x-npy"}, "only one form: JSON"),
        ({"dimensions": 64}, {}, "no vectors of 64 dimensions"),
    ],
)
def test_other_forms_are_refused(
    sparse: Server, body: dict[str, Any], headers: dict[str, str], said: str
) -> None:
    asked = {"texts": TEXTS, "model": "tiny", **body}
    answer = sparse.http.post("/embed", json=asked, headers=headers)
    assert answer.status_code == 400
    assert said in answer.text


def test_tokens_say_what_an_index_is(sparse: Server) -> None:
    said = natively(sparse, texts=[TEXTS[2]], model="routed:query")["sparse"][0]
    asked = {"inputs": [TEXTS[2]], "model": "routed", "add_special_tokens": False}
    (tokens,) = sparse.http.post("/tokenize", json=asked).json()
    assert {*said["indices"]} <= {token["id"] for token in tokens}


def test_what_models_says(sparse: Server) -> None:
    rows = {row["name"]: row for row in sparse.http.get("/models").json()["models"]}
    assert (rows["tiny"]["kind"], rows["minilm"]["kind"]) == ("sparse", "embed")
    assert rows["tiny"]["pooling"] == "max"
    document = json.dumps(sparse.http.get("/openapi.json").json())
    assert "SparseVector" in document
