"""One error tree, one table: which status each failure has, and the native shape of its answer."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from emberd import errors

STATUS: Mapping[type[errors.EmberdError], int] = {
    errors.EmberdError: 500,
    errors.RequestError: 400,
    errors.ForbiddenError: 403,
    errors.UnknownModelError: 404,
    errors.FingerprintMismatchError: 409,
    errors.TooLargeError: 413,
    errors.MediaTypeError: 415,
    errors.WrongShapeError: 422,
    errors.TextTooLongError: 422,
    errors.QueueFullError: 429,
    errors.UnavailableError: 503,
    errors.DeadlineError: 504,
}
RETRY_AFTER_S = {429: 1, 503: 2}

log = logging.getLogger("emberd.api")


def status_of(error: errors.EmberdError) -> int:
    """Return the HTTP status of an error: its own, or that of the nearest class above it."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def headers_of(status: int) -> dict[str, str]:
    """Return the headers that go with a status."""
    headers = {}
    if status in RETRY_AFTER_S:
        headers["Retry-After"] = str(RETRY_AFTER_S[status])
    if status == 409:
        headers["x-should-retry"] = "false"  # OpenAI's SDK would try again
    return headers


def native(status: int, detail: str, code: str, hint: str | None) -> Response:
    """Return an error in the native shape."""
    return Response(
        orjson.dumps({"detail": detail, "code": code, "hint": hint}),
        status_code=status,
        headers=headers_of(status),
        media_type="application/json",
    )


def render(error: errors.EmberdError) -> Response:
    """Return an error of the tree in the native shape."""
    return native(status_of(error), error.message, error.code, error.hint)


async def on_emberd_error(_: Request, error: Exception) -> Response:
    """FastAPI handler: an error of the tree."""
    assert isinstance(error, errors.EmberdError)  # registered for these only
    return render(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """FastAPI handler: what the router itself refuses."""
    assert isinstance(error, HTTPException)  # registered for these only
    path = request.url.path[:200]
    if error.status_code == 404:
        return native(404, f"There is no {path} here.", "unknown_route", "See /openapi.json.")
    if error.status_code == 405:
        detail = f"{path} does not answer {request.method}."
        response = native(405, detail, "method_not_allowed", "See /openapi.json.")
        response.headers.update(error.headers or {})
        return response
    return native(error.status_code, str(error.detail), "http_error", None)


ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["detail", "code", "hint"],
    "properties": {
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": ["string", "null"]},
    },
}
