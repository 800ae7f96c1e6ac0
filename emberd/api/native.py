"""emberd's own routes: `/embed`, `/health`, `/ready`, `/models`, `/load` and `/unload`.

`/embed`, `/health` and `/unload` are a contract with clients of the server that emberd replaces:
their fields, and the words `No texts provided`, must not change.
"""

from dataclasses import replace
from typing import Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd import __version__
from emberd.api import answers, body, chunk, exchange, tei
from emberd.api.access import require_token
from emberd.api.chunk import EmbedChunkOptions, EmbedChunkSettings, EmbeddedChunk
from emberd.api.fields import (
    OUTPUT_DTYPE,
    ModelName,
    PromptType,
    RequestBody,
    StrictTexts,
    Truncate,
)
from emberd.api.hang_up import hang_up_of
from emberd.api.openapi import (
    ACCESS,
    EMBEDDING,
    LOADING,
    MODEL,
    NativeError,
    ResponseBody,
    TEIError,
    fails,
    gives,
    takes,
)
from emberd.api.routes import Router
from emberd.config.live import LiveConfig
from emberd.dtypes import Dtype
from emberd.errors import WrongShapeError
from emberd.pool.request import EmbedRequest
from emberd.pool.states import State
from emberd.pool.status import ModelStatus
from emberd.pool.surface import PoolSurface
from emberd.worker.wire import Encoding

ASKED = [
    {"name": name, "in": "query", "required": False, "description": what,
     "schema": {"type": "string"}}
    for name, what in {
        "model": "Whether requests for this model would be answered.",
        "fingerprint": "Whether they would be answered in this space.",
    }.items()
]  # fmt: skip


class EmbedBody(RequestBody):
    """What `POST /embed` takes."""

    texts: StrictTexts = Field(
        description="The texts to embed, in order.", json_schema_extra={"minItems": 1}
    )
    model: ModelName = None
    input_type: PromptType = Field(
        None, description="Which of the model's prompts goes before each text."
    )
    dimensions: int | None = Field(None, description="A smaller size the model was trained for.")
    truncate: Truncate = Field(True, description="Cut texts that are too long; false refuses them.")
    encoding: Literal["float", "base64"] = "float"
    output_dtype: Dtype | None = Field(None, description=OUTPUT_DTYPE)
    fingerprint: str | None = Field(None, description="The expected space; another gives 409.")
    cache: bool = Field(True, description="False: compute every text anew, for this request alone.")
    chunk: EmbedChunkOptions | None = Field(
        None, description="Cut texts into chunks; there is a vector for each of them."
    )
    kind: Literal["embed", "sparse"] | None = Field(
        None, description="The kind of model; without `model`, its default. null: either."
    )


class ModelBody(RequestBody):
    """What `POST /load` and `POST /unload` take.

    Unknown keys are refused: with a mistyped `model`, everything would be unloaded.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None


class Usage(ResponseBody):
    """Tokens the model processed: after cutting, with special tokens and prompt, no padding."""

    tokens: int


class VectorsAnswer(ResponseBody):
    """What `POST /embed` answers beside the vectors, of whatever kind."""

    dimensions: int
    model: str
    fingerprint: str
    truncated: list[int]
    usage: Usage
    cached: int
    chunks: list[EmbeddedChunk] | None = Field(None, description="If the request has `chunk`.")
    chunking: EmbedChunkSettings | None = Field(None, description="How the texts were cut.")


class EmbedAnswer(VectorsAnswer):
    """What `POST /embed` answers."""

    embeddings: list[list[float]] | list[list[int]] | list[str]
    output_dtype: Dtype | None = Field(None, description="Present if the request names one.")


class SparseVector(ResponseBody):
    """What is not 0: entries of the vocabulary, ascending, and their numbers."""

    indices: list[int]
    values: list[float]


class SparseAnswer(VectorsAnswer):
    """What `POST /embed` answers if the model is of kind `sparse`."""

    sparse: list[SparseVector]


class ModelState(ResponseBody):
    """Name and state."""

    name: str
    state: State


class HealthWarning(ResponseBody):
    """Something that needs attention."""

    code: str
    message: str
    hint: str


class Health(ResponseBody):
    """What `GET /health` answers."""

    status: Literal["ok"]
    model: str
    dimensions: int
    loaded: bool
    name: str
    fingerprint: str | None
    version: str
    models: list[ModelState]
    warnings: list[HealthWarning]


class Ready(ResponseBody):
    """What `GET /ready` answers."""

    status: Literal["ready"]


class Rows(ResponseBody):
    """What `GET /models` answers."""

    models: list[ModelStatus]


class Unloaded(ResponseBody):
    """What `POST /unload` answers: the models that were unloaded."""

    status: Literal["unloaded"]
    models: list[str]


def create_router(pool: PoolSurface, live: LiveConfig) -> Router:
    """Return the native routes over one pool. `/health` includes the warnings of `live`."""
    router = Router()

    @router.post(
        "/embed",
        openapi_extra=takes(
            (EmbedBody, tei.TEIEmbedBody),
            {"texts": ["first text", "second text"]},
            {"texts": ["what is it about?"], "model": "minilm", "input_type": "query"},
            {"texts": ["a text"], "model": "minilm", "output_dtype": "int8"},
            {"texts": ["A long text. It goes on."], "chunk": {"size": 200, "overlap": 20}},
            {"texts": ["A long text. It goes on."], "chunk": {"size": 200, "late": True}},
            {"inputs": "a text, as TEI clients send it"},
            embeds=True,
        ),
        responses=fails((NativeError, TEIError), EMBEDDING)
        | gives(
            (EmbedAnswer, SparseAnswer, tei.VECTORS),
            "One vector for each text, in order; raw numbers or a NumPy array by Accept.",
            embeds=True,
            further=("application/octet-stream", "application/x-npy"),
        ),
    )
    async def embed(request: Request) -> Response:
        """Turn texts into vectors; loads the model if needed.

        A body with `texts` is a native request, one with `inputs` a text-embeddings-inference one.
        A model of kind `sparse` gives `sparse` instead of `embeddings`, always as JSON.
        """
        data = await body.read_json(request, pool.limits.max_body)
        if isinstance(data, dict) and "inputs" in data:
            if "texts" in data:
                raise WrongShapeError(
                    "texts, inputs: the request has both.",
                    hint="Send texts, or inputs if the client speaks text-embeddings-inference.",
                    field="inputs",
                )
            return await tei.embed(request, pool, data)
        asked = body.validate(data, EmbedBody)
        form = answers.chosen_format(request.headers.get("accept", ""))
        as_json: Encoding = "base64" if asked.encoding == "base64" else "json"
        wanted = EmbedRequest(
            texts=asked.texts,
            model=asked.model,
            input_type=asked.input_type,
            dimensions=asked.dimensions,
            truncate=asked.truncate,
            encoding=as_json if form == "json" else "raw",
            fingerprint=asked.fingerprint,
            takes=(asked.kind,) if asked.kind else ("embed", "sparse"),
            cache=asked.cache,
            dtype=asked.output_dtype or "float",
        )
        if asked.chunk:
            spans = () if asked.chunk.late else None
            wanted = replace(wanted, chunking=asked.chunk.chunking(), spans=spans)
            return await chunk.embed(request, pool, wanted, form, asked.output_dtype)
        answer = await exchange.embed(request, pool, wanted)
        return answers.embed_response(answer, form, asked.output_dtype)

    @router.get("/health", responses=gives(Health, "The state.") | fails(NativeError, (403,)))
    async def health() -> Response:
        """Return the server's state; never loads a model and never waits for one."""
        default = pool.status()
        said = {
            "status": "ok",
            "model": pool.default.public_id,
            "dimensions": pool.default.dimensions,
            "loaded": default.state == "ready",
            "name": pool.default.name,
            "fingerprint": default.fingerprint,
            "version": __version__,
            "models": [{"name": name, "state": state} for name, state in pool.states().items()],
            "warnings": [*live.warnings(), *pool.warnings()],
        }
        return answers.as_json(said)

    @router.get(
        "/ready",
        openapi_extra={"parameters": ASKED},
        responses=gives(Ready, "Work may be sent here.") | fails(NativeError, (*MODEL, 503)),
    )
    async def ready(request: Request) -> Response:
        """Return 200 if work may be sent here, else 503; loads nothing and is no activity.

        With `model`: requests for it. With `fingerprint`: in that space. Without a token, where one
        is required, only the default model may be asked about, of which `/health` says the same.
        """
        _check_ready(request, pool)
        return Response(b'{"status":"ready"}', media_type="application/json")

    @router.get("/models", responses=gives(Rows, "Every model.") | fails(NativeError, ACCESS))
    async def models() -> Response:
        """Return a row for every entry of the registry."""
        return answers.as_json({"models": pool.statuses()})

    @router.post(
        "/load",
        openapi_extra=takes(ModelBody, {"model": "minilm"}, required=False),
        responses=gives(ModelStatus, "The loaded model.") | fails(NativeError, LOADING),
    )
    async def load(request: Request) -> Response:
        """Load a model, by default the default model; the answer comes once it is ready."""
        asked = await body.read_optional(request, ModelBody, pool.limits.max_body)
        return answers.as_json(await hang_up_of(request.scope).ends(pool.load(asked.model)))

    @router.post(
        "/unload",
        openapi_extra=takes(ModelBody, {"model": "minilm"}, required=False),
        responses=gives(Unloaded, "The models that were unloaded.") | fails(NativeError, LOADING),
    )
    async def unload(request: Request) -> Response:
        """Unload a model, by default all of them; the answer comes once the memory is released."""
        asked = await body.read_optional(request, ModelBody, pool.limits.max_body)
        return answers.as_json({"status": "unloaded", "models": await pool.unload(asked.model)})

    return router


def _check_ready(request: Request, pool: PoolSurface) -> None:
    model, fingerprint = map(request.query_params.get, ("model", "fingerprint"))
    if model not in (None, pool.default.name):
        require_token(request.scope)
    pool.check_ready(model, fingerprint)
