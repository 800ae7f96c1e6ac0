"""Cohere's dialect: `/v1/embed` and `/v2/embed`, as its SDKs call them.

Only float32 vectors, as numbers or base64: smaller types are refused, not faked.
"""

import uuid
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import ModelName, PromptType, RequestBody, Texts, Truncate
from emberd.api.openapi import EMBEDDING, CohereError, ResponseBody, fails, gives, takes
from emberd.api.routes import Router
from emberd.errors import BadOptionError
from emberd.pool.manager import EmbedRequest, Pool

EmbeddingType = Literal["float", "base64"]
UNSUPPORTED = {"int8", "uint8", "binary", "ubinary"}


def _refuse_smaller_types(given: object) -> object:
    """Refuse Cohere's quantized types by name."""
    for kind in given if isinstance(given, list) else ():
        if isinstance(kind, str) and kind in UNSUPPORTED:
            raise BadOptionError(
                f"embedding_types: {kind} is not supported; only float and base64 are.",
                hint="Use float, which is the default, and quantize the vectors yourself.",
                field="embedding_types",
            )
    return given


def _just_one(given: list[EmbeddingType]) -> list[EmbeddingType]:
    if len(set(given)) > 1:
        raise BadOptionError(
            "embedding_types: float and base64 are the same vectors, so only one can be requested.",
            hint="Choose one of them.",
            field="embedding_types",
        )
    return given


def _texts_only(given: object) -> object:
    raise BadOptionError(
        "images, inputs, max_tokens: this server embeds only texts, up to the model's limit.",
        hint="Send texts, and leave these fields out.",
    )


Unsupported = Annotated[None, BeforeValidator(_texts_only), WithJsonSchema({"type": "null"})]


class CohereEmbedBody(RequestBody):
    """What `POST /v1/embed` and `POST /v2/embed` take."""

    texts: Texts = Field(description="The texts to embed, in order.")
    model: ModelName = None
    input_type: PromptType = Field(None, description="Which of the model's prompts to use.")
    embedding_types: Annotated[
        list[EmbeddingType], BeforeValidator(_refuse_smaller_types), AfterValidator(_just_one)
    ] = Field(default_factory=list, description="float, or base64 of little-endian float32.")
    output_dimension: int | None = Field(
        None,
        validation_alias=AliasChoices("output_dimension", "dimensions"),
        description="A smaller size the model was trained for.",
    )
    truncate: Truncate = Field(True, description="END or NONE.")
    images: Unsupported = Field(None, description="Refused.")
    inputs: Unsupported = Field(None, description="Refused.")
    max_tokens: Unsupported = Field(None, description="Refused.")


class CohereVersion(ResponseBody):
    """Which of the two API versions answered."""

    version: str


class CohereUnits(ResponseBody):
    """The tokens that the model processed."""

    input_tokens: int


class CohereMeta(ResponseBody):
    """Metadata of an answer; `warnings` names the texts that were cut."""

    api_version: CohereVersion
    billed_units: CohereUnits
    warnings: list[str] | None = None


class CohereTypes(ResponseBody):
    """Vectors by type; only the requested one is present."""

    floats: list[list[float]] | None = Field(None, alias="float")
    base64: list[str] | None = None


class CohereEmbeddings(ResponseBody):
    """What Cohere's routes answer; v1 without `embedding_types` gives bare lists of numbers."""

    id: str
    texts: list[str]
    embeddings: CohereTypes | list[list[float]]
    meta: CohereMeta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


def create_router(pool: Pool) -> Router:
    """Return Cohere's routes over one pool."""
    router = Router(tags=["Cohere"])

    @router.post("/v1/embed", **_EMBED)
    async def first(request: Request) -> Response:
        """Turn texts into vectors (Cohere's API v1)."""
        asked = await body.read(request, CohereEmbedBody, pool.limits.max_body)
        return await _embed(request, pool, asked, version="1")

    @router.post("/v2/embed", **_EMBED)
    async def second(request: Request) -> Response:
        """Turn texts into vectors (Cohere's API v2)."""
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
        meta["warnings"] = [f"These texts were too long for {answer.model} and were cut: {cut}."]
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
