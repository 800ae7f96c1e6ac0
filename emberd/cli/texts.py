"""The texts that a command is given: as arguments, or on stdin, a line or a JSON line each."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from emberd.errors import BadOptionError, NoTextsError

TEXTS_A_REQUEST = 256


def given(texts: Sequence[str] | None, *, jsonl: bool, example: str) -> Iterable[str]:
    """Return the arguments, or else what stdin has; `example`: how to give one as an argument.

    Raises:
        BadOptionError: both were given, or something is not a text (while it is read).
        NoTextsError: neither was.
    """
    if texts and jsonl:
        raise BadOptionError(
            "--jsonl reads texts from stdin, so it cannot be combined with texts as arguments."
        )
    if texts:
        return _checked(texts)
    if sys.stdin.isatty():
        raise NoTextsError("No texts provided", hint=f"Try: {example}")
    return _json_lines() if jsonl else _lines()


def _lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadOptionError("stdin is not UTF-8.", hint="Convert it with iconv.") from None


def _json_lines() -> Iterator[str]:
    for number, line in enumerate(_lines(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadOptionError(
                f"Line {number} of stdin is not JSON: {error}.",
                hint="Without --jsonl, each line is read as text.",
            ) from None
        text = row.get("text") if isinstance(row, dict) else row
        if not isinstance(text, str) or _has_half_character(text):
            raise BadOptionError(
                f"Line {number} of stdin has no text.",
                hint='Write "a text" or {"text": "a text"}, one per line.',
            )
        yield text


def _checked(texts: Sequence[str]) -> Sequence[str]:
    """Refuse arguments that are not UTF-8; Python lets their bytes through as half characters."""
    for index, text in enumerate(texts):
        if _has_half_character(text):
            raise BadOptionError(f"Text {index} is not UTF-8.", hint="Convert it with iconv.")
    return texts


def _has_half_character(text: str) -> bool:
    """Whether it contains half of a surrogate pair, which UTF-8 cannot encode."""
    return not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text)


def in_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield as many texts as go into one request."""
    rest = iter(texts)
    while batch := list(islice(rest, TEXTS_A_REQUEST)):
        yield batch
