"""Answers are put together of what workers sent, which is JSON already."""

import orjson
import pytest

from emberd.api.answers import enclosed


@pytest.mark.parametrize("fragments", [[], [b"[1.0]"], [b"[1.0]", b"[2.0]", b"[3.0]"]])
def test_fragments_are_enclosed(fragments: list[bytes]) -> None:
    kept = [*fragments]

    body = enclosed(b'{"embeddings":[', iter(fragments), b'],"model":"m"}')

    assert orjson.loads(body) == {"embeddings": [*map(orjson.loads, fragments)], "model": "m"}
    assert fragments == kept
