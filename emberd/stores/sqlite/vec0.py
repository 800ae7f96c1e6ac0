"""Parses the DDL of a vec0 table as SQLite and sqlite-vec do.

SQLite splits the arguments; sqlite-vec tries each kind of argument in turn and takes the first that
fits. This follows its parser (sqlite-vec.c of 0.1.9: `vec0_token_next`, `vec0_parse_*`,
`vec0_init`) even where it looks odd, because that decides which column is the key. The parser reads
no further than it has to (`pk text not null primary key` is plain metadata), a word matches every
type that begins with it (`t` is `text`), a sign matches every word, and if a definition ends too
early, the last word is read again (`+text` is a column `text` of type text).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

MODULE = "vec0"
MAX_DIMENSIONS = 8192

Kind = Literal["vector", "partition", "key", "auxiliary", "metadata", "option"]

_SQL = re.compile(
    r"""(?P<skipped> [ \t\n\f\r]+ | --[^\n]* | /\*(?:.*?\*/|.*) )
    | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
    | [A-Za-z0-9_$\x80-\U0010ffff]+ | .""",
    re.X | re.S,
)
_TOKEN = re.compile(r"[ \t\n\r]*(?:([A-Za-z][A-Za-z0-9_]*)|([0-9]+)|([+\[\]=(),]))")
_INTEGERS = ("int", "integer")
_METADATA = {
    "boolean": ("boolean", "bool"),
    "integer": ("int64", "integer64", "integer", "int"),
    "float": ("float", "double", "float64", "f64"),
    "text": ("text",),
}
_AUXILIARY = {
    "text": ("text",),
    "integer": _INTEGERS,
    "float": ("float", "double"),
    "blob": ("blob",),
}
_VECTORS = {"float": ("float", "f32"), "int8": ("int8", "i8"), "bit": ("bit",)}


class Vec0DdlError(ValueError):
    """A definition that sqlite-vec refuses, or that this parser does not understand."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or an option of the table. `type` is one of the names in `_METADATA` and so on.

    `type_at`, `size_at` and `options_at` are where type, dimension and options of a vector are in
    the DDL; `unread` is the part of the definition that sqlite-vec ignores.
    """

    name: str
    kind: Kind
    type: str = ""
    dimensions: int = 0
    type_at: tuple[int, int] = (0, 0)
    size_at: tuple[int, int] = (0, 0)
    options_at: tuple[int, int] = (0, 0)
    unread: str = ""


def is_vec0(ddl: str) -> bool:
    """Whether a statement creates a vec0 table, however its words are quoted."""
    words = [ddl[start:end] for start, end in _head(ddl)]
    return (
        len(words) == 6
        and [word.lower() for word in (*words[:3], words[4])]
        == ["create", "virtual", "table", "using"]
        and _unquoted(words[5]).lower() == MODULE
    )


def columns(ddl: str) -> list[Column]:
    """Return the columns of a vec0 table, including the key, and its options, in their order.

    Raises:
        Vec0DdlError: it is not understood, so nothing is known about the table.
    """
    found = []
    for start, end in _arguments(ddl):
        column = _column(ddl[start:end])
        places = (column.type_at, column.size_at, column.options_at)
        type_at, size_at, options_at = ((start + a, start + b) for a, b in places)
        found.append(replace(column, type_at=type_at, size_at=size_at, options_at=options_at))
    if sum(column.kind == "key" for column in found) > 1:
        raise Vec0DdlError("more than one primary key")
    return found


# -- as SQLite reads it ---------------------------------------------------------------------


def _tokens(ddl: str) -> Iterator[tuple[int, int]]:
    return (each.span() for each in _SQL.finditer(ddl) if each["skipped"] is None)


def _head(ddl: str) -> list[tuple[int, int]]:
    """Return where the six words before the arguments are: CREATE VIRTUAL TABLE v USING vec0."""
    return [span for _, span in zip(range(6), _tokens(ddl), strict=False)]


def _unquoted(word: str) -> str:
    first = word[:1]
    if first == "[":
        return word[1:-1]
    return word[1:-1].replace(first * 2, first) if first in ("'", '"', "`") else word


def _arguments(ddl: str) -> list[tuple[int, int]]:
    """Return where each argument is, from its first token to its last, as SQLite passes it on."""
    found: list[tuple[int, int]] = []
    depth, begins, ends = 0, None, 0
    for start, end in list(_tokens(ddl))[6:]:
        sign = ddl[start:end]
        depth += (sign == "(") - (sign == ")")
        if (sign, depth) in (("(", 1), (",", 1), (")", 0)):
            if begins is not None:
                found.append((begins, ends))
            begins = None
            if depth == 0:
                break
        else:
            begins, ends = start if begins is None else begins, end
    return found


# -- as sqlite-vec reads it -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind` is "word", "digits" or a sign; a sign has no text, and so begins every word."""

    kind: str
    text: str
    start: int
    end: int

    def begins(self, *words: str) -> bool:
        return any(word.startswith(self.text.lower()) for word in words)


class _Scanner:
    """Reads tokens one by one; `last` stays the last token at the end of the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.last: _Token | None = None
        self._at = 0

    def next(self) -> _Token | None:
        found = _TOKEN.match(self.text, self._at)
        if not found:
            return None
        word, digits, sign = found.groups()
        end = found.end()
        if sign:
            self.last = _Token(sign, "", end, end)
        else:
            text = word or digits
            self.last = _Token("word" if word else "digits", text, end - len(text), end)
        self._at = end
        return self.last

    def next_or_last(self, *kinds: str) -> _Token | None:
        """Return the next token or, if there is none, the last one if it is of these kinds."""
        token = self.next()
        if token is None and self.last is None:
            raise Vec0DdlError(f"{self.text!r} begins with something that sqlite-vec does not read")
        return token or (self.last if self.last and self.last.kind in kinds else None)

    @property
    def is_at_end(self) -> bool:
        return not self.rest.strip(" \t\n\r")

    @property
    def rest(self) -> str:
        return self.text[self._at :]


def _column(text: str) -> Column:
    for read in (_vector, _partition, _key, _auxiliary, _metadata, _option):
        column = read(_Scanner(text))
        if column:
            return column
    raise Vec0DdlError(f"{text!r} is neither a column nor an option")


def _vector(scanner: _Scanner) -> Column | None:
    name, about = scanner.next_or_last("word"), scanner.next()
    if not name or not about or about.kind != "word":
        return None
    types = (type_ for type_, words in _VECTORS.items() if about.text.lower().startswith(words))
    type_ = next(types, "")
    if not type_ or not scanner.next_or_last("["):
        return None
    size = scanner.next_or_last("digits")
    if not size or size.kind != "digits" or not 0 < int(size.text) <= MAX_DIMENSIONS:
        raise Vec0DdlError(f"{scanner.text!r} has no dimension")
    if not scanner.next_or_last("]"):
        raise Vec0DdlError(f"{scanner.text!r} ends within a vector")
    options_at = (len(scanner.text) - len(scanner.rest), len(scanner.text))
    while not scanner.is_at_end:
        option = scanner.next_or_last("word")
        equals, value = scanner.next_or_last("="), scanner.next_or_last("word")
        known = option and option.begins("distance_metric") and type_ != "bit"
        if not (known and equals and value and value.begins("l2", "l1", "cosine")):
            raise Vec0DdlError(f"{scanner.text!r} has an unknown option")
    return Column(
        name.text, "vector", type_, int(size.text), (about.start, about.end),
        (size.start, size.end), options_at,
    )  # fmt: skip


def _partition(scanner: _Scanner) -> Column | None:
    return _keyed(scanner, "partition", "partition")


def _key(scanner: _Scanner) -> Column | None:
    return _keyed(scanner, "primary", "key")


def _keyed(scanner: _Scanner, word: str, kind: Kind) -> Column | None:
    name, about = scanner.next_or_last("word"), scanner.next_or_last("word")
    if not name or not about or not about.begins("text", *_INTEGERS):
        return None
    for expected in (word, "key"):
        token = scanner.next_or_last("word")
        if not token or not token.begins(expected):
            return None
    type_ = "text" if about.begins("text") else "integer"
    return Column(name.text, kind, type_, unread=scanner.rest)


def _auxiliary(scanner: _Scanner) -> Column | None:
    plus = scanner.next()
    if not plus or plus.kind != "+":
        return None
    name, about = scanner.next_or_last("word"), scanner.next_or_last("word")
    if not name or not about:
        return None
    types = (type_ for type_, words in _AUXILIARY.items() if about.begins(*words))
    type_ = next(types, "")
    return Column(name.text, "auxiliary", type_, unread=scanner.rest) if type_ else None


def _metadata(scanner: _Scanner) -> Column | None:
    name, about = scanner.next(), scanner.next()
    if not name or not about or (name.kind, about.kind) != ("word", "word"):
        return None
    types = (type_ for type_, words in _METADATA.items() if about.begins(*words))
    type_ = next(types, "")
    return Column(name.text, "metadata", type_, unread=scanner.rest) if type_ else None


def _option(scanner: _Scanner) -> Column | None:
    name = scanner.next_or_last("word")
    if not name or not scanner.next_or_last("="):
        return None
    value = scanner.next_or_last("word", "digits")
    if not value or not scanner.is_at_end or not name.begins("chunk_size"):
        raise Vec0DdlError(f"{scanner.text!r} is not an option of sqlite-vec")
    return Column(name.text, "option")
