"""What /openapi.json says about routes whose bodies are read and written by hand."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from emberd import __version__
from emberd.api.fields import RequestBody
from emberd.api.routes import Route
from emberd.aside import aside

JSON = "application/json"
REFERENCE = "#/components/schemas/{model}"
Responses = dict[int | str, dict[str, Any]]

WHEN: Mapping[int, str] = {
    400: "No texts, token ids instead of texts, broken JSON, or an option out of range.",
    401: "A token is required, and it is missing or wrong.",
    403: "The Host or Origin is not allowed.",
    404: "No model or store has that name.",
    409: "The model's vectors are not in the expected space, or a store cannot be read.",
    413: "The body or the number of texts is over the limit.",
    415: "The body is compressed, or not declared as JSON.",
    422: "The JSON has the wrong shape, or a text is too long and may not be cut.",
    429: "Too many texts or bytes are waiting.",
    500: "The model cannot be loaded, or gave no usable vector.",
    503: "The model cannot be fetched, there is no room for it, or the server is shutting down.",
    504: "The deadline passed.",
}
ACCESS = (401, 403)
MODEL = (*ACCESS, 404)
LOADING = (*MODEL, 400, 413, 415, 422, 429, 500, 503, 504)
EMBEDDING = (*LOADING, 409)


class ResponseBody(BaseModel):
    """The shape of an answer, for /openapi.json only: answers are built without it."""

    model_config = ConfigDict(defer_build=True)


class NativeError(ResponseBody):
    """What went wrong, and what to do."""

    detail: str
    code: str
    hint: str | None


class OpenAIProblem(ResponseBody):
    """The inside of an `OpenAIError`."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(ResponseBody):
    """An error in OpenAI's shape."""

    error: OpenAIProblem


class OllamaError(ResponseBody):
    """An error in Ollama's shape."""

    error: str


class CohereError(ResponseBody):
    """An error in Cohere's shape."""

    message: str


class TEIError(ResponseBody):
    """An error in the shape of text-embeddings-inference."""

    error: str
    error_type: str


IDENTITY = {
    name: {"description": what, "schema": {"type": "string"}}
    for name, what in {
        "X-Emberd-Model": "The model's name in the registry.",
        "X-Emberd-Fingerprint": "The vector space of the answer.",
        "X-Emberd-Compute": "What computed it: the backend, and in which numbers.",
    }.items()
}
EXPECT = {
    "name": "X-Emberd-Expect-Fingerprint",
    "in": "header",
    "required": False,
    "description": "The expected vector space; a different one gives 409.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
}

MISMATCH = {
    "name": "X-Emberd-Mismatch-Status",
    "in": "header",
    "required": False,
    "description": "`503`: instead of 409, for balancers that try another server then.",
    "schema": {"type": "string", "enum": ["503"]},
}

CACHE = {
    "name": "X-Emberd-Cache",
    "in": "header",
    "required": False,
    "description": "`false`: compute every text anew, for this request alone.",
    "schema": {"type": "string", "enum": ["true", "false"]},
}


def shows(*media_types: str) -> Responses:
    """Describe an answer that is a page or plain text."""
    content = {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    return {200: {"description": "A page, or plain text.", "content": content}}


def takes(
    shape: object, *examples: Mapping[str, Any], required: bool = True, embeds: bool = False
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads `shape` from its body."""
    shown = {f"example {number}": {"value": value} for number, value in enumerate(examples, 1)}
    content = {JSON: {"schema": schema(shape), "examples": shown}}
    extra: dict[str, Any] = {"requestBody": {"required": required, "content": content}}
    return extra | ({"parameters": [EXPECT, MISMATCH, CACHE]} if embeds else {})


def gives(
    shape: object, what: str, *, embeds: bool = False, further: tuple[str, ...] = ()
) -> Responses:
    """Return the response entry for 200; `further` lists media types that are bytes."""
    content = {JSON: {"schema": schema(shape)}}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in further}
    entry: dict[str, Any] = {"description": what, "content": content}
    return {200: entry | ({"headers": IDENTITY} if embeds else {})}


def fails(shape: object, statuses: tuple[int, ...]) -> Responses:
    """Return the response entries for errors, in the shape of a dialect."""
    content = {JSON: {"schema": schema(shape)}}
    return {
        status: {"description": WHEN[status], "content": content} for status in sorted(statuses)
    }


def schema(shape: object) -> dict[str, Any]:
    """Return a JSON schema: of a class (by reference), of any of several, or the one given."""
    if isinstance(shape, dict):
        return shape
    if isinstance(shape, tuple):
        return {"anyOf": [schema(one) for one in shape]}
    assert isinstance(shape, type)
    return {"$ref": REFERENCE.format(model=shape.__name__)}


class Document:
    """The OpenAPI document of these routes, which are loaded and described when somebody asks.

    FastAPI, which makes it, would take a third of the server's start and 8 MiB.
    """

    def __init__(self, routes: Callable[[], Sequence[Route]]) -> None:
        self._routes = routes
        self._made: dict[str, Any] | None = None

    async def get(self) -> dict[str, Any]:
        """Return it."""
        if not self._made:
            await aside(partial(import_module, "fastapi"))
            self._made = _describe(self._routes())
        return self._made


def _describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document, with the shapes that the routes refer to."""
    from fastapi import FastAPI

    app = FastAPI(title="emberd", description="A local embedding server.", version=__version__)
    for route in routes:
        app.add_api_route(
            route.path, route.endpoint, methods=list(route.methods), **route.described
        )
    shapes: list[type[BaseModel]] = [RequestBody, ResponseBody]
    for shape in shapes:  # grows during the loop
        shapes.extend(shape.__subclasses__())
    own = [shape for shape in shapes if not shape.__subclasses__()]  # the others are parts of these
    _, found = models_json_schema([(shape, "validation") for shape in own], ref_template=REFERENCE)
    described = app.openapi()
    described.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
    return described
