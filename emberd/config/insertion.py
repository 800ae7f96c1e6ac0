"""Where a key or an entry goes in the text of a config file: every other byte stays as it is.

The parser that reads the file also says where things are, and only those characters change: dumping
the whole document, even with a library that keeps comments, would rewrite spaces, line ends and
lists. The result is parsed again and must differ in that one key alone.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from emberd.config.document import parse
from emberd.units import format_plain

DEFAULT, MODELS = "default", "models"
STEP = 2  # blanks by which an entry's keys are indented, where the file shows no other habit
PLAIN = re.compile(r"[A-Za-z0-9/~][A-Za-z0-9._/@+~-]*")  # text that needs no quotes, if YAML agrees


def with_default(text: str, name: str) -> str:
    """Return `text` with another value of `default:`, or the key added.

    Raises:
        ValueError, yaml.YAMLError: not YAML, not a mapping, or another key would change too.
    """
    root, data = _read(text)
    there = _value_of(root, DEFAULT)
    if there is not None:
        style = there.style if isinstance(there, yaml.ScalarNode) else None
        changed = _replaced(text, there, json.dumps(name) if _is_json(text) else _name(name, style))
    elif root.flow_style:
        changed = _into_braces(text, root, f'"{DEFAULT}": {json.dumps(name)}')
    else:
        changed = _append(text, [f"{' ' * _column(root)}{DEFAULT}: {_name(name)}"])
    return _checked(changed, {**data, DEFAULT: name})


def with_model(
    text: str, name: str, entry: Mapping[str, object], comments: Mapping[str, str]
) -> str:
    """Return `text` with an entry added to `models:`, after those that are there.

    Where the file is JSON or has its models in braces, there are no comments.

    Raises:
        ValueError, yaml.YAMLError: as for `with_default`, or there is an entry of that name.
    """
    root, data = _read(text)
    before = data.get(MODELS) or {}
    if not isinstance(before, dict) or name in before:
        raise ValueError("no names of models, or there is an entry of that name")
    models = _value_of(root, MODELS)
    in_braces = f"{json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}"
    if isinstance(models, yaml.MappingNode) and models.flow_style:
        changed = _into_braces(text, models, in_braces)
    elif root.flow_style and models is not None:
        changed = _replaced(text, models, f"{{{in_braces}}}")  # it was null
    elif root.flow_style:
        changed = _into_braces(text, root, f'"{MODELS}": {{{in_braces}}}')
    elif models is None:
        column = _column(root)
        lines = entry_lines(name, entry, comments, column=column + STEP)
        changed = _append(text, [f"{' ' * column}{MODELS}:", *lines])
    else:
        changed = _below(text, root, models, name, entry, comments)
    return _checked(changed, {**data, MODELS: {**before, name: entry}})


def entry_lines(
    name: str,
    entry: Mapping[str, object],
    comments: Mapping[str, str],
    *,
    column: int = STEP,
    step: int = STEP,
) -> list[str]:
    """Return an entry as lines of YAML, one for each key, with its comment behind it.

    `column` is where the name begins, and `step` how much further its keys are indented.
    """
    keys = {key: f"{key}: {_inline(value)}" for key, value in entry.items()}
    short = (keys[key] for key, value in entry.items() if not isinstance(value, list | Mapping))
    width = max(map(len, short), default=0)
    lines = [f"{' ' * column}{_name(name)}:"]
    for key, line in keys.items():
        comment = format_plain(comments.get(key, ""))
        behind = f"{line:<{width}}  # {comment}" if comment else line
        lines.append(f"{' ' * (column + step)}{behind}")
    return lines


def _read(text: str) -> tuple[yaml.MappingNode, dict[str, Any]]:
    """Return the mapping at the root, an empty one for an empty file, and its content."""
    plain, data = parse(text)
    root = yaml.compose(plain, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode) and isinstance(data, dict):
        return root, data
    if data is None:
        return yaml.MappingNode("", [], flow_style=False), {}
    raise ValueError("not a mapping")


def _checked(changed: str, wanted: Mapping[str, object]) -> str:
    if parse(changed)[1] != wanted:
        raise ValueError("another key would change")
    return changed


def _value_of(root: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in root.value if key.value == name), None)


def _column(block: yaml.MappingNode, otherwise: int = 0) -> int:
    """Return where the keys of a block begin, counted from 0."""
    return block.value[0][0].start_mark.column if block.value else otherwise


def _replaced(text: str, node: yaml.Node, written: str) -> str:
    begin, end = node.start_mark.index, node.end_mark.index
    end = begin + len(text[begin:end].rstrip())  # a multi-line value includes the line end
    space = " " if text[begin - 1] == ":" else ""
    return text[:begin] + space + written + text[end:]


def _into_braces(text: str, braces: yaml.MappingNode, entry: str) -> str:
    """Add an entry at the front, on its own line if the next entry is on its own line."""
    if not braces.value:
        begin = braces.start_mark.index + 1
        return text[:begin] + entry + text[begin:]
    first = braces.value[0][0].start_mark.index
    indent = text[:first].rpartition("\n")[2]
    between = " " if indent.strip() else _line_end(text) + indent
    return text[:first] + entry + "," + between + text[first:]


def _below(
    text: str,
    root: yaml.MappingNode,
    models: yaml.Node,
    name: str,
    entry: Mapping[str, object],
    comments: Mapping[str, str],
) -> str:
    """Add an entry after the last one of a block, indented as the others are."""
    outer = _column(root)
    column, step = outer + STEP, STEP
    end = _end_of(models)
    if isinstance(models, yaml.MappingNode):
        column = _column(models, column)
        last = models.value[-1][1]
        if isinstance(last, yaml.MappingNode) and not last.flow_style:
            step = _column(last, column + STEP) - column
    else:  # null, perhaps written as such
        begin = models.start_mark.index
        text, end = text[:begin] + text[end:], begin
    lines = entry_lines(name, entry, comments, column=column, step=step)
    place = _after_comments(text, end, outer)
    return _append(text[:place], lines, like=text) + text[place:]


def _end_of(node: yaml.Node) -> int:
    """Return where the last character of a node is; a block's own mark is at what comes next."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        key, value = node.value[-1]
        # An alias has the marks of what it means, which may be anywhere.
        return max(int(key.end_mark.index), _end_of(value))
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end_of(node.value[-1])
    return int(node.end_mark.index)


def _after_comments(text: str, index: int, column: int) -> int:
    """Return where the next line begins that is not a comment indented more than `column`."""
    if index and text[index - 1] != "\n":
        index = _next_line(text, index)
    place = index
    while index < len(text):
        following = _next_line(text, index)
        line = text[index:following].strip("\r\n")
        said = line.lstrip(" ")
        if said and not (said.startswith("#") and len(line) - len(said) > column):
            break
        place, index = (following if said else place), following
    return place


def _next_line(text: str, index: int) -> int:
    return text.find("\n", index) + 1 or len(text)


def _append(text: str, lines: list[str], like: str | None = None) -> str:
    """Add lines at the end; at the front they could separate a comment from its key."""
    end = _line_end(text if like is None else like)
    between = "" if not text or text.endswith("\n") else end
    return text + between + "".join(line + end for line in lines)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _name(name: str, style: str | None = None) -> str:
    """Return a name as YAML, in the quotes it had, or quoted if it would be read as a number."""
    kept = style if style in ("'", '"') else None
    dumped: str = yaml.safe_dump(name, default_style=kept, width=10**6)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _inline(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)
