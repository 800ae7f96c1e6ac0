"""Cohere's dialect: `/v1/embed` and `/v2/embed`, as its SDKs call them."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import ModelName, PromptType, RequestBody, Texts, Truncate
from emberd.api.openapi import EMBEDDING, CohereError, ResponseBody, fails, gives, takes
from emberd.api.routes import Router
from emberd.dtypes import Dtype
from emberd.errors import BadOptionError
from emberd.pool.job import Answer
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface
from emberd.worker.wire import BETWEEN, Encoding

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
AS: Mapping[EmbeddingType, tuple[Encoding, Dtype]] = {
    "float": ("json", "float"),
    "int8": ("json", "int8"),
    "uint8": ("json", "uint8"),
    "binary": ("json", "binary"),
    "ubinary": ("json", "ubinary"),
    "base64": ("base64", "float"),
}


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
    embedding_types: list[EmbeddingType] = Field(
        default_factory=list,
        description="Several give the same vectors in each; base64 is of little-endian float32.",
    )
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
    """Vectors by type; only those that were requested are present."""

    floats: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = Field(None, description="Signs: int8, ubinary - 128.")
    ubinary: list[list[int]] | None = Field(None, description="Signs: 8 numbers in each byte.")
    base64: list[str] | None = None


class CohereEmbeddings(ResponseBody):
    """What Cohere's routes answer; v1 without `embedding_types` gives bare lists of numbers."""

    id: str
    texts: list[str]
    embeddings: CohereTypes | list[list[float]]
    meta: CohereMeta
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


def create_router(pool: PoolSurface) -> Router:
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


async def _embed(
    request: Request, pool: PoolSurface, asked: CohereEmbedBody, version: str
) -> Response:
    types: list[EmbeddingType] = list(dict.fromkeys(asked.embedding_types)) or ["float"]
    (encoding, dtype), *also = (AS[kind] for kind in types)
    answer = await exchange.embed(
        request,
        pool,
        EmbedRequest(
            texts=asked.texts,
            model=asked.model,
            input_type=asked.input_type,
            dimensions=asked.output_dimension,
            truncate=asked.truncate,
            encoding=encoding,
            dtype=dtype,
            also=also,
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
    vectors = answers.as_array(answer) if is_bare else _by_type(answer, types)
    closing = b"," + orjson.dumps(rest)[1:]
    return answers.respond(answer, b"".join((b'{"embeddings":', vectors, closing)))


def _by_type(answer: Answer, types: list[EmbeddingType]) -> bytes:
    """Return a JSON object of lists: each text's fragment has its vector in all of the types."""
    if len(types) == 1:
        return b'{"%b":%b}' % (types[0].encode(), answers.as_array(answer))
    lists = zip(*(fragment.split(BETWEEN) for fragment in answer.fragments), strict=True)
    named = (
        b'"%b":[%b]' % (kind.encode(), b",".join(each))
        for kind, each in zip(types, lists, strict=True)
    )
    return b"{" + b",".join(named) + b"}"


_EMBED: dict[str, Any] = {
    "openapi_extra": takes(
        CohereEmbedBody,
        {"model": "minilm", "texts": ["first", "second"], "input_type": "search_document"},
        {"model": "minilm", "texts": ["a question"], "embedding_types": ["float", "int8"]},
        embeds=True,
    ),
    "responses": gives(CohereEmbeddings, "One vector for each text, in order.", embeds=True)
    | fails(CohereError, EMBEDDING),
}
