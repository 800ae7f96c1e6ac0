"""The base of every request body, and the field types that several dialects share."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from emberd.errors import BadOptionError, TokenIdsError
from emberd.registry.spec import AskedRole

NULL = {"type": "null"}

StrictTexts = Annotated[list[str], FailFast()]
"""Stops at the first value that is not a text: millions of errors would take gigabytes."""


class RequestBody(BaseModel):
    """A request body. Types are strict, and unknown keys are ignored.

    `null` means the same as leaving a key out: many clients send all of their options.
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
        """Add null to every optional field in /openapi.json."""
        shown = handler.resolve_ref_schema(handler(core))
        needed = shown.get("required", ())
        for name, option in shown.get("properties", {}).items():
            if name not in needed:
                kinds = option.pop("anyOf", None) or [_take_type(option)]
                option["anyOf"] = [kind for kind in kinds if kind != NULL] + [NULL]
        return shown


def _take_type(option: dict[str, Any]) -> dict[str, Any]:
    """Remove from a schema, and return, the keys that say which values are valid."""
    annotations = {"title", "description", "default", "examples"}
    return {key: option.pop(key) for key in list(option) if key not in annotations}


def _as_list(given: object) -> object:
    """Return one text as a list of one; refuse token ids, alone or in lists."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise PydanticCustomError("texts", "Input should be a string or a list of strings")
    if lists_of_ids(given):
        raise TokenIdsError(
            "Token ids are not accepted: ids from another tokenizer would embed as garbage.",
            hint="Send the texts themselves (LangChain: check_embedding_ctx_length=False). For"
            " OpenAI clients that cannot, the model's entry can say how to read them: see token_ids"
            " in docs/configuration.md.",
            field="input",
        )
    return given


def lists_of_ids(given: object) -> list[list[int]]:
    """Return one or several lists of token ids as several; an empty list for anything else."""
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
"""One text or a list of them, as in the requests of other servers."""

INPUT_TYPES: Mapping[str, AskedRole] = {  # what users of NIM, Cohere, Jina and Voyage send
    "query": "query",
    "document": "document",
    "passage": "document",
    "search_query": "query",
    "search_document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "classification": "none",
    "clustering": "none",
    "separation": "none",
    "text-matching": "none",
}
TRUNCATE_WORDS: Mapping[str, bool] = {"END": True, "NONE": False}  # NIM's and Cohere's


def _as_input_type(given: object) -> object:
    if not isinstance(given, str) or given not in INPUT_TYPES:
        raise PydanticCustomError("literal_error", "Input should be 'query' or 'document'")
    return INPUT_TYPES[given]


def _as_truncate(given: object) -> object:
    """Read NIM's and Cohere's words; refuse START, as no model here was trained that way."""
    if not isinstance(given, str):
        return given
    if given.upper() == "START":
        refuse_start("truncate")
    return TRUNCATE_WORDS.get(given.upper(), given)


def refuse_start(field: str) -> None:
    """Raise BadOptionError: the request wants texts cut at their beginning."""
    raise BadOptionError(
        f"{field}: texts are only cut at the end, never at the start.",
        hint="The beginning usually says what a text is about. Cut the text yourself, or send 'END'"
        " to cut the end or 'NONE' to get an error instead.",
        field=field,
    )


OUTPUT_DTYPE = (
    "What the numbers are; each is a vector space of its own. float is float32; binary and ubinary"
    " have the signs of eight numbers in each byte."
)

ModelName = Annotated[
    str | None,
    Field(
        description="Name or alias, also with a role (`bge-small:query`); null: the default model."
    ),
]

PromptType = Annotated[
    AskedRole | None,
    BeforeValidator(_as_input_type),
    WithJsonSchema({"type": "string", "enum": list(INPUT_TYPES)}),
]
"""Which of the model's prompts goes before each text, under the names that other servers use.

No model here has prompts for tasks other than search.
"""

Truncate = Annotated[
    bool,
    BeforeValidator(_as_truncate),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["END", "NONE"]}]}),
]
"""Whether texts that are too long are cut at the end."""
