"""Shortens very long words without changing the tokens, for BERT's tokenizers.

WordPiece turns a word longer than a limit (100 characters) into one unknown token, but reads all of
it first: megabytes of letters for a token. What can be left out depends on BERT's pre-tokenizer:

- Letters, numbers and symbols beyond ASCII are part of a word, each at least one character of it.
- Marks and control characters are part of a word, or removed; they never end one.
- White space is removed; only its presence matters.

So in a run of the first two kinds, everything after more of the first kind than a word may have
changes nothing: it is one unknown word with or without the rest. Chinese characters and punctuation
are words of their own and never part of a run.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

WINDOW_CHARS = 2**18  # `re` holds the GIL; a run split between two may stay twice as long
FEW = 1024  # characters kept of a run of marks or white space
CHINESE = (  # `is_chinese_char` of BERT's normalizer
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
ASTRAL = (  # emoji and tags, in ranges without gaps
    (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF),
    (0xE0020, 0xE007F), (0xE0100, 0xE01EF),
)  # fmt: skip
BREAKS = " .,;"  # a space, or a word of one character: the previous word ends before it
SPACES = "[ \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # but no controls
PLAIN = (type(None).__name__, "BertNormalizer", "Lowercase")


def shortener(library: "Library") -> Callable[[str], str] | None:
    """Return a function that shortens texts for this tokenizer; None if it is of another kind."""
    model: Any = library.model
    added = library.get_added_tokens_decoder().values()
    if (
        type(model).__name__ != "WordPiece"
        or type(library.pre_tokenizer).__name__ != "BertPreTokenizer"
        or type(library.normalizer).__name__ not in PLAIN
        or any(not set("[]<>") & set(token.content) for token in added)  # it could be inside a word
    ):
        return None
    longest: int = model.max_input_chars_per_word
    if longest > FEW:
        return None
    return lambda text: "".join(
        _shorten(text[first : first + WINDOW_CHARS], longest)
        for first in range(0, len(text), WINDOW_CHARS)
    )


def parts(library: "Library") -> "re.Pattern[str] | None":
    """Return what finds the parts of a text that this tokenizer tokenizes one by one, or None.

    Between them is only white space, at which this tokenizer splits. A part may be several words.
    """
    if not shortener(library):
        return None
    apart = library.normalizer and library.normalizer.normalize_str("\u4e00").startswith(" ")
    alone = ".,;" + ("\u4e00-\u9fff" if apart else "")
    return re.compile(f"[{alone}]|[^{alone} \n]+")


def last_break(text: str, first: int, last: int) -> int | None:
    """Return the last place in `first` to `last` where a BERT word ends, or None."""
    found = max(text.rfind(mark, first, last) for mark in BREAKS)
    if found < 0:
        found = next((at for at in range(last - 1, first, -1) if _is_chinese(text[at])), -1)
    return found if found > first else None


def _is_chinese(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in CHINESE)


def _shorten(text: str, longest: int) -> str:
    solid, soft = _classes()
    spaces, marks, runs, enough = _patterns(solid, soft, longest)
    for few in (spaces, marks):
        text = few.sub(lambda match: match[0][:FEW], text)

    def cut(match: "re.Match[str]") -> str:
        known = enough.match(match[0])
        return match[0][: known.end()] if known else match[0]

    return runs.sub(cut, text)


@cache
def _patterns(solid: str, soft: str, longest: int) -> tuple["re.Pattern[str]", ...]:
    return (
        re.compile(f"{SPACES}{{{FEW + 1},}}"),
        re.compile(f"[{soft}]{{{FEW + 1},}}"),
        re.compile(f"[{solid}{soft}]{{{longest + 1},}}"),
        re.compile(f"(?:[{soft}]*[{solid}]){{{longest + 1}}}"),
    )


@cache
def _classes() -> tuple[str, str]:
    """Return two character classes: what makes a word longer, and what does so or is removed.

    Beyond 16 bits, `re` checks range by range, so only a few are included. Characters in neither
    class are left alone.
    """
    chinese = {code for first, last in CHINESE for code in range(first, last + 1)}
    solid, soft = [], []
    for code in chain(range(2**16), *(range(first, last + 1) for first, last in ASTRAL)):
        kind = unicodedata.category(chr(code))
        if (
            kind[0] == "M"
            or kind in ("Cf", "Co")
            or (kind == "Cc" and chr(code) not in "\t\n\r\v\f\x85")
        ):
            soft.append(code)
        elif (kind[0] in "LN" and code not in chinese) or (kind[0] == "S" and _is_solid(code)):
            solid.append(code)
    return _ranges(solid), _ranges(soft)


def _is_solid(symbol: int) -> bool:
    """Say whether a symbol is kept as it is: not punctuation, removed, or decomposed (as ≠ is)."""
    return symbol > 127 and symbol != 0xFFFD and not unicodedata.decomposition(chr(symbol))


def _ranges(codes: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
