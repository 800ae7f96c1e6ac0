"""fastembed with the ONNX file of the same weights: shared by the two ways it is measured."""

import os

import numpy as np
from fastembed import TextEmbedding

BATCH = (
    1  # it pads to the longest and does not sort: on mixed passages 1 is fastest (24 texts/s, 8: 6)
)


def load() -> TextEmbedding:
    """Return the model; it has the same name, pooling and normalization built in."""
    return TextEmbedding(
        "sentence-transformers/all-MiniLM-L6-v2",
        specific_model_path=os.environ["BENCH_MODEL"],
        threads=int(os.environ["BENCH_THREADS"]),
    )


def embed(model: TextEmbedding, texts: list[str], batch: int = BATCH) -> np.ndarray:
    """Return unit vectors, `(N, D)`."""
    return np.stack(list(model.embed(texts, batch_size=batch)))
