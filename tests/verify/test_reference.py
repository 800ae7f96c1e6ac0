"""The vectors that are shipped are those that sentence-transformers gave."""

import json
from pathlib import Path

import numpy as np

from emberd.verify.reference import minilm

REFERENCE = Path(__file__).parents[1] / "reference"


def test_shipped_vectors_are_rows_of_the_reference_and_of_the_same_weights() -> None:
    shipped = minilm()
    record = json.loads((REFERENCE / "minilm.json").read_text())
    sentences = json.loads((REFERENCE / "sentences.json").read_text())
    rows = dict(
        zip([line["text"] for line in sentences], np.load(REFERENCE / "minilm.npy"), strict=True)
    )

    assert shipped.weights_sha256 == record["sha256"]["model.safetensors"]
    assert len(shipped.texts) == len(shipped.vectors) >= 8
    for text, vector in zip(shipped.texts, shipped.vectors, strict=True):
        assert np.array_equal(vector, rows[text])
