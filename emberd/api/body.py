"""A request's body becomes a validated object, or an error that names what is wrong.

The body is read and parsed by hand, not by FastAPI, so that size, media type, broken JSON and
wrong shapes get the statuses and words of the HTTP contract.
"""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from emberd.api.byte_budget import reservation_of
from emberd.api.fields import RequestBody
from emberd.errors import (
    BadOptionError,
    ContentCodingError,
    MalformedBodyError,
    MediaTypeError,
    TooLargeError,
    WrongShapeError,
)
from emberd.units import format_size

NESTED = "No request needs anything deeper than a list of texts."
SHAPE = "See /openapi.json for the full schema."
LONGEST_FIELD = 200  # characters of a field's name in an error

T = TypeVar("T", bound=RequestBody)


async def read(request: Request, shape: type[T], max_body: int, *, undeclared: bool = False) -> T:
    """Return the body as `shape`. Raises what `read_json` and `validate` raise."""
    return validate(await read_json(request, max_body, undeclared=undeclared), shape)


async def read_json(request: Request, max_body: int, *, undeclared: bool = False) -> object:
    """Return the JSON value in the body.

    `undeclared`: accept a body that is not declared as JSON, unless a browser may have sent it.

    Raises:
        MediaTypeError, TooLargeError, MalformedBodyError: 415, 413, 400.
        QueueFullError: 429; other requests leave no room for it.
        WrongShapeError: 422; a text contains a lone surrogate.
        ClientDisconnect: the client hung up before the body was complete.
    """
    if not (undeclared and is_from_no_page(request)):
        _check_media_type(request)
    return _parse(await _receive(request, max_body))


async def read_optional(request: Request, shape: type[T], max_body: int) -> T:
    """Return the body as `shape`, or `shape` with its defaults if there is no body."""
    length = request.headers.get("content-length")
    if length == "0" or (length is None and "transfer-encoding" not in request.headers):
        return shape()
    return await read(request, shape, max_body)


def is_from_no_page(request: Request) -> bool:
    """Whether this POST cannot have come from a web page.

    Browsers add an Origin to every cross-origin POST, including forms and requests without a
    preflight, and a Sec-Fetch-Site to loopback and HTTPS (fetch.spec.whatwg.org, 3.2; Fetch
    Metadata Request Headers, 2.4).
    """
    return not {"origin", "sec-fetch-site"} & set(request.headers.keys())


def _check_media_type(request: Request) -> None:
    """Refuse the media types that a web page can post without a preflight."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            "The body is not declared as JSON: its Content-Type is"
            f" {_escaped(media_type) or 'missing'}.",
            hint="Send the header Content-Type: application/json.",
        )


async def _receive(request: Request, max_body: int) -> bytearray:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise ContentCodingError(
            f"The body is compressed ({_escaped(coding)}), which this server does not support.",
            hint="Send it uncompressed, without Content-Encoding.",
        )
    announced = int(request.headers.get("content-length", 0))  # uvicorn checked that it is a number
    if announced > max_body:
        raise _too_large(max_body)
    reservation = reservation_of(request.scope)
    reservation.check(announced)
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        if len(body) + len(chunk) > max_body:  # the connection discards whatever follows
            raise _too_large(max_body)
        reservation.resize(len(body) + len(chunk))
        body += chunk
    return body


def _too_large(max_body: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {format_size(max_body)}.",
        hint="Send the texts in several requests, or raise limits.max_body.",
    )


def _escaped(header: str) -> str:
    return header[:80].encode("unicode_escape").decode()


def _parse(body: bytearray) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # orjson rightly refuses lone surrogates; parse again to tell them from broken JSON.
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedBodyError("The body is not UTF-8.", hint="Encode it as UTF-8.") from None
    except RecursionError:
        raise MalformedBodyError("The body is nested too deeply.", hint=NESTED) from None
    except ValueError as error:
        where = ""
        if isinstance(error, json.JSONDecodeError):
            where = f" at line {error.lineno}, column {error.colno}"
        raise MalformedBodyError(
            f"The body is not valid JSON{where}.", hint="Check quotes, commas and brackets there."
        ) from None
    place = _find_lone_surrogate(data)
    if place is None:
        raise MalformedBodyError(
            "The body is nested too deeply, or a number in it is out of range.", hint=NESTED
        )
    place = place[:LONGEST_FIELD]
    raise WrongShapeError(
        f"{place}: contains half of a surrogate pair, which is not a character.",
        hint="The text was cut inside a character. Cut it elsewhere, or remove that half.",
        field=place,
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _find_lone_surrogate(data: object) -> str | None:
    """Return where in the body a string cannot be encoded as UTF-8, such as `texts.3`."""
    names: list[object] = [""]
    inside = [_parts([data])]  # for each level, an iterator over the rest of it: nothing is copied
    while inside:
        for name, value in inside[-1]:
            if isinstance(value, str):
                if not (value.isascii() or _is_utf8(value)):
                    return ".".join(map(str, [*names, name][2:])) or "the body"
            elif isinstance(value, list | dict):
                names.append(name)
                inside.append(_parts(value))
                break
        else:
            inside.pop()
            names.pop()
    return None


def _parts(data: list[object] | dict[str, object]) -> Iterator[tuple[object, object]]:
    """Yield names and values; a key that is not UTF-8 counts as a value, too."""
    if isinstance(data, list):
        return enumerate(data)
    bad = (("a key", key) for key in data if not _is_utf8(key))
    return chain(bad, data.items())


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate(data: Any, shape: type[T]) -> T:  # noqa: ANN401 - any JSON value
    """Return a JSON value as `shape`.

    Raises:
        WrongShapeError: 422; the message names the field.
        BadOptionError: 400; an option does not have that value.
        TokenIdsError: 400.
    """
    if shape.model_config["extra"] == "forbid" and isinstance(data, dict):
        for key in data:  # stop at the first: pydantic would build an error for each
            if key not in shape.model_fields:
                field = key[:LONGEST_FIELD]
                raise WrongShapeError(f"{field}: unknown field.", hint=SHAPE, field=field)
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))[:LONGEST_FIELD] or "the body"
    problem = first["msg"].removeprefix("Input ")
    if first["type"] == "literal_error":
        hint = f"Send one of these values, or leave {field} out."
        raise BadOptionError(f"{field}: {problem}.", hint=hint, field=field)
    if first["type"] == "missing":
        problem = "this field is missing"
    if first["type"] == "model_type":
        problem = "should be a JSON object"
    raise WrongShapeError(f"{field}: {problem}.", hint=SHAPE, field=field)
