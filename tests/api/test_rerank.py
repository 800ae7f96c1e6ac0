"""Re-ranking over HTTP, in the shapes of Jina, Cohere, TEI and infinity."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.rerankers import CONFIG, LOGITS, LONG, ORDER, QUERY, TEXTS, sigmoid
from tests.serving import Server


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


def post(server: Server, path: str, **body: object) -> Any:  # noqa: ANN401 - any JSON
    answer = server.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-emberd-model"] == "tiny"
    assert answer.headers["x-emberd-truncated"] == str(LONG)
    return answer.json()


def test_jinas_route_sorts_by_logit_and_reports_its_sigmoid(reranker: Server) -> None:
    said = post(reranker, "/v1/rerank", query=QUERY, documents=TEXTS)

    assert [each["index"] for each in said["results"]] == ORDER
    scores = [each["relevance_score"] for each in said["results"]]
    assert scores == pytest.approx([sigmoid(LOGITS[index]) for index in ORDER], abs=1e-4)
    assert [each["document"] for each in said["results"]] == [
        {"text": TEXTS[index]} for index in ORDER
    ]
    assert said["model"] == "tiny"
    assert said["truncated"] == [LONG]
    assert said["usage"]["total_tokens"] > len(TEXTS)
    assert said["usage"]["prompt_tokens"] == said["usage"]["total_tokens"]


def test_raw_scores_are_logits(reranker: Server) -> None:
    said = post(reranker, "/v1/rerank", query=QUERY, documents=TEXTS, raw_scores=True)

    scores = {each["index"]: each["relevance_score"] for each in said["results"]}
    assert [scores[index] for index in range(len(TEXTS))] == pytest.approx(LOGITS, abs=1e-4)


def test_the_best_few_without_their_texts(reranker: Server) -> None:
    objects = [{"text": text, "title": "unused"} for text in TEXTS]
    said = post(
        reranker, "/v1/rerank", query=QUERY, documents=objects, top_n=2, return_documents=False
    )

    assert [each["index"] for each in said["results"]] == ORDER[:2]
    assert all("document" not in each for each in said["results"])


def test_what_open_webui_sends_and_reads(reranker: Server) -> None:
    """As in open-webui/open-webui, backend/open_webui/retrieval/models/external.py.

    It wants a score for each document, in the order of the request.
    """
    said = reranker.http.post(
        "/v1/rerank",
        headers={"Authorization": "Bearer any", "X-OpenWebUI-User-Name": "Ada"},
        json={"model": "tiny", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)},
    ).json()

    results = sorted(said["results"], key=lambda result: result["index"])
    scores = [result["relevance_score"] for result in results]
    assert scores == pytest.approx([sigmoid(logit) for logit in LOGITS], abs=1e-4)


def test_coheres_route(reranker: Server) -> None:
    said = post(reranker, "/v2/rerank", query=QUERY, documents=TEXTS, top_n=3, model="tiny")

    assert uuid.UUID(said["id"]).version == 4
    assert [each["index"] for each in said["results"]] == ORDER[:3]
    assert said["results"][0]["relevance_score"] == pytest.approx(sigmoid(max(LOGITS)), abs=1e-4)
    assert str(LONG) in said["meta"]["warnings"][0]


def test_documents_cut_as_the_request_says(reranker: Server) -> None:
    texts = ["it glows while there is air", "it glows while there is water"]
    body = {"query": "ok", "documents": texts, "max_tokens_per_doc": 2}
    said = reranker.http.post("/v2/rerank", json=body).json()

    first, second = said["results"]
    assert first["relevance_score"] == second["relevance_score"]
    assert "0, 1" in said["meta"]["warnings"][0]


def test_teis_route_gives_a_bare_list(reranker: Server) -> None:
    said = post(reranker, "/rerank", query=QUERY, texts=TEXTS, return_text=True, raw_scores=True)

    assert [each["index"] for each in said] == ORDER
    assert [each["text"] for each in said] == [TEXTS[index] for index in ORDER]
    assert [each["score"] for each in said] == pytest.approx(sorted(LOGITS)[::-1], abs=1e-4)


def test_infinitys_route_gives_documents_as_text(reranker: Server) -> None:
    bare = post(reranker, "/rerank", query=QUERY, documents=TEXTS)
    said = post(reranker, "/rerank", query=QUERY, documents=TEXTS, return_documents=True, top_n=1)

    assert bare["object"] == "rerank"
    assert all("document" not in each for each in bare["results"])
    [best] = said["results"]
    assert best["document"] == TEXTS[ORDER[0]]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/rerank", {"query": "q", "documents": []}, 400, "No texts"),
        ("/v1/rerank", {"query": "q"}, 422, "documents"),
        ("/v1/rerank", {"documents": ["a"]}, 422, "query"),
        ("/v1/rerank", {"query": "q", "documents": ["a", 3]}, 422, "documents"),
        ("/v1/rerank", {"query": "q", "documents": [{"title": "a"}]}, 422, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, 422, "top_n"),
        ("/v1/rerank", {"query": "", "documents": [], "rank_fields": ["b"]}, 400, "rank_fields"),
        ("/v2/rerank", {"query": "", "documents": [], "rank_fields": ["b"]}, 400, "rank_fields"),
        ("/v1/rerank", {"query": "q " * 60, "documents": ["a"]}, 422, "The query has 60 tokens"),
        ("/v1/rerank", {"query": QUERY, "documents": TEXTS, "truncation": False}, 422, "tokens"),
        ("/rerank", {"query": "q", "texts": ["a"], "documents": ["a"]}, 422, "has both"),
        ("/v2/rerank", {"query": "q", "documents": ["a"], "model": "nobody"}, 404, "nobody"),
    ],
)
def test_bad_input(
    reranker: Server, path: str, body: dict[str, object], status: int, said: str
) -> None:
    answer = reranker.http.post(path, json=body)

    assert answer.status_code == status, answer.text
    assert said in answer.text


@pytest.mark.parametrize(
    ("path", "texts", "options"),
    [
        (
            "/v1/rerank",
            "documents",
            ("model", "top_n", "return_documents", "raw_scores", "truncation"),
        ),
        ("/v2/rerank", "documents", ("model", "top_n", "max_tokens_per_doc")),
        ("/rerank", "documents", ("model", "top_n", "return_documents", "raw_scores")),
        ("/rerank", "texts", ("model", "raw_scores", "return_text", "truncate")),
    ],
)
def test_null_is_as_good_as_leaving_an_option_out(
    reranker: Server, path: str, texts: str, options: tuple[str, ...]
) -> None:
    post(reranker, path, **{"query": QUERY, texts: TEXTS, **dict.fromkeys(options)})


def test_errors_have_the_shape_of_their_dialect(reranker: Server) -> None:
    wrong = {"query": "q", "model": "nobody"}
    jina, cohere, infinity = (
        reranker.http.post(path, json={**wrong, "documents": ["a"]}).json()
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    )
    tei = reranker.http.post("/rerank", json={**wrong, "texts": ["a"]}).json()

    assert jina["code"] == infinity["code"] == "unknown_model"
    assert "nobody" in jina["detail"]
    assert "nobody" in cohere["message"]
    assert "nobody" in tei["error"]
    assert tei["error_type"] == "Validation"


def test_each_kind_of_model_on_the_other_route_names_one_that_fits(reranker: Server) -> None:
    rerank = {"query": "q", "documents": ["a"], "model": "minilm"}
    embed = {"texts": ["a"], "model": "tiny"}
    for path, body, fits in (("/v1/rerank", rerank, "tiny"), ("/embed", embed, "minilm")):
        answer = reranker.http.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["code"] == "wrong_kind"
        assert fits in answer.json()["hint"]


def test_a_query_too_long_costs_only_its_own_request(reranker: Server) -> None:
    def ask(query: str) -> int:
        body = {"query": query, "documents": TEXTS}
        return reranker.http.post("/v1/rerank", json=body).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(ask, [QUERY, "glow " * 90] * 8))
    assert statuses == [200, 422] * 8
