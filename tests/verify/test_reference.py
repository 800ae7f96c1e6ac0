"""The vectors that are shipped are those that sentence-transformers gave."""

import json
from pathlib import Path

import numpy as np
import pytest

from emberd.verify.reference import Reference, reference_for, shipped
from tests.verify.make_reference import models

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.mark.parametrize("reference", list(shipped()), ids=lambda reference: reference.model)
def test_shipped_vectors_are_rows_of_the_reference_and_of_the_same_weights(
    reference: Reference,
) -> None:
    made = {each.model: each for each in models()}
    sentences = json.loads((REFERENCE / "sentences.json").read_text())

    source = made[reference.model]
    rows = {line["text"]: vector for line, vector in zip(sentences, source.vectors, strict=False)}
    assert reference.weights_sha256 == source.weights_sha256
    assert len(reference.texts) == len(reference.vectors) >= 8
    for text, vector in zip(reference.texts, reference.vectors, strict=True):
        assert np.array_equal(vector, rows[text])


def test_references_are_found_by_the_hash_of_the_weights_or_by_the_repository() -> None:
    every = list(shipped())

    assert "sentence-transformers/all-MiniLM-L6-v2" in {each.model for each in every}
    assert len({each.model for each in every}) == len(every)
    for each in every:
        found = reference_for(each.weights_sha256, None if each.weights_sha256 else each.model)
        assert found
        assert found.model == each.model
    hashed = next(each for each in every if each.weights_sha256)
    assert reference_for("0" * 64, hashed.model) is None
    assert reference_for(None, None) is None
