"""A request's body -> a validated object, with an error that names what is wrong.

The body is read and parsed by hand, not by FastAPI, so that size, media type, broken JSON and
wrong shapes have the statuses and words of the contract.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from starlette.requests import Request

from emberd.api.held import share_of
from emberd.errors import (
    BadOptionError,
    ContentCodingError,
    MalformedBodyError,
    MediaTypeError,
    TokenIdsError,
    TooLargeError,
    WrongShapeError,
)
from emberd.registry.spec import InputType
from emberd.units import format_size

NESTED = "No request takes more than a list of texts."
SHAPE = "See /openapi.json for the whole shape."
NULL = {"type": "null"}
LONGEST_FIELD = 200  # characters of a field's name in an error

StrictTexts = Annotated[list[str], FailFast()]
"""Millions of values that are no texts would otherwise be as many errors: gigabytes of them."""


class Body(BaseModel):
    """A request body. Types are strict; keys that mean nothing here are ignored, as ever.

    `null` is as good as leaving a key out: many clients send all of their options.
    """

    model_config = ConfigDict(
        strict=True, extra="ignore", hide_input_in_errors=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Say so in /openapi.json."""
        shown = handler.resolve_ref_schema(handler(core))
        needed = shown.get("required", ())
        for name, option in shown.get("properties", {}).items():
            if name not in needed:
                kinds = option.pop("anyOf", None) or [_kind_of(option)]
                option["anyOf"] = [kind for kind in kinds if kind != NULL] + [NULL]
        return shown


def _kind_of(option: dict[str, Any]) -> dict[str, Any]:
    """Take out of a schema what says which values there are; leave what is said about them."""
    about = {"title", "description", "default", "examples"}
    return {key: option.pop(key) for key in list(option) if key not in about}


def _as_list(given: object) -> object:
    """Return one text as a list of one; refuse token ids, alone or in lists."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise PydanticCustomError("texts", "Input should be a string or a list of strings")
    if lists_of_ids(given):
        raise TokenIdsError(
            "Token ids are not taken, as another tokenizer's would embed as garbage.",
            hint="Send the texts themselves (LangChain: check_embedding_ctx_length=False). For"
            " clients of OpenAI that cannot, the model's entry can say how to read them: token_ids"
            " in docs/configuration.md.",
            field="input",
        )
    return given


def lists_of_ids(given: object) -> list[list[int]]:
    """Return what is one list of token ids, or several, as several; nothing when it is not."""
    if not isinstance(given, list) or not given:
        return []
    lists = [given] if _are_ids(given) else given
    return lists if all(map(_are_ids, lists)) else []


def _are_ids(given: object) -> bool:
    return isinstance(given, list) and bool(given) and all(type(item) is int for item in given)


Texts = Annotated[
    StrictTexts,
    BeforeValidator(_as_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""One text or a list of them, as other servers' requests have it."""

ROLES: Mapping[str, InputType | None] = {  # what users of NIM, Cohere, Jina and Voyage send
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "classification": None,
    "clustering": None,
    "separation": None,
    "text-matching": None,
}
CUT_AT_THE_END: Mapping[str, bool] = {"END": True, "NONE": False}


def _as_role(given: object) -> object:
    return ROLES.get(given, given) if isinstance(given, str) else given


def _as_truncate(given: object) -> object:
    """Read NIM's and Cohere's words; refuse to cut where no model here was trained to be cut."""
    if not isinstance(given, str):
        return given
    if given.upper() == "START":
        refuse_start("truncate")
    return CUT_AT_THE_END.get(given.upper(), given)


def refuse_start(field: str) -> None:
    """Raise BadOptionError: a text would have to lose its beginning."""
    raise BadOptionError(
        f"{field}: texts are cut at their end only, never at the start.",
        hint="The beginning mostly says what a text is about. Cut it yourself, or send 'END' for"
        " the end or 'NONE' for an error instead.",
        field=field,
    )


Role = Annotated[
    InputType | None,
    BeforeValidator(_as_role),
    WithJsonSchema({"type": "string", "enum": list(ROLES)}),
]
"""Which of the model's prompts goes before each text, by the names that other servers have.

For tasks that are no search no model here has a prompt.
"""

Truncate = Annotated[
    bool,
    BeforeValidator(_as_truncate),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["END", "NONE"]}]}),
]
"""Whether texts that are too long are cut at their end."""

T = TypeVar("T", bound=Body)


async def read(request: Request, shape: type[T], max_body: int, *, undeclared: bool = False) -> T:
    """Return the body as `shape`. Raises what `read_json` and `validate` raise."""
    return validate(await read_json(request, max_body, undeclared=undeclared), shape)


async def read_json(request: Request, max_body: int, *, undeclared: bool = False) -> object:
    """Return what JSON the body holds.

    `undeclared`: also when it is not said to be JSON, unless a browser may have sent it.

    Raises:
        MediaTypeError, TooLargeError, MalformedBodyError: 415, 413, 400.
        QueueFullError: 429; what other requests hold leaves no room for it.
        WrongShapeError: 422; a text with a lone surrogate.
        ClientDisconnect: the client hung up before its end; nobody is there to be answered.
    """
    if not (undeclared and is_from_no_page(request)):
        _check_media_type(request)
    return _parse(await _receive(request, max_body))


async def read_optional(request: Request, shape: type[T], max_body: int) -> T:
    """Return the body as `shape`, whose defaults stand for no body at all."""
    length = request.headers.get("content-length")
    if length == "0" or (length is None and "transfer-encoding" not in request.headers):
        return shape()
    return await read(request, shape, max_body)


def is_from_no_page(request: Request) -> bool:
    """Whether no web page can have sent this POST.

    Browsers send an Origin with each one that leads elsewhere, also as a form and without a
    preflight, and say to loopback and HTTPS whose it is (fetch.spec.whatwg.org, 3.2; Fetch
    Metadata Request Headers, 2.4).
    """
    return not {"origin", "sec-fetch-site"} & set(request.headers.keys())


def _check_media_type(request: Request) -> None:
    """Refuse what a web page can post without a preflight."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            f"The body is declared as {_shown(media_type) or 'nothing'}, not as JSON.",
            hint="Send the header Content-Type: application/json.",
        )


async def _receive(request: Request, max_body: int) -> bytearray:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise ContentCodingError(
            f"The body is compressed ({_shown(coding)}), which this server does not read.",
            hint="Send it as it is, without Content-Encoding.",
        )
    announced = int(request.headers.get("content-length", 0))  # uvicorn checked that it is one
    if announced > max_body:
        raise _too_large(max_body)
    share = share_of(request.scope)
    share.check(announced)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > max_body:  # the connection throws away what still comes
            raise _too_large(max_body)
        share.hold(len(body) + len(chunk))
        body += chunk
    return body


def _too_large(max_body: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {format_size(max_body)}.",
        hint="Send the texts in several requests, or raise limits.max_body.",
    )


def _shown(header: str) -> str:
    return header[:80].encode("unicode_escape").decode()


def _parse(body: bytearray) -> object:
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
        raise MalformedBodyError("The body is nested too deep.", hint=NESTED) from None
    except ValueError as error:
        where = ""
        if isinstance(error, json.JSONDecodeError):
            where = f" at line {error.lineno}, column {error.colno}"
        raise MalformedBodyError(
            f"The body is not JSON{where}.", hint="Check quotes, commas and brackets there."
        ) from None
    place = _find_lone_surrogate(data)
    if place is None:
        raise MalformedBodyError(
            "The body is nested too deep, or holds a number out of range.", hint=NESTED
        )
    place = place[:LONGEST_FIELD]
    raise WrongShapeError(
        f"{place}: holds half of a surrogate pair, which is no character.",
        hint="The text was cut inside of a character; cut it elsewhere or remove that half.",
        field=place,
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _find_lone_surrogate(data: object) -> str | None:
    """Return where in the body a string is that UTF-8 cannot hold, such as `texts.3`."""
    names: list[object] = [""]
    inside = [_parts([data])]  # of each level, what is still to be looked at: nothing is copied
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
    """Yield names and values; a key that is no UTF-8 is a value, too."""
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


def validate(data: Any, shape: type[T]) -> T:  # noqa: ANN401 - whatever JSON holds
    """Return what JSON holds as `shape`.

    Raises:
        WrongShapeError: 422; the message names the field.
        BadOptionError: 400; an option that has no such value.
        TokenIdsError: 400.
    """
    if shape.model_config["extra"] == "forbid" and isinstance(data, dict):
        for key in data:  # pydantic would make an error of each
            if key not in shape.model_fields:
                field = key[:LONGEST_FIELD]
                raise WrongShapeError(f"{field}: there is no such field.", hint=SHAPE, field=field)
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
