"""Ollama's dialect: `/api/embed`, and the routes that its clients call before they embed.

`keep_alive` and `options` are accepted and ignored: how long a model stays loaded is a setting of
the server, which other clients share. Bodies need not be declared as JSON, as Ollama's guides use
a plain `curl -d`. A request without texts loads the model, as in Ollama.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd import __version__
from emberd.api import answers, body, exchange
from emberd.api.fields import ModelName, RequestBody, Texts, Truncate
from emberd.api.openapi import ACCESS, EMBEDDING, OllamaError, ResponseBody, fails, gives, takes
from emberd.api.routes import Router
from emberd.pool.request import EmbedRequest
from emberd.pool.status import ModelStatus
from emberd.pool.surface import PoolSurface
from emberd.registry.catalog import LATEST

NS_PER_S = 1_000_000_000
SHOWING = (*ACCESS, 400, 404, 413, 415, 422)

T = TypeVar("T", bound=RequestBody)


class OllamaEmbedBody(RequestBody):
    """What `POST /api/embed` takes."""

    input: Texts = Field(
        default_factory=list,
        description="A text or a list of texts; without any, the model is only loaded.",
    )
    model: ModelName = None
    truncate: Truncate = Field(True, description="Cut texts that are too long; false refuses them.")
    dimensions: int | None = Field(None, description="A smaller size the model was trained for.")


class OllamaEmbeddingsBody(RequestBody):
    """What `POST /api/embeddings`, the older route for one text, takes."""

    prompt: str | None = Field(None, description="The text; without it, the model is only loaded.")
    model: ModelName = None


class OllamaShowBody(RequestBody):
    """What `POST /api/show` takes; older clients send `name`."""

    model: str = Field(validation_alias=AliasChoices("model", "name"))


class OllamaDetails(ResponseBody):
    """The kind of model."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaEmbeddings(ResponseBody):
    """What `POST /api/embed` answers; durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaOneEmbedding(ResponseBody):
    """What `POST /api/embeddings` answers."""

    embedding: list[float]


class OllamaTag(ResponseBody):
    """One name of a model; `digest` is the fingerprint of its space, once that is known.

    `size` is that of its files in bytes, and `modified_at` is when they changed; they are 0 and
    1970 until the model has been loaded once.
    """

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaTags(ResponseBody):
    """What `GET /api/tags` answers."""

    models: list[OllamaTag]


class OllamaRunning(OllamaTag):
    """One loaded model; `size` is the memory it takes, in bytes."""

    size_vram: int
    context_length: int | None
    expires_at: str | None


class OllamaRunningModels(ResponseBody):
    """What `GET /api/ps` answers."""

    models: list[OllamaRunning]


class OllamaVersion(ResponseBody):
    """What `GET /api/version` answers: emberd's version."""

    version: str


class OllamaAbout(ResponseBody):
    """What `POST /api/show` answers."""

    license: str
    modelfile: str
    parameters: str
    template: str
    modified_at: str
    size: int
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]


def create_router(pool: PoolSurface) -> Router:
    """Return Ollama's routes over one pool."""
    router = Router(tags=["Ollama"])

    async def read(request: Request, shape: type[T]) -> T:
        return await body.read(request, shape, pool.limits.max_body, undeclared=True)

    @router.post(
        "/api/embed",
        openapi_extra=takes(
            OllamaEmbedBody,
            {"model": "minilm", "input": "one text"},
            {"model": "minilm:latest", "input": ["first", "second"], "keep_alive": "5m"},
            embeds=True,
        ),
        responses=gives(OllamaEmbeddings, "One vector for each text, in order.", embeds=True)
        | fails(OllamaError, EMBEDDING),
    )
    async def embed(request: Request) -> Response:
        """Turn texts into vectors."""
        asked = await read(request, OllamaEmbedBody)
        began_ns = time.perf_counter_ns()
        answer = (
            await exchange.embed(
                request,
                pool,
                EmbedRequest(
                    texts=asked.input,
                    model=asked.model,
                    dimensions=asked.dimensions,
                    truncate=asked.truncate,
                ),
            )
            if asked.input
            else await exchange.load(request, pool, asked.model)
        )
        total_ns = time.perf_counter_ns() - began_ns
        rest = {
            "model": answer.model,
            "total_duration": total_ns,
            "load_duration": int(answer.timing.wait_s * NS_PER_S),
            "prompt_eval_count": answer.tokens,
        }
        closing = b"]," + orjson.dumps(rest)[1:]
        body = answers.enclosed(answers.OPENING, answer.fragments, closing)
        return answers.respond(answer, body)

    @router.post(
        "/api/embeddings",
        openapi_extra=takes(
            OllamaEmbeddingsBody, {"model": "minilm", "prompt": "a text"}, embeds=True
        ),
        responses=gives(OllamaOneEmbedding, "Its vector.", embeds=True)
        | fails(OllamaError, EMBEDDING),
    )
    async def embeddings(request: Request) -> Response:
        """Turn one text into a vector: Ollama's older route."""
        asked = await read(request, OllamaEmbeddingsBody)
        if asked.prompt is None:
            answer = await exchange.load(request, pool, asked.model)
            return answers.respond(answer, b'{"embedding":[]}')
        answer = await exchange.embed(
            request, pool, EmbedRequest(texts=[asked.prompt], model=asked.model)
        )
        return answers.respond(answer, b'{"embedding":' + answer.fragments[0] + b"}")

    @router.get(
        "/api/tags", responses=gives(OllamaTags, "Every model.") | fails(OllamaError, ACCESS)
    )
    async def tags() -> Response:
        """List names and aliases, downloaded or not: a model is fetched when it is first used."""
        tags = [_tag(row, pool, name) for row in pool.statuses() for name in _names(row, pool)]
        return answers.as_json({"models": tags})

    @router.get(
        "/api/ps",
        responses=gives(OllamaRunningModels, "Loaded models.") | fails(OllamaError, ACCESS),
    )
    async def ps() -> Response:
        """List the models that are loaded."""
        loaded = [_running(row, pool) for row in pool.statuses() if row.state == "ready"]
        return answers.as_json({"models": loaded})

    @router.get(
        "/api/version",
        responses=gives(OllamaVersion, "emberd's version.") | fails(OllamaError, ACCESS),
    )
    async def version() -> Response:
        """Return emberd's version."""
        return answers.as_json({"version": __version__})

    @router.post(
        "/api/show",
        openapi_extra=takes(OllamaShowBody, {"model": "minilm"}),
        responses=gives(OllamaAbout, "The model's registry entry.") | fails(OllamaError, SHOWING),
    )
    async def show(request: Request) -> Response:
        """Describe one model without loading it."""
        asked = await read(request, OllamaShowBody)
        spec = pool.spec(asked.model)
        row = pool.status(spec.name)
        family = spec.architecture or ""
        about = {
            "license": spec.licence or "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            **_files(row),
            "details": _details(row, pool),
            "model_info": {
                "general.architecture": family,
                "general.name": spec.public_id,
                f"{family}.embedding_length": spec.dimensions,
                f"{family}.context_length": row.max_tokens,
            },
            "capabilities": ["embedding"],
        }
        return answers.as_json(about)

    return router


def _names(row: ModelStatus, pool: PoolSurface) -> Iterator[str]:
    """Yield names as Ollama lists them, with a tag. Hub ids are accepted, but not listed."""
    for name in pool.names(pool.spec(row.name)):
        yield name if ":" in name else name + LATEST


def _tag(row: ModelStatus, pool: PoolSurface, name: str) -> dict[str, Any]:
    digest = row.fingerprint or ""
    return {
        "name": name,
        "model": name,
        **_files(row),
        "digest": digest,
        "details": _details(row, pool),
    }


def _files(row: ModelStatus) -> dict[str, Any]:
    changed = datetime.fromtimestamp(row.files_changed_s, UTC)
    return {"modified_at": changed.isoformat(), "size": row.files_bytes}


def _running(row: ModelStatus, pool: PoolSurface) -> dict[str, Any]:
    expires = None
    if row.unloads_in_s is not None:
        expires = (datetime.now(UTC) + timedelta(seconds=row.unloads_in_s)).isoformat()
    return {
        **_tag(row, pool, row.name + LATEST),
        "size": row.memory_bytes,
        "size_vram": 0,
        "context_length": row.max_tokens,
        "expires_at": expires,
    }


def _details(row: ModelStatus, pool: PoolSurface) -> dict[str, Any]:
    family = pool.spec(row.name).architecture or ""
    return {
        "parent_model": "",
        "format": "onnx" if pool.spec(row.name).backend == "onnx" else "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": row.precision,
    }
