"""emberd's own routes; the first three are those of the server it replaces, to the letter."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from emberd import __version__
from emberd.api import answers, body
from emberd.api.errors import ERROR_SCHEMA
from emberd.config.settings import LimitsSettings
from emberd.pool.manager import EmbedRequest, Pool
from emberd.registry.spec import InputType
from emberd.worker.wire import Encoding

T = TypeVar("T")


class EmbedBody(body.Body):
    """What `POST /embed` takes."""

    texts: list[str] = Field(description="What to embed, in order.")
    model: str | None = Field(None, description="Registry name or alias; the default without it.")
    input_type: InputType | None = Field(
        None, description="Which of the model's prompts goes before each text."
    )
    dimensions: int | None = Field(None, description="A smaller size the model was trained for.")
    truncate: bool = Field(True, description="Cut texts that are too long; false refuses them.")
    encoding: Literal["float", "base64"] = "float"
    fingerprint: str | None = Field(None, description="The space expected; another one is a 409.")


class ModelBody(body.Body):
    """What `POST /load` and `POST /unload` take; a key mistyped here would unload everything."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None


def create_router(pool: Pool, limits: LimitsSettings, warnings: list[dict[str, Any]]) -> APIRouter:
    """Return the native routes over one pool. `warnings` is what `/health` shows."""
    router = APIRouter()

    @router.post("/embed", openapi_extra=_takes(EmbedBody), responses=_FAILURES)
    async def embed(request: Request) -> Response:
        """Turn texts into vectors; loads the model when it is cold."""
        asked = await body.read(request, EmbedBody, limits.max_body)
        form = answers.chosen_format(request.headers.get("accept", ""))
        as_json: Encoding = "base64" if asked.encoding == "base64" else "json"
        expected = asked.fingerprint or request.headers.get("x-emberd-expect-fingerprint")
        answer = await while_connected(
            request,
            pool.embed(
                EmbedRequest(
                    texts=asked.texts,
                    model=asked.model,
                    input_type=asked.input_type,
                    dimensions=asked.dimensions,
                    truncate=asked.truncate,
                    encoding=as_json if form == "json" else "raw",
                    fingerprint=expected,
                )
            ),
        )
        return answers.embed_response(answer, form)

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Say how things are; never loads a model and never waits for one."""
        default = pool.row()
        return {
            "status": "ok",
            "model": pool.default.public_id,
            "dimensions": pool.default.dimensions,
            "loaded": default["state"] == "ready",
            "name": pool.default.name,
            "fingerprint": default["fingerprint"],
            "version": __version__,
            "models": pool.states(),
            "warnings": [*warnings, *pool.warnings()],
        }

    @router.get("/ready")
    async def ready() -> Response:
        """200 when work is accepted, else 503."""
        pool.check_open()
        return Response(b'{"status":"ready"}', media_type="application/json")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """Return a row for every entry of the registry."""
        return {"models": pool.rows()}

    @router.post("/load", openapi_extra=_takes(ModelBody, required=False), responses=_FAILURES)
    async def load(request: Request) -> dict[str, Any]:
        """Load a model, the default one without a body; answers once it is ready."""
        asked = await body.read_optional(request, ModelBody, limits.max_body)
        return await while_connected(request, pool.load(asked.model))

    @router.post("/unload", openapi_extra=_takes(ModelBody, required=False), responses=_FAILURES)
    async def unload(request: Request) -> dict[str, Any]:
        """Unload a model, all of them without a body; answers once the memory is back."""
        asked = await body.read_optional(request, ModelBody, limits.max_body)
        return {"status": "unloaded", "models": await pool.unload(asked.model)}

    return router


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives; cancel it and raise ClientDisconnect when the client hangs up."""
    working = asyncio.ensure_future(work)
    hung_up = asyncio.ensure_future(_wait_for_hang_up(request))
    try:
        await asyncio.wait((working, hung_up), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hung_up.cancel()
        if not working.done():
            working.cancel()
    if working.cancelled() or not working.done():
        raise ClientDisconnect
    return working.result()


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _takes(shape: type[body.Body], *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": shape.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"application/json": {"schema": ERROR_SCHEMA}}}
    for status, what in {
        400: "No texts, broken JSON, or an option out of range.",
        403: "The Host or Origin is not allowed.",
        404: "No model has that name.",
        409: "The model gives vectors of another space than the one expected.",
        413: "The body or the number of texts is over the limit.",
        415: "The body is not declared as JSON.",
        422: "JSON of the wrong shape, or a text too long that must not be cut.",
        429: "Too many texts are waiting.",
        500: "The model cannot be loaded or gave no vector.",
        503: "No source, no room, or shutting down.",
        504: "The deadline passed.",
    }.items()
}
