"""The dialect of Hugging Face's text-embeddings-inference (TEI): answers are bare lists.

`POST /embed` is shared with the native dialect, which hands over requests that have `inputs`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd import __version__
from emberd.api import answers, body, exchange
from emberd.api.errors import SPOKEN
from emberd.api.fields import ModelName, PromptType, RequestBody, Texts, Truncate, refuse_start
from emberd.api.openapi import (
    ACCESS,
    EMBEDDING,
    ResponseBody,
    TEIError,
    fails,
    gives,
    schema,
    takes,
)
from emberd.api.routes import Router
from emberd.errors import TooLargeError
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface

MAX_TOKENIZED_CHARS = 1_000_000  # per request: these texts are not cut, and others wait


def _refuse_left(given: object) -> object:
    """Raise for a `truncation_direction` that emberd does not have."""
    if given in ("left", "Left"):
        refuse_start("truncation_direction")
    return given


class TEITexts(RequestBody):
    """The texts of a request for vectors, and how to read them."""

    inputs: Texts = Field(description="A text or a list of texts; token ids are refused.")
    model: ModelName = None  # not in TEI
    truncate: Truncate = Field(True, description="Cut texts that are too long; false refuses them.")
    truncation_direction: (
        Annotated[Literal["right", "Right"], BeforeValidator(_refuse_left)] | None
    ) = None
    prompt_name: PromptType = Field(None, description="Which of the model's prompts to use.")


class TEIEmbedBody(TEITexts):
    """What `POST /` takes, and `POST /embed` when it has `inputs`."""

    normalize: bool | None = Field(
        None, description="Scale vectors to length 1; null: as the model's entry says (by default,"
        " true).",
    )  # fmt: skip
    dimensions: int | None = Field(None, description="A smaller size the model was trained for.")


class TEIEmbedSparseBody(TEITexts):
    """What `POST /embed_sparse` takes."""

    model: str | None = Field(
        None, description="Name or alias of a sparse model; null: `default_sparse`."
    )
    prompt_name: PromptType = Field(
        None, description="`query` or `document`: which of the model's prompts to use, and whether"
        " to look the texts up, if the model does that with queries.",
    )  # fmt: skip


class TEITokenizeBody(RequestBody):
    """What `POST /tokenize` takes."""

    inputs: Texts
    model: ModelName = None  # not in TEI
    add_special_tokens: bool = True
    prompt_name: PromptType = None


class TEISparseValue(ResponseBody):
    """An entry of the vocabulary, and its number, which is not 0."""

    index: int
    value: float


class TEIToken(ResponseBody):
    """One token; `start` and `stop` count characters, and are null for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TEIInfo(ResponseBody):
    """What `GET /info` answers, about the default model."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, str]]
    max_concurrent_requests: int
    max_input_length: int | None
    max_client_batch_size: int
    auto_truncate: bool
    version: str


def _lists_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "array", "items": items}}


VECTORS = _lists_of({"type": "number"})
SPARSE = _lists_of(schema(TEISparseValue))
TOKENS = _lists_of(schema(TEIToken))


async def embed(request: Request, pool: PoolSurface, data: object) -> Response:
    """Answer a request in TEI's dialect, including its errors."""
    request.scope["state"][SPOKEN] = "tei"
    asked = body.validate(data, TEIEmbedBody)
    wanted = EmbedRequest(
        texts=asked.inputs,
        model=asked.model,
        input_type=asked.prompt_name,
        dimensions=asked.dimensions,
        truncate=asked.truncate,
        normalize=asked.normalize,
    )
    return await _lists(request, pool, wanted)


async def _lists(request: Request, pool: PoolSurface, wanted: EmbedRequest) -> Response:
    answer = await exchange.embed(request, pool, wanted)
    return answers.respond(answer, answers.as_array(answer))


def create_router(pool: PoolSurface) -> Router:
    """Return TEI's routes over one pool, except `/embed`."""
    router = Router(tags=["TEI"])

    @router.post(
        "/",
        openapi_extra=takes(
            TEIEmbedBody, {"inputs": "one text"}, {"inputs": ["first", "second"]}, embeds=True
        ),
        responses=gives(VECTORS, "One vector for each text, in order.", embeds=True)
        | fails(TEIError, EMBEDDING),
    )
    async def root(request: Request) -> Response:
        """Turn texts into vectors; huggingface_hub's InferenceClient posts here."""
        return await embed(request, pool, await body.read_json(request, pool.limits.max_body))

    @router.post(
        "/embed_sparse",
        openapi_extra=takes(
            TEIEmbedSparseBody,
            {"inputs": ["first text", "second text"]},
            {"inputs": "what is it about?", "prompt_name": "query"},
            embeds=True,
        ),
        responses=gives(SPARSE, "One sparse vector for each text, in order.", embeds=True)
        | fails(TEIError, EMBEDDING),
    )
    async def embed_sparse(request: Request) -> Response:
        """Turn texts into sparse vectors; loads the model if needed."""
        asked = await body.read(request, TEIEmbedSparseBody, pool.limits.max_body)
        wanted = EmbedRequest(
            texts=asked.inputs,
            model=asked.model,
            input_type=asked.prompt_name,
            truncate=asked.truncate,
            takes=("sparse",),
            pairs=True,
        )
        return await _lists(request, pool, wanted)

    @router.post(
        "/tokenize",
        openapi_extra=takes(TEITokenizeBody, {"inputs": ["what are its tokens?"]}, embeds=True),
        responses=gives(TOKENS, "The tokens of each text, uncut.", embeds=True)
        | fails(TEIError, EMBEDDING),
    )
    async def tokenize(request: Request) -> Response:
        """Return the tokens of texts; loads the model if needed."""
        asked = await body.read(request, TEITokenizeBody, pool.limits.max_body)
        if sum(map(len, asked.inputs)) > MAX_TOKENIZED_CHARS:
            raise TooLargeError(
                f"The texts have more than {MAX_TOKENIZED_CHARS} characters in total.",
                hint="Send them in several requests.",
                field="inputs",
            )
        wanted = EmbedRequest(
            texts=asked.inputs,
            model=asked.model,
            input_type=asked.prompt_name,
            description="tokens",
            special_tokens=asked.add_special_tokens,
        )
        return await _lists(request, pool, wanted)

    @router.get("/info", responses=gives(TEIInfo, "The default model.") | fails(TEIError, ACCESS))
    async def info() -> Response:
        """Return the default model and the limits of a request."""
        row = pool.status()
        said = {
            "model_id": pool.default.public_id,
            "model_sha": None,
            "model_dtype": row.precision,
            "model_type": {"embedding": {"pooling": row.pooling}},
            "max_concurrent_requests": pool.limits.max_queued_texts,
            "max_input_length": row.max_tokens,
            "max_client_batch_size": pool.limits.max_texts,
            "auto_truncate": True,
            "version": __version__,
        }
        return answers.as_json(said)

    return router
