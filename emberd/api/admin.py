"""Routes for the administrator: preview and perform a reload of the config file, pin models."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body
from emberd.api.fields import RequestBody
from emberd.api.openapi import (
    ACCESS,
    MODEL,
    NativeError,
    ResponseBody,
    Responses,
    fails,
    gives,
    takes,
)
from emberd.api.routes import Router
from emberd.config.difference import Change
from emberd.config.live import LiveConfig
from emberd.pool.status import ModelStatus
from emberd.pool.surface import PoolSurface

BROKEN = "The config file is missing or invalid; the previous configuration stays in force."


PINNING = (*MODEL, 400, 413, 415, 422, 429, 503)


class DefaultModel(ResponseBody):
    """The default model, and the layer of the configuration that sets it."""

    name: str
    origin: str


class ConfigChange(ResponseBody):
    """A key that changed; null where it is not set."""

    key: str
    before: Any
    after: Any
    effect: Literal["at_once", "next_request", "model_restarts", "model_leaves", "needs_restart"]


class Reload(ResponseBody):
    """What `/reload` answers."""

    status: Literal["preview", "reloaded", "unchanged"]
    file: str
    default: DefaultModel
    changes: list[ConfigChange]


class PinBody(RequestBody):
    """What `POST /pin` takes."""

    model_config = ConfigDict(extra="forbid")

    model: str
    pinned: bool = Field(description="Whether it stays loaded; its entry counts after a restart.")


def create_router(live: LiveConfig, pool: PoolSurface) -> Router:
    """Return the admin routes."""
    router = Router()
    failures: Responses = fails(NativeError, (*ACCESS, 500))
    failures[500]["description"] = BROKEN

    @router.get("/reload", responses=gives(Reload, "The changes a reload would make.") | failures)
    async def preview() -> Response:
        """Show what reloading the config file would change, and where the default comes from."""
        return _describe(live, "preview", await live.preview())

    @router.post("/reload", responses=gives(Reload, "The configuration is in force.") | failures)
    async def reload() -> Response:
        """Reload the config file; answers once it is in force."""
        found = await live.reload()
        return _describe(live, "reloaded" if found else "unchanged", found)

    @router.post(
        "/pin",
        openapi_extra=takes(PinBody, {"model": "minilm", "pinned": False}),
        responses=gives(ModelStatus, "The model.") | fails(NativeError, PINNING),
    )
    async def pin(request: Request) -> Response:
        """Have a model stay loaded once it is, or no longer, until the server is restarted.

        Neither idle time nor another model unloads it, whatever its entry says; `/unload` does.
        """
        asked = await body.read(request, PinBody, pool.limits.max_body)
        return answers.as_json(pool.pin(asked.model, asked.pinned))

    return router


def _describe(live: LiveConfig, status: str, found: Sequence[Change]) -> Response:
    config = live.config
    default = {
        "name": config.catalog.get(config.settings.default).name,
        "origin": config.origins["default"],
    }
    said = {
        "status": status,
        "file": str(config.homes.config),
        "default": default,
        "changes": [asdict(change) for change in found],
    }
    return answers.as_json(said)
