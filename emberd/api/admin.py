"""Routes for the administrator: preview and perform a reload of the config file."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from starlette.responses import Response

from emberd.api import answers
from emberd.api.openapi import ACCESS, NativeError, ResponseBody, Responses, fails, gives
from emberd.api.routes import Router
from emberd.config.difference import Change
from emberd.config.live import LiveConfig

BROKEN = "The config file is missing or invalid; the previous configuration stays in force."


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


def create_router(live: LiveConfig) -> Router:
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
