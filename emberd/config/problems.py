"""What is wrong with a configuration, in the words of people who write config files.

pydantic describes problems in terms of Python, and does not say where in the file they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches

from pydantic import ValidationError

from emberd.config.document import Keys
from emberd.config.settings import Settings, StoreSettings, leaves_of
from emberd.errors import ConfigError
from emberd.registry.spec import ModelSpec, Source, TokenIds
from emberd.spaces.chunks import StoreChunking

PROBLEMS = {  # by pydantic's type of the problem
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "dataclass_type": "should be a group of keys",
    "dict_type": "should be a group of keys",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "greater_than": "should be more than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "should be a smaller number",
    "int_type": "should be a whole number",
    "invalid_key": "is not a setting",
    "less_than_equal": "should be at most {le}",
    "list_type": "should be a list",
    "literal_error": "should be {expected}",
    "string_too_short": "should not be empty",
    "string_type": "should be text (put it in quotes)",
    "string_unicode": "should be text",
    "too_short": "needs at least one entry",
    "tuple_type": "should be a list",
}
NAMES_OF_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
}
UNKNOWN = "unexpected_keyword_argument"  # pydantic's name for an unknown key


def explain(
    error: ValidationError,
    prefix: Keys,
    where: Callable[[Keys], str],
    root: type,
) -> ConfigError:
    """Return an error that names the first problem's place and key, and what would be right."""
    problems = error.errors(include_url=False)
    # A missing required key is often a mistyped one, so an unknown key is reported first.
    first = min(problems, key=lambda problem: problem["type"] != UNKNOWN)
    keys: Keys = (*prefix, *(key for key in first["loc"] if key != "[key]"))
    name = ".".join(map(str, keys))
    place = where(keys)
    if first["type"] == UNKNOWN:
        group = _group_at(root, first["loc"][:-1])
        known = [field.name for field in fields(group) if field.name != "name"]
        known += ["models"] if group is Settings else []
        inner = [".".join(leaf) for leaf in leaves_of(Settings())] if group is Settings else []
        near = nearest(str(keys[-1]), [*known, *inner], ".")
        return ConfigError(
            f"{place}: {name}: there is no such setting.",
            hint=f"Did you mean {near}?" if near else f"Possible keys: {', '.join(known)}.",
        )
    if first["type"] == "missing":
        return ConfigError(
            f"{place}: {name}: this key is required.",
            hint=f"Add `{keys[-1]}:` under `{keys[-2]}:`.",
        )
    plain = first["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    ours = PROBLEMS.get(first["type"])
    problem = ours.format_map(first.get("ctx", {})) if ours else plain
    given = first["input"]
    subject = repr(given) if isinstance(given, str | int | float) else "it"
    return ConfigError(
        f"{place}: {name}: {subject} {problem}.",
        hint="docs/configuration.md describes every key; `emberd config show --all` shows the"
        " values in force.",
    )


def _group_at(root: type, loc: tuple[int | str, ...]) -> type:
    """Return the dataclass that the keys `loc` lead to, starting from `root`."""
    if root is ModelSpec:
        return TokenIds if loc[:1] == ("token_ids",) else Source if loc else ModelSpec
    if loc[:1] == ("stores",):
        return StoreChunking if loc[2:] == ("chunk",) else StoreSettings
    group = root()
    for key in loc:
        group = getattr(group, str(key), group)
    return type(group)


def nearest(wrong: str, names: Sequence[str], separator: str) -> str | None:
    """Return the name that ends with `wrong`, else the most similar one, if there is any."""
    longer = [name for name in names if name.endswith(separator + wrong)]
    return next(iter(longer or get_close_matches(wrong, names, n=1)), None)


def kind_of(value: object) -> str:
    """Say what a value is, in the words of people who write config files."""
    return NAMES_OF_TYPES.get(type(value), "something else")
