"""Re-ranking in the dialects of Jina (`/v1/rerank`), Cohere, TEI and infinity.

A model of kind `rerank` gives each text a logit for the query. Results are sorted by it, and report
its sigmoid, or with `raw_scores` the logit itself. Never a softmax, which over one logit is 1.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.errors import SPOKEN
from emberd.api.fields import RequestBody, StrictTexts, Truncate
from emberd.api.openapi import (
    EMBEDDING,
    CohereError,
    NativeError,
    ResponseBody,
    TEIError,
    fails,
    gives,
    schema,
    takes,
)
from emberd.api.routes import Router
from emberd.errors import WrongShapeError
from emberd.pool.job import Answer
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface
from emberd.ranking import rank
from emberd.units import format_places


def _as_texts(given: object) -> object:
    """Read documents that are objects with a `text`, as in Jina's and Cohere's first API."""
    if not isinstance(given, list):
        return given
    return [each.get("text") if isinstance(each, dict) else each for each in given]


Documents = Annotated[
    StrictTexts,
    BeforeValidator(_as_texts),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "properties": {"text": {"type": "string"}},
                        "required": ["text"],
                    },
                ]
            },
        }
    ),
]
Reranker = Annotated[
    str | None, Field(description="Name or alias of a re-ranker; null: `default_reranker`.")
]
TopN = Annotated[int | None, Field(ge=1, description="How many to return; null: all.")]
RankFields = Annotated[  # of Cohere's first API; to ignore another would rank by the wrong text
    list[Literal["text"]] | None,
    Field(description="Fields of documents to read; only `text` is read."),
]


class RerankBody(RequestBody):
    """What `POST /v1/rerank` takes, and `POST /rerank` when it has `documents`."""

    query: str
    documents: Documents = Field(description="The texts to sort: strings, or objects with `text`.")
    model: Reranker = None
    top_n: TopN = None
    return_documents: bool | None = Field(
        None, description="Repeat each text; null: yes on /v1/rerank, no on /rerank."
    )
    rank_fields: RankFields = None
    raw_scores: bool = Field(False, description="Report logits instead of their sigmoid.")
    truncate: Truncate = Field(
        True,
        validation_alias="truncation",
        description="Cut texts that are too long (never the query); false refuses them.",
    )


class CohereRerankBody(RequestBody):
    """What `POST /v2/rerank` takes."""

    query: str
    documents: Documents
    model: Reranker = None
    top_n: TopN = None
    rank_fields: RankFields = None  # not in Cohere's second API, but LiteLLM sends it there
    max_tokens_per_doc: int | None = Field(None, ge=1, description="Cut texts after so many.")


class TEIRerankBody(RequestBody):
    """What `POST /rerank` takes when it has `texts`."""

    query: str
    texts: StrictTexts
    model: Reranker = None  # not in TEI
    raw_scores: bool = False
    return_text: bool = False
    truncate: Truncate = True


class RerankDocument(ResponseBody):
    """The text of a result."""

    text: str


class RerankResult(ResponseBody):
    """A text's place in the request, and its score."""

    index: int
    relevance_score: float
    document: RerankDocument | str | None = None


class RerankUsage(ResponseBody):
    """The tokens that the model processed: of the query once for each text, after cutting."""

    prompt_tokens: int
    total_tokens: int


class Reranked(ResponseBody):
    """What `POST /v1/rerank` answers; `truncated` are the texts that were cut."""

    object: Literal["rerank"]
    id: str
    model: str
    results: list[RerankResult]
    truncated: list[int]
    usage: RerankUsage


class CohereReranked(ResponseBody):
    """What `POST /v2/rerank` answers; `meta.warnings` names the texts that were cut."""

    id: str
    results: list[RerankResult]
    meta: dict[str, Any]


class TEIRank(ResponseBody):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: str | None = None


TEI_RANKS = {"type": "array", "items": schema(TEIRank)}


def create_router(pool: PoolSurface) -> Router:
    """Return the re-ranking routes over one pool."""
    router = Router(tags=["Re-ranking"])

    @router.post(
        "/v1/rerank",
        openapi_extra=takes(RerankBody, _EXAMPLE, {**_EXAMPLE, "top_n": 1}, embeds=True),
        responses=gives(Reranked, "The texts, the most relevant first.", embeds=True)
        | fails(NativeError, EMBEDDING),
    )
    async def jina(request: Request) -> Response:
        """Sort texts by their relevance to a query, as Jina's API does."""
        asked = await body.read(request, RerankBody, pool.limits.max_body)
        with_texts = asked.return_documents is not False
        return await _rerank(request, pool, asked, lambda text: {"text": text}, with_texts)

    @router.post(
        "/rerank",
        openapi_extra=takes(
            (RerankBody, TEIRerankBody),
            _EXAMPLE,
            {"query": _EXAMPLE["query"], "texts": _EXAMPLE["documents"]},
            embeds=True,
        ),
        responses=gives((Reranked, TEI_RANKS), "The most relevant text first.", embeds=True)
        | fails((NativeError, TEIError), EMBEDDING),
    )
    async def infinity(request: Request) -> Response:
        """Sort texts: `documents` as infinity takes them, `texts` as text-embeddings-inference."""
        data = await body.read_json(request, pool.limits.max_body)
        if isinstance(data, dict) and "texts" in data:
            if "documents" in data:
                raise WrongShapeError(
                    "texts, documents: the request has both.",
                    hint="Send documents, or texts if the client speaks text-embeddings-inference.",
                    field="documents",
                )
            return await _tei(request, pool, data)
        asked = body.validate(data, RerankBody)
        return await _rerank(request, pool, asked, str, asked.return_documents is True)

    @router.post(
        "/v2/rerank",
        openapi_extra=takes(CohereRerankBody, _EXAMPLE, {**_EXAMPLE, "top_n": 1}, embeds=True),
        responses=gives(CohereReranked, "The texts, the most relevant first.", embeds=True)
        | fails(CohereError, EMBEDDING),
    )
    async def cohere(request: Request) -> Response:
        """Sort texts by their relevance to a query, as Cohere's API does."""
        asked = await body.read(request, CohereRerankBody, pool.limits.max_body)
        most = asked.max_tokens_per_doc
        texts = asked.documents
        answer = await _scores(request, pool, asked.query, texts, asked.model, most=most)
        meta: dict[str, Any] = {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": answer.tokens},
        }
        if answer.truncated:
            cut = ", ".join(map(str, answer.truncated))
            meta["warnings"] = [f"These documents were too long for {answer.model}: {cut}."]
        results = [
            {"index": each.index, "relevance_score": each.score}
            for each in rank(answer.fragments)[: asked.top_n]
        ]
        return _respond(answer, {"id": str(uuid.uuid4()), "results": results, "meta": meta})

    return router


async def _rerank(
    request: Request,
    pool: PoolSurface,
    asked: RerankBody,
    as_document: Callable[[str], object],
    with_texts: bool,
) -> Response:
    """Answer in Jina's or infinity's shape, which differ in how a document is given back."""
    texts, cuts = asked.documents, asked.truncate
    answer = await _scores(request, pool, asked.query, texts, asked.model, truncate=cuts)
    results = [
        {"index": each.index, "relevance_score": each.logit if asked.raw_scores else each.score}
        | ({"document": as_document(texts[each.index])} if with_texts else {})
        for each in rank(answer.fragments)[: asked.top_n]
    ]
    said = {
        "object": "rerank",
        "id": str(uuid.uuid4()),
        "model": answer.model,
        "results": results,
        "truncated": answer.truncated,
        "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
    }
    return _respond(answer, said)


async def _tei(request: Request, pool: PoolSurface, data: object) -> Response:
    """Answer in TEI's dialect, including its errors."""
    request.scope["state"][SPOKEN] = "tei"
    asked = body.validate(data, TEIRerankBody)
    texts, cuts = asked.texts, asked.truncate
    answer = await _scores(request, pool, asked.query, texts, asked.model, truncate=cuts)
    ranks = [
        {"index": each.index, "score": each.logit if asked.raw_scores else each.score}
        | ({"text": texts[each.index]} if asked.return_text else {})
        for each in rank(answer.fragments)
    ]
    return _respond(answer, ranks)


async def _scores(
    request: Request,
    pool: PoolSurface,
    query: str,
    texts: Sequence[str],
    model: str | None,
    *,
    truncate: bool = True,
    most: int | None = None,
) -> Answer:
    """Return an answer with the logit of each text, as four bytes."""
    asked = EmbedRequest(
        texts=texts,
        query=query,
        model=model,
        truncate=truncate,
        encoding="raw",
        text_tokens=most,
    )
    return await exchange.embed(request, pool, asked)


def _respond(answer: Answer, said: object) -> Response:
    response = answers.respond(answer, orjson.dumps(said))
    response.headers["X-Emberd-Truncated"] = format_places(sorted(answer.truncated))
    return response


_EXAMPLE: dict[str, Any] = {
    "query": "when does the ferry leave?",
    "documents": ["The ferry leaves at seven.", "Tickets are sold on board."],
}
