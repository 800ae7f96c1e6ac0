"""OpenAI's dialect, `/v1/embeddings` and `/v1/models`: also of Jina, Voyage and Mistral."""

from typing import Any, Literal

import orjson
from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import (
    OUTPUT_DTYPE,
    ModelName,
    PromptType,
    RequestBody,
    Texts,
    Truncate,
    lists_of_ids,
)
from emberd.api.openapi import (
    ACCESS,
    EMBEDDING,
    MODEL,
    OpenAIError,
    ResponseBody,
    fails,
    gives,
    takes,
)
from emberd.api.routes import Router
from emberd.dtypes import Dtype
from emberd.errors import BadOptionError
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface


class OpenAIEmbeddingsBody(RequestBody):
    """What `POST /v1/embeddings` takes; `user` and other fields of OpenAI are ignored."""

    input: Texts = Field(
        description="A text or a list of texts; token ids only if the entry sets `token_ids`."
    )
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers, or base64 of their little-endian bytes."
    )
    output_dtype: Dtype | None = Field(None, description=f"As in Voyage. {OUTPUT_DTYPE}")
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = Field(
        None, description="Jina's word for both of these."
    )
    dimensions: int | None = Field(
        None,
        validation_alias=AliasChoices("dimensions", "output_dimension"),  # Voyage's, Mistral's
        description="A smaller size the model was trained for.",
    )
    input_type: PromptType = Field(
        None,
        validation_alias=AliasChoices("input_type", "task"),  # Jina's
        description="Not in OpenAI: which of the model's prompts to use.",
    )
    truncate: Truncate = Field(
        True,
        validation_alias=AliasChoices("truncate", "truncation"),  # Voyage's
        description="Not in OpenAI: false refuses texts that are too long.",
    )

    @property
    def is_base64(self) -> bool:
        """Whether vectors are wanted in base64."""
        return "base64" in (self.encoding_format, self.embedding_type)

    @property
    def dtype(self) -> Dtype:
        """What the numbers are wanted as. Raises BadOptionError if two are asked for."""
        by_jina = None if self.embedding_type == "base64" else self.embedding_type
        wanted = {self.output_dtype, by_jina} - {None}
        if len(wanted) > 1:
            raise BadOptionError(
                f"output_dtype, embedding_type: {self.output_dtype} and {by_jina} are two dtypes.",
                hint="Send one of these fields.",
                field="output_dtype",
            )
        return self.output_dtype or by_jina or "float"


class OpenAIEmbedding(ResponseBody):
    """One vector, as numbers or as base64 of their little-endian bytes."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str


class OpenAIUsage(ResponseBody):
    """The tokens that the model processed."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddings(ResponseBody):
    """What `POST /v1/embeddings` answers."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIListedModel(ResponseBody):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(ResponseBody):
    """What `GET /v1/models` answers."""

    object: Literal["list"]
    data: list[OpenAIListedModel]


def create_router(pool: PoolSurface) -> Router:
    """Return OpenAI's routes over one pool."""
    router = Router(tags=["OpenAI"])

    @router.post("/embeddings", operation_id="openai_embeddings_bare", **_EMBEDDINGS)
    @router.post("/v1/embeddings", operation_id="openai_embeddings", **_EMBEDDINGS)
    async def embeddings(request: Request) -> Response:
        """Turn texts into vectors."""
        data = await body.read_json(request, pool.limits.max_body)
        decoded = _with_ids_as_texts(data, pool)
        asked = body.validate(decoded or data, OpenAIEmbeddingsBody)
        answer = await exchange.embed(
            request,
            pool,
            EmbedRequest(
                texts=asked.input,
                model=asked.model,
                input_type=asked.input_type,
                dimensions=asked.dimensions,
                truncate=asked.truncate,
                encoding="base64" if asked.is_base64 else "json",
                token_ids=decoded is not None,
                dtype=asked.dtype,
            ),
        )
        rows = (
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, fragment)
            for index, fragment in enumerate(answer.fragments)
        )
        usage = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
        closing = b"]," + orjson.dumps({"model": answer.model, "usage": usage})[1:]
        listed = answers.enclosed(b'{"object":"list","data":[', rows, closing)
        return answers.respond(answer, listed)

    @router.get(
        "/v1/models", responses=gives(OpenAIModelList, "Every model.") | fails(OpenAIError, ACCESS)
    )
    async def models() -> Response:
        """List names and aliases; Hub ids are accepted, too."""
        listed = [
            _listed(name, row.files_changed_s)
            for row in pool.statuses()
            for name in pool.names(pool.spec(row.name))
        ]
        return answers.as_json({"object": "list", "data": listed})

    @router.get(
        "/v1/models/{model:path}",
        responses=gives(OpenAIListedModel, "The model.") | fails(OpenAIError, MODEL),
    )
    async def model(model: str) -> Response:
        """Return one entry by name, alias or Hub id."""
        row = pool.status(model)
        return answers.as_json(_listed(row.name, row.files_changed_s))

    return router


def _with_ids_as_texts(data: object, pool: PoolSurface) -> dict[str, Any] | None:
    """Return a request whose token ids are written as the pool reads them; None for texts."""
    if not isinstance(data, dict) or not isinstance(data.get("model"), str | None):
        return None
    lists = lists_of_ids(data.get("input"))
    if not lists or not pool.spec(data.get("model")).token_ids:
        return None
    return {**data, "input": [" ".join(map(str, ids)) for ids in lists]}


def _listed(name: str, changed_s: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": changed_s, "owned_by": "emberd"}


_EMBEDDINGS: dict[str, Any] = {
    "openapi_extra": takes(
        OpenAIEmbeddingsBody,
        {"input": "one text", "model": "minilm"},
        {"input": ["first", "second"], "model": "minilm", "encoding_format": "base64"},
        {"input": "one text", "model": "minilm", "output_dtype": "int8"},
        embeds=True,
    ),
    "responses": gives(OpenAIEmbeddings, "One vector for each text, in order.", embeds=True)
    | fails(OpenAIError, EMBEDDING),
}
