"""Texts that equal no other: what requests have in common is computed once."""

from itertools import count

FIRST = 0x10000  # beyond the surrogates
numbers = count()


def text_of(chars: int) -> str:
    """Return a text of so many characters, unlike every other."""
    return chr(FIRST + next(numbers) % (0x110000 - FIRST)) + "?" * (chars - 1) if chars else ""
