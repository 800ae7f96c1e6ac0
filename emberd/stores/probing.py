"""Asks a server what it is, so that the kind of a store can be told from its URL."""

import json
from http.client import HTTPException
from urllib.parse import urlsplit
from urllib.request import urlopen

PROBE_S = 2.0


def answer_of(url: str, path: str) -> dict[str, object]:
    """Return what the server of a URL answers at a path, without what the URL says of a user.

    It is empty if that is no object in JSON, or nobody answers within `PROBE_S`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return {}
    place = parts.netloc.rpartition("@")[2]
    asked = parts._replace(netloc=place, path=path, query="", fragment="").geturl()
    try:
        with urlopen(asked, timeout=PROBE_S) as answer:  # noqa: S310 - its scheme is looked at above
            found = json.load(answer)
    except (OSError, ValueError, HTTPException):
        return {}
    return found if isinstance(found, dict) else {}
