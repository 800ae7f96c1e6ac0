"""Reference vectors of a real sparse model: what sentence-transformers' SparseEncoder makes.

    HF_HUB_OFFLINE=1 ~/reference-venv/bin/python make_real_sparse.py FOLDER

FOLDER has the model `splade-tiny` that `get_real_weights.py` made. Each text of `make_real.py` is
encoded alone, on the CPU in float32. `real_sparse.json` gets what is not zero, and where it comes
from. A second run writes the same bytes.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import make_minilm
import torch
from make_real import PACKAGES, texts
from sentence_transformers import SparseEncoder

HERE = Path(__file__).parent
NAME = "splade-tiny"


def main(weights: Path) -> None:
    """Write `real_sparse.json` next to this script."""
    torch.set_num_threads(1)
    folder = weights / NAME
    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    rows = []
    for text in texts():
        vector = model.encode(text, convert_to_sparse_tensor=False)
        indices = torch.nonzero(vector)[:, 0].tolist()
        rows.append({"indices": indices, "values": [float(vector[at]) for at in indices]})
    record = {
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "sha256": {
            name: make_minilm.sha256(folder / name)
            for name in ("model.safetensors", "tokenizer.json")
        },
        "max_tokens": model.max_seq_length,
        "dimensions": 30522,
        "rows": rows,
    }
    (HERE / "real_sparse.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
