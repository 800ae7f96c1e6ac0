"""Paths as the routes know them: surplus slashes are ignored; who misses is told the nearest."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

SLASHES = re.compile("//+")


def plain(path: str) -> str:
    """Return a path as the routes know it: no double slashes, none at the end.

    Base addresses with a slash too many produce `//embed`, others `/embed/`.
    """
    return SLASHES.sub("/", path).rstrip("/") or "/"


def nearest(path: str, known: Iterable[str]) -> str | None:
    """Return the path that was most likely meant, or None.

    Most often part of the path is in the base address already: `/v1/v1/embeddings`.
    """
    paths = [each for each in known if each != "/"]
    ends = [each for each in paths if path.endswith(each)]
    return max(ends, key=len) if ends else next(iter(get_close_matches(path, paths, n=1)), None)
