"""Which sizes and forms a model has."""

from dataclasses import replace
from typing import Any

import pytest

from emberd.errors import BadOptionError
from emberd.pool.checking import checked_size
from emberd.pool.request import EmbedRequest
from emberd.registry.spec import ModelSpec, Source

DENSE = ModelSpec(
    name="m", sources=(Source(path="/m"),), dimensions=64, pooling="mean", matryoshka=(32, 20)
)
SPARSE = replace(DENSE, kind="sparse", pooling="max", normalize=False, matryoshka=())
ASKED = EmbedRequest(texts=["a"])


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, 64),
        ({"dimensions": 32, "dtype": "binary"}, 32),
        ({"dimensions": 20, "dtype": "int8"}, 20),
        ({"normalize": True, "dtype": "int8"}, 64),
        ({"normalize": False, "dtype": "binary"}, 64),
    ],
)
def test_what_it_has(asked: dict[str, Any], size: int) -> None:
    assert checked_size(DENSE, replace(ASKED, **asked)) == size


@pytest.mark.parametrize(
    ("spec", "asked", "words"),
    [
        (DENSE, {"dimensions": 16}, "no vectors of 16"),
        (DENSE, {"dimensions": 20, "dtype": "ubinary"}, "20 cannot be divided by 8"),
        (DENSE, {"dimensions": 20, "also": [("json", "binary")]}, "20 cannot be divided by 8"),
        (DENSE, {"normalize": False, "dtype": "uint8"}, "measured with normalize True only"),
        (SPARSE, {"encoding": "raw"}, "only one form"),
        (SPARSE, {"dtype": "int8"}, "only one form"),
        (SPARSE, {"also": [("json", "float")]}, "only one form"),
    ],
)
def test_what_it_has_not(spec: ModelSpec, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOptionError, match=words) as refused:
        checked_size(spec, replace(ASKED, **asked))
    assert refused.value.hint


def test_tokens_of_a_sparse_model_are_no_vectors() -> None:
    assert checked_size(SPARSE, replace(ASKED, description="tokens")) == 64
