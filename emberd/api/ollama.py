"""Ollama's dialect: `/api/embed` and what its clients ask before they embed.

`name:latest` is `name`. `keep_alive` and `options` are taken and change nothing: how long a model
stays is the server's setting, as other clients use it too.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from fastapi import APIRouter
from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd import __version__
from emberd.api import answers, body, exchange
from emberd.api.openapi import ACCESS, EMBEDDING, OllamaError, Shown, fails, gives, takes
from emberd.pool.job import Answer
from emberd.pool.manager import EmbedRequest, Pool

LATEST = ":latest"
NS_PER_S = 1_000_000_000
SHOWING = (*ACCESS, 400, 404, 413, 415, 422)


class OllamaEmbedBody(body.Body):
    """What `POST /api/embed` takes."""

    input: body.Texts = Field(description="A text or a list of texts.")
    model: str | None = Field(None, description="Registry name or alias; the default without it.")
    truncate: bool | None = Field(None, description="false refuses texts too long; null is true.")
    dimensions: int | None = Field(None, description="A smaller size the model was trained for.")


class OllamaEmbeddingsBody(body.Body):
    """What `POST /api/embeddings`, the older route for one text, takes."""

    prompt: str
    model: str | None = None


class OllamaShowBody(body.Body):
    """What `POST /api/show` takes; older clients say `name`."""

    model: str = Field(validation_alias=AliasChoices("model", "name"))


class OllamaDetails(Shown):
    """What kind of model it is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaEmbeddings(Shown):
    """What `POST /api/embed` answers; durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaOneEmbedding(Shown):
    """What `POST /api/embeddings` answers."""

    embedding: list[float]


class OllamaTag(Shown):
    """One model; `digest` is the fingerprint of its space, once it is known."""

    name: str
    model: str
    digest: str
    details: OllamaDetails


class OllamaTags(Shown):
    """What `GET /api/tags` answers."""

    models: list[OllamaTag]


class OllamaRunning(OllamaTag):
    """One loaded model; sizes in bytes."""

    size: int
    size_vram: int
    context_length: int | None
    expires_at: str | None


class OllamaRunningModels(Shown):
    """What `GET /api/ps` answers."""

    models: list[OllamaRunning]


class OllamaVersion(Shown):
    """What `GET /api/version` answers: emberd's."""

    version: str


class OllamaAbout(Shown):
    """What `POST /api/show` answers."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]


def create_router(pool: Pool) -> APIRouter:
    """Return Ollama's routes over one pool."""
    router = APIRouter(tags=["Ollama"])

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
        asked = await body.read(request, OllamaEmbedBody, pool.limits.max_body)
        name = _registry_name(asked.model)
        began_ns = time.perf_counter_ns()
        answer = await exchange.embed(
            request,
            pool,
            EmbedRequest(
                texts=asked.input,
                model=name,
                dimensions=asked.dimensions,
                truncate=asked.truncate is not False,
            ),
        )
        total_ns = time.perf_counter_ns() - began_ns
        rest = {
            "model": answer.model,
            "total_duration": total_ns,
            "load_duration": int(answer.timing.wait_s * NS_PER_S),
            "prompt_eval_count": answer.tokens,
        }
        vectors = answers.as_array(answer)
        return answers.respond(answer, b'{"embeddings":' + vectors + b"," + orjson.dumps(rest)[1:])

    @router.post(
        "/api/embeddings",
        openapi_extra=takes(
            OllamaEmbeddingsBody, {"model": "minilm", "prompt": "a text"}, embeds=True
        ),
        responses=gives(OllamaOneEmbedding, "Its vector.", embeds=True)
        | fails(OllamaError, EMBEDDING),
    )
    async def embeddings(request: Request) -> Response:
        """Turn one text into a vector: the route before `/api/embed`."""
        asked = await body.read(request, OllamaEmbeddingsBody, pool.limits.max_body)
        answer: Answer = await exchange.embed(
            request, pool, EmbedRequest(texts=[asked.prompt], model=_registry_name(asked.model))
        )
        return answers.respond(answer, b'{"embedding":' + answer.fragments[0] + b"}")

    @router.get(
        "/api/tags", responses=gives(OllamaTags, "All entries.") | fails(OllamaError, ACCESS)
    )
    async def tags() -> dict[str, Any]:
        """List the entries of the registry, here or not: a model comes when it is first asked."""
        return {"models": [_tag(row, pool) for row in pool.rows()]}

    @router.get(
        "/api/ps",
        responses=gives(OllamaRunningModels, "Loaded models.") | fails(OllamaError, ACCESS),
    )
    async def ps() -> dict[str, Any]:
        """List the models that are loaded."""
        return {"models": [_running(row, pool) for row in pool.rows() if row["state"] == "ready"]}

    @router.get(
        "/api/version",
        responses=gives(OllamaVersion, "emberd's version.") | fails(OllamaError, ACCESS),
    )
    async def version() -> dict[str, str]:
        """Return emberd's version."""
        return {"version": __version__}

    @router.post(
        "/api/show",
        openapi_extra=takes(OllamaShowBody, {"model": "minilm"}),
        responses=gives(OllamaAbout, "What the registry says.") | fails(OllamaError, SHOWING),
    )
    async def show(request: Request) -> dict[str, Any]:
        """Describe one model; loads nothing."""
        asked = await body.read(request, OllamaShowBody, pool.limits.max_body)
        spec = pool.spec(_registry_name(asked.model))
        row = pool.row(spec.name)
        family = spec.architecture or ""
        return {
            "license": spec.licence or "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(row, pool),
            "model_info": {
                "general.architecture": family,
                "general.name": spec.public_id,
                f"{family}.embedding_length": spec.dimensions,
                f"{family}.context_length": row["max_tokens"],
            },
            "capabilities": ["embedding"],
        }

    return router


def _registry_name(name: str | None) -> str | None:
    return name.removesuffix(LATEST) if name else None


def _tag(row: dict[str, Any], pool: Pool) -> dict[str, Any]:
    name = row["name"] + LATEST
    digest = row["fingerprint"] or ""
    return {"name": name, "model": name, "digest": digest, "details": _details(row, pool)}


def _running(row: dict[str, Any], pool: Pool) -> dict[str, Any]:
    expires = None
    if row["unloads_in_s"] is not None:
        expires = (datetime.now(UTC) + timedelta(seconds=row["unloads_in_s"])).isoformat()
    return {
        **_tag(row, pool),
        "size": row["memory_bytes"],
        "size_vram": 0,
        "context_length": row["max_tokens"],
        "expires_at": expires,
    }


def _details(row: dict[str, Any], pool: Pool) -> dict[str, Any]:
    family = pool.spec(row["name"]).architecture or ""
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": row["precision"],
    }
