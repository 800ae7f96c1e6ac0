"""A request's body -> a validated object, with an error that names what is wrong.

The body is read and parsed by hand, not by FastAPI, so that size, media type, broken JSON and
wrong shapes have the statuses and words of the contract.
"""

import json
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from emberd.errors import (
    BadOptionError,
    MalformedBodyError,
    MediaTypeError,
    TooLargeError,
    WrongShapeError,
)
from emberd.units import format_size

PATIENCE_FACTOR = 4  # a body over the limit is read this far before the answer, so it arrives


class Body(BaseModel):
    """A request body. Types are strict; keys that mean nothing here are ignored, as ever."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


T = TypeVar("T", bound=Body)


async def read(request: Request, shape: type[T], max_body: int) -> T:
    """Return the body as `shape`.

    Raises:
        MediaTypeError, TooLargeError, MalformedBodyError: 415, 413, 400.
        WrongShapeError: 422; the message names the field.
        BadOptionError: 400; an option out of range.
    """
    return _validate(_parse(await _receive(request, max_body)), shape)


async def read_optional(request: Request, shape: type[T], max_body: int) -> T:
    """Return the body as `shape`, whose defaults stand for no body at all."""
    length = request.headers.get("content-length")
    if length == "0" or (length is None and "transfer-encoding" not in request.headers):
        return shape()
    return await read(request, shape, max_body)


async def _receive(request: Request, max_body: int) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            f"The body is declared as {media_type or 'nothing'}, not as JSON.",
            hint="Send the header Content-Type: application/json.",
        )
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= max_body:
                chunks.append(chunk)
            elif size > max_body * PATIENCE_FACTOR:
                break
    except ClientDisconnect:
        raise MalformedBodyError("The body ended too early.") from None
    if size > max_body:
        raise TooLargeError(
            f"The body is larger than {format_size(max_body)}.",
            hint="Send the texts in several requests, or raise limits.max_body.",
        )
    return b"".join(chunks)


def _parse(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # orjson refuses lone surrogates as it should; look again to tell them from broken JSON.
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedBodyError("The body is not UTF-8.", hint="Encode it as UTF-8.") from None
    except RecursionError:
        raise MalformedBodyError("The body is nested too deep.") from None
    except ValueError as error:
        where = ""
        if isinstance(error, json.JSONDecodeError):
            where = f" at line {error.lineno}, column {error.colno}"
        raise MalformedBodyError(
            f"The body is not JSON{where}.", hint="Check quotes, commas and brackets there."
        ) from None
    place = _find_lone_surrogate(data)
    if place is None:
        raise MalformedBodyError("The body is nested too deep, or holds a number out of range.")
    raise WrongShapeError(
        f"{place}: holds half of a surrogate pair, which is no character.",
        hint="The text was cut inside of a character; cut it elsewhere or remove that half.",
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _find_lone_surrogate(data: object) -> str | None:
    """Return where in the body a string is that UTF-8 cannot hold, such as `texts.3`."""
    stack: list[tuple[str, object]] = [("", data)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                return place or "the body"
        elif isinstance(value, list):
            stack += [(f"{place}.{i}".lstrip("."), item) for i, item in enumerate(value)]
        elif isinstance(value, dict):
            for key, item in value.items():
                name = key.encode(errors="replace").decode()
                stack += [(f"{place}.{name}".lstrip("."), item), (f"a key of {place}", key)]
    return None


def _validate(data: Any, shape: type[T]) -> T:  # noqa: ANN401 - whatever JSON holds
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"])) or "the body"
    if first["type"] == "missing":
        raise WrongShapeError(
            f"{field}: this field is missing.", hint="See /openapi.json for the whole shape."
        )
    problem = first["msg"].removeprefix("Input ")
    if first["type"] == "literal_error":
        raise BadOptionError(f"{field}: {problem}.")
    if first["type"] == "model_type":
        problem = 'should be an object such as {"texts": ["..."]}'
    raise WrongShapeError(f"{field}: {problem}.", hint="See /openapi.json for the whole shape.")
