"""Rows in the order of their keys, however many there are: compared, merged, and read in pages."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from emberd.stores.base import Key


class Keyed(Protocol):
    """Anything with a key."""

    @property
    def key(self) -> Key: ...  # noqa: D102


A = TypeVar("A", bound=Keyed)
B = TypeVar("B", bound=Keyed)


def order_of(key: Key) -> tuple[bool, Key]:
    """Return what keys are ordered by: numbers before strings, as SQLite does."""
    return isinstance(key, str), key


def merged(left: Iterable[A], right: Iterable[B]) -> Iterator[tuple[A | None, B | None]]:
    """Yield what two sides, each in the order of its keys, have for every key; None: nothing."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one or other:
        if one and other and one.key == other.key:  # first, because nearly all keys are in both
            yield one, other
            one, other = next(lefts, None), next(rights, None)
        elif other is None or (one and order_of(one.key) < order_of(other.key)):
            yield one, None
            one = next(lefts, None)
        else:
            yield None, other
            other = next(rights, None)


def paged(read: Callable[[str, tuple[Key, ...]], list[A]], rows: int) -> Iterator[A]:
    """Yield everything from `read`, so many rows at a time, so that others may write in between.

    `read` is given a condition in SQL on the column `key`, and its values.
    """
    found = read("", ())
    yield from found
    while len(found) == rows:
        found = read("WHERE key > ?", (found[-1].key,))
        yield from found
