"""Cohere's dialect: `/v1/embed` and `/v2/embed`, as its SDKs call them.

Vectors of float32 only, as numbers or base64: what is smaller is refused, not faked.
"""

import uuid
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import PromptType, RequestBody, Texts, Truncate
from emberd.api.openapi import EMBEDDING, CohereError, ResponseBody, fails, gives, takes
from emberd.errors import BadOptionError
from emberd.pool.manager import EmbedRequest, Pool

EmbeddingType = Literal["float", "base64"]
NOT_HERE = {"int8", "uint8", "binary", "ubinary"}


def _one_that_is_here(given: object) -> object:
    """Refuse Cohere's smaller types by name."""
    for kind in given if isinstance(given, list) else ():
        if isinstance(kind, str) and kind in NOT_HERE:
            raise BadOptionError(
                f"embedding_types: {kind} is not offered here, only float and base64.",
                hint="Ask for float, which is also the default, and quantize the vectors yourself.",
                field="embedding_types",
            )
    return given


def _just_one(given: list[EmbeddingType]) -> list[EmbeddingType]:
    if len(set(given)) > 1:
        raise BadOptionError(
            "embedding_types: float and base64 are the same vectors; only one is given at a time.",
            hint="Ask for one of them.",
            field="embedding_types",
        )
    return given


def _texts_only(given: object) -> object:
    raise BadOptionError(
        "images, inputs, max_tokens: only texts are embedded here, cut where the model ends.",
        hint="Send texts, and leave these fields out.",
    )


Never = Annotated[None, BeforeValidator(_texts_only), WithJsonSchema({"type": "null"})]


class CohereEmbedBody(RequestBody):
    """What `POST /v1/embed` and `POST /v2/embed` take."""

    texts: Texts = Field(description="What to embed, in order.")
    model: str | None = Field(None, description="Registry name or alias; the default without it.")
    input_type: PromptType = Field(None, description="Which of the model's prompts to use.")
    embedding_types: Annotated[
        list[EmbeddingType], BeforeValidator(_one_that_is_here), AfterValidator(_just_one)
    ] = Field(default_factory=list, description="float, or base64 of little-endian float32.")
    output_dimension: int | None = Field(
        None,
        validation_alias=AliasChoices("output_dimension", "dimensions"),
        description="A smaller size the model was trained for.",
    )
    truncate: Truncate = Field(True, description="END or NONE.")
    images: Never = Field(None, description="Refused.")
    inputs: Never = Field(None, description="Refused.")
    max_tokens: Never = Field(None, description="Refused.")


class CohereVersion(ResponseBody):
    """Which of the two routes it was."""

    version: str


class CohereUnits(ResponseBody):
    """What the model was fed."""

    input_tokens: int


class CohereMeta(ResponseBody):
    """About an answer; `warnings` says which texts were cut."""

    api_version: CohereVersion
    billed_units: CohereUnits
    warnings: list[str] | None = None


class CohereTypes(ResponseBody):
    """Vectors by type; the one that was asked for is there."""

    floats: list[list[float]] | None = Field(None, alias="float")
    base64: list[str] | None = None


class CohereEmbeddings(ResponseBody):
    """What Cohere's routes answer; v1 without `embedding_types` has bare lists of numbers."""

    id: str
    texts: list[str]
    embeddings: CohereTypes | list[list[float]]
    meta: CohereMeta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


def create_router(pool: Pool) -> APIRouter:
    """Return Cohere's routes over one pool."""
    router = APIRouter(tags=["Cohere"])

    @router.post("/v1/embed", **_EMBED)
    async def first(request: Request) -> Response:
        """Turn texts into vectors, by Cohere's first API."""
        asked = await body.read(request, CohereEmbedBody, pool.limits.max_body)
        return await _embed(request, pool, asked, version="1")

    @router.post("/v2/embed", **_EMBED)
    async def second(request: Request) -> Response:
        """Turn texts into vectors, by Cohere's second API."""
        asked = await body.read(request, CohereEmbedBody, pool.limits.max_body)
        return await _embed(request, pool, asked, version="2")

    return router


async def _embed(request: Request, pool: Pool, asked: CohereEmbedBody, version: str) -> Response:
    kind: EmbeddingType = asked.embedding_types[0] if asked.embedding_types else "float"
    answer = await exchange.embed(
        request,
        pool,
        EmbedRequest(
            texts=asked.texts,
            model=asked.model,
            input_type=asked.input_type,
            dimensions=asked.output_dimension,
            truncate=asked.truncate,
            encoding="base64" if kind == "base64" else "json",
        ),
    )
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"input_tokens": answer.tokens},
    }
    if answer.truncated:
        cut = ", ".join(map(str, answer.truncated))
        meta["warnings"] = [f"These texts were too long for {answer.model} and cut: {cut}."]
    is_bare = version == "1" and not asked.embedding_types
    rest = {
        "id": str(uuid.uuid4()),
        "texts": asked.texts,
        "meta": meta,
        "response_type": "embeddings_floats" if is_bare else "embeddings_by_type",
    }
    vectors = answers.as_array(answer)
    if not is_bare:
        vectors = b'{"%b":%b}' % (kind.encode(), vectors)
    return answers.respond(answer, b'{"embeddings":' + vectors + b"," + orjson.dumps(rest)[1:])


_EMBED: dict[str, Any] = {
    "openapi_extra": takes(
        CohereEmbedBody,
        {"model": "minilm", "texts": ["first", "second"], "input_type": "search_document"},
        {"model": "minilm", "texts": ["a question"], "embedding_types": ["float"]},
        embeds=True,
    ),
    "responses": gives(CohereEmbeddings, "One vector for each text, in order.", embeds=True)
    | fails(CohereError, EMBEDDING),
}
