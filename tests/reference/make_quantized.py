"""Writes `quantized.json`: what sentence-transformers makes of vectors in each dtype.

For developers, and run with the Python of `requirements-reference.txt`. The ranges of int8 and
uint8 are some of every kind: wider and narrower than the vectors, lopsided, and of no width at all.
"""

import json
from pathlib import Path

import numpy as np
import sentence_transformers
from sentence_transformers.util.quantization import quantize_embeddings

ROWS, DIMENSIONS = 12, 32
DTYPES = ("int8", "uint8", "binary", "ubinary")
STEP = 0.001953125


def main() -> None:
    """Write the file."""
    draw = np.random.default_rng(49)
    vectors = draw.standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0, :4] = 0.0, -0.0, 127 * STEP, -128 * STEP
    middle, width = draw.uniform(-0.1, 0.1, DIMENSIONS), draw.uniform(0.0, 0.6, DIMENSIONS)
    width[3] = 0.0
    ranges = np.stack([middle - width / 2, middle + width / 2]).astype(np.float32)
    alike = np.full((DIMENSIONS, 2), (-128.5 * STEP, 126.5 * STEP), np.float32).T
    made = {
        name: {
            dtype: quantize_embeddings(vectors, dtype, ranges=limits).tolist() for dtype in DTYPES
        }
        for name, limits in (("ranges", ranges), ("step", alike))
    }
    content = {
        "sentence_transformers": sentence_transformers.__version__,
        "vectors": vectors.tolist(),
        "ranges": ranges.tolist(),
        "step": STEP,
        "quantized": made,
    }
    Path(__file__).with_name("quantized.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
