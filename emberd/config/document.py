"""The one reader of config files: YAML or JSON as plain data that remembers each key's line."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from emberd.errors import ConfigError
from emberd.files import read

Keys = tuple[str | int, ...]
MOST_VALUES = 100_000  # in one file, with aliases expanded


@dataclass(frozen=True, slots=True)
class Document:
    """`data` is a mapping; `lines` gives the line, from 1, of each path of keys into it."""

    path: Path
    data: dict[str, Any]
    lines: dict[Keys, int] = field(default_factory=dict)

    def where(self, keys: Keys) -> str:
        """Return `file:line` of the deepest part of `keys` that is in the file."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"


def read_own(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file that is part of emberd: a mapping.

    Parsed by libyaml where PyYAML has it: a tenth of the time, which every command spends. Not for
    a file that others wrote: a deeply nested one ends the process.
    """
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # noqa: N806 - a class
    content: dict[str, Any] = yaml.load(read(path), SafeLoader)  # noqa: S506 - as its name says
    return content


def read_document(path: Path) -> Document:
    """Read the file; a missing one is empty.

    Raises:
        ConfigError: it cannot be read, is not YAML, or is not a mapping; names file and line.
    """
    try:
        text = read(path).decode().replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return Document(path, {})
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ConfigError(
            f"{path} cannot be read: {reason}.", hint="It must be a text file in UTF-8."
        ) from None
    try:
        text, data = parse(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Keys, int] = {}
        if node is not None:
            _note_lines(path, node, (), lines)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = (mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))) + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if isinstance(error, RecursionError):
            problem = "it is nested too deeply"
        raise ConfigError(
            f"{path}:{line}: this is not valid YAML: {problem}.",
            hint="Check the indentation, and the colon and space after each key.",
        ) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        what = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(
            f"{path}:1: expected keys such as `default:` and `models:`, found {what}.",
            hint="`emberd config init --print` prints a file to start from.",
        )
    return Document(path, data, lines)


def parse(text: str) -> tuple[str, Any]:
    """Return YAML with the same keys on the same lines, and its content.

    JSON is read as JSON: PyYAML refuses tabs, takes `1e3` for text and cuts an escaped emoji in
    two. Outside of strings, which cannot contain a tab, a space means the same.

    Raises:
        ValueError, yaml.YAMLError, RecursionError: it is neither, or has an escape for half a
            character.
    """
    try:
        text, data = text.replace("\t", " "), json.loads(text)
    except json.JSONDecodeError:
        _refuse_bombs(yaml.compose(text, Loader=yaml.SafeLoader))
        try:
            data = yaml.safe_load(text)
        except (LookupError, TypeError, AttributeError, ArithmeticError):  # such as `!!bool maybe`
            raise ValueError("a tag does not fit its value") from None
    json.dumps(data, ensure_ascii=False, skipkeys=True, default=str).encode()
    return text, data


def _refuse_bombs(root: yaml.Node | None) -> None:
    """Raise ValueError where aliases of aliases expand to more than any config file needs.

    Ten lines can mean a billion values. Merging a mapping copies it, so keys count too.
    """
    left = [root] if root else []
    seen = 0
    while left:
        node = left.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise ValueError("its aliases expand to too much, or refer to themselves")
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            left += [part for pair in node.value for part in pair]


def _note_lines(path: Path, node: yaml.Node, keys: Keys, lines: dict[Keys, int]) -> None:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in seen and name != "<<":
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: the key {name!r} appears twice.",
                    hint="Remove one of them.",
                )
            seen.add(name)
            lines[(*keys, name)] = key.start_mark.line + 1
            _note_lines(path, value, (*keys, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(path, value, (*keys, index), lines)
