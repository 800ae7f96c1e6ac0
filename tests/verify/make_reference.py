"""Write `emberd/verify/minilm.json`: ten short texts of tests/reference and their vectors.

Run it from the root of the repository after tests/reference/make_minilm.py; a second run writes
the same bytes.
"""

import base64
import json
from pathlib import Path

import numpy as np

REFERENCE = Path("tests/reference")
ROWS = (0, 3, 4, 5, 6, 10, 13, 15, 22, 23)


def main() -> None:
    """Select and write."""
    vectors = np.load(REFERENCE / "minilm.npy").astype("<f4")
    sentences = json.loads((REFERENCE / "sentences.json").read_text())
    record = json.loads((REFERENCE / "minilm.json").read_text())
    packages = record["packages"]
    data = {
        "model": record["model"],
        "made_by": "sentence-transformers " + packages["sentence-transformers"],
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
    target = Path("emberd/verify/minilm.json")
    target.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
