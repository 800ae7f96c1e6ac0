"""Write `emberd/verify/references/NAME.json`: short texts of tests/reference and their vectors.

Run it from the root of the repository after the scripts in tests/reference that make the vectors;
a second run writes the same bytes. Weights are known by their hash, so only those are shipped that
have the hash of the file that users download.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emberd.vectors import Matrix

REFERENCE = Path("tests/reference")
ROWS = (0, 3, 4, 5, 6, 10, 13, 15, 22, 23)


def main() -> None:
    """Select and write."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text())
    for name, record, vectors in models():
        data = {
            "model": record["model"],
            "made_by": "sentence-transformers " + record["packages"]["sentence-transformers"],
            "weights_sha256": record["sha256"]["model.safetensors"],
            "texts": [
                {
                    "text": sentences[row]["text"],
                    "tokens": record["texts"][row]["tokens"],
                    "vector": base64.b64encode(vectors[row].tobytes()).decode(),
                }
                for row in ROWS
            ],
        }
        target = Path("emberd/verify/references", f"{name}.json")
        target.write_text(json.dumps(data, indent=1) + "\n")


def models() -> Iterator[tuple[str, dict[str, Any], Matrix]]:
    """Yield the name, record and vectors `(N, D)` of each model: NAME.json beside NAME.npy."""
    for file in sorted(REFERENCE.glob("*.npy")):
        yield file.stem, json.loads(file.with_suffix(".json").read_text()), np.load(file)


if __name__ == "__main__":
    main()
