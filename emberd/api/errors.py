"""The HTTP status and headers of each error, and the shape that each dialect gives it.

The dialect is chosen here and nowhere else: by path, unless the route has set it
(`POST /embed` speaks two).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from emberd import errors
from emberd.api.paths import nearest

Dialect = Literal["native", "openai", "ollama", "cohere", "tei"]

STATUS: Mapping[type[errors.EmberdError], int] = {
    errors.EmberdError: 500,
    errors.RequestError: 400,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.UnknownModelError: 404,
    errors.AlreadyRunningError: 409,
    errors.FingerprintMismatchError: 409,
    errors.TooLargeError: 413,
    errors.MediaTypeError: 415,
    errors.WrongShapeError: 422,
    errors.TextTooLongError: 422,
    errors.NoTokensError: 422,
    errors.QueueFullError: 429,
    errors.StoreError: 409,
    errors.NotAStoreError: 404,
    errors.StoreBusyError: 503,
    errors.UnavailableError: 503,
    errors.DeadlineError: 504,
}
STATUS_IN: Mapping[Dialect, Mapping[str, int]] = {  # where its clients expect a different one
    "ollama": {errors.TextTooLongError.code: 400},
}
OLLAMA_WORDS: Mapping[str, str] = {  # its clients look for these; source: its server/routes.go
    errors.TextTooLongError.code: "the input length exceeds the context length",
    errors.UnknownModelError.code: "model not found",
}
NO_RETRY = {"x-should-retry": "false"}  # OpenAI's SDK would
MISMATCH_STATUS = "x-emberd-mismatch-status"  # by which a balancer asks for a status it can act on
HEADERS: Mapping[int | type[errors.EmberdError], Mapping[str, str]] = {
    errors.ContentCodingError: {"Accept-Encoding": "identity"},  # RFC 9110, 12.5.3
    401: {"WWW-Authenticate": "Bearer"},
    409: NO_RETRY,
    errors.FingerprintMismatchError: NO_RETRY,  # also as a 503
    429: {"Retry-After": "1"},
    503: {"Retry-After": "2"},
}
SPOKEN = "emberd_dialect"  # key in a request's state, set by routes that know their dialect
BY_PATH: Mapping[str, Dialect] = {
    "/embeddings": "openai",
    "/v1/embed": "cohere",
    "/v2/embed": "cohere",
    "/v1/rerank": "native",  # Jina's errors have a `detail`, too
    "/v2/rerank": "cohere",
    "/": "tei",
    "/info": "tei",
    "/tokenize": "tei",
    "/embed_sparse": "tei",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error before it gets a dialect's shape; `field` names the wrong part of the request."""

    status: int
    code: str
    message: str
    hint: str | None = None
    field: str | None = None

    @property
    def sentence(self) -> str:
        """Message and hint as one text, for shapes without a field for hints."""
        if not self.hint:
            return self.message
        stop = "" if self.message.endswith((".", "!", "?")) else "."
        return f"{self.message}{stop} {self.hint}"


def status_of(error: errors.EmberdError) -> int:
    """Return the HTTP status of an error: its class's, or that of the nearest class above it."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def dialect_of(scope: Scope) -> Dialect:
    """Return the dialect in which a request is answered."""
    path: str = scope["path"]
    spoken: Dialect | None = scope.get("state", {}).get(SPOKEN)
    if spoken:
        return spoken
    if path in BY_PATH:
        return BY_PATH[path]
    if "/v1/" in f"{path}/":  # also where its clients guess wrong: /api/v1/embeddings
        return "openai"
    if f"{path}/".startswith("/api/"):
        return "ollama"
    return "native"


def shape(problem: Problem, dialect: Dialect) -> dict[str, Any]:
    """Return the body of an error in the shape that clients of that dialect expect."""
    if dialect == "openai":
        error = {"message": problem.sentence, "type": _openai_type(problem.status)}
        return {"error": {**error, "param": problem.field, "code": problem.code}}
    if dialect == "ollama":
        words = OLLAMA_WORDS.get(problem.code)
        return {"error": f"{words}: {problem.sentence}" if words else problem.sentence}
    if dialect == "cohere":
        return {"message": problem.sentence}
    if dialect == "tei":
        return {"error": problem.sentence, "error_type": _tei_type(problem)}
    return {"detail": problem.message, "code": problem.code, "hint": problem.hint}


def render(error: errors.EmberdError, scope: Scope) -> Response:
    """Return an error of the tree as the response to the request of `scope`."""
    status = STATUS_IN.get(dialect_of(scope), {}).get(error.code) or status_of(error)
    if isinstance(error, errors.FingerprintMismatchError) and _wants_503(scope):
        status = 503
    problem = Problem(status, error.code, error.message, error.hint, error.field)
    response = _respond(problem, scope)
    response.headers.update(HEADERS.get(type(error), {}))
    return response


def _wants_503(scope: Scope) -> bool:
    """Whether a mismatch is to be a 503, which nginx and HAProxy take to another server."""
    return Headers(scope=scope).get(MISMATCH_STATUS) == "503"


def no_route(scope: Scope, known: Iterable[str]) -> Response:
    """Return the 404 for a path that is none of the `known` ones, which names the nearest."""
    path, hint = scope["path"][:200], "See /docs."
    if meant := nearest(path, sorted(each.replace(":path", "") for each in known)):
        hint = f"Did you mean {meant}? {hint}"
    return _respond(Problem(404, "unknown_route", f"There is no route {path}.", hint), scope)


def wrong_method(scope: Scope, method: str, methods: Iterable[str]) -> Response:
    """Return the 405 for a path that has only these methods."""
    detail = f"{scope['path'][:200]} does not support {method}."
    response = _respond(Problem(405, "method_not_allowed", detail, "See /docs."), scope)
    response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _respond(problem: Problem, scope: Scope) -> Response:
    return Response(
        orjson.dumps(shape(problem, dialect_of(scope))),
        status_code=problem.status,
        headers=dict(HEADERS.get(problem.status, {})),
        media_type="application/json",
    )


def _openai_type(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return known.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _tei_type(problem: Problem) -> str:
    """Return TEI's word for it. Source: `ErrorType` in its router."""
    if problem.code == errors.NoTextsError.code:
        return "Empty"
    known = {429: "Overloaded", 503: "Unhealthy"}
    return known.get(problem.status, "Backend" if problem.status >= 500 else "Validation")
