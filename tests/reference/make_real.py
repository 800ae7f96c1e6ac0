"""Reference vectors: what sentence-transformers itself makes of texts with three real models.

    HF_HUB_OFFLINE=1 ~/reference-venv/bin/python make_real.py FOLDER

FOLDER has the models that `get_real_weights.py` made. As in `make_minilm.py`, each text is encoded
alone, on the CPU in float32, into a vector of unit length; texts are the 30 of `sentences.json` and
the first words of LICENSE. `real.npz` gets the vectors `(33, D)` by model, `real.json` where they
come from. A second run writes the same bytes.
"""

import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import make_minilm
import numpy as np
import torch

HERE = Path(__file__).parent
WORDS = (90, 250, 700)  # of LICENSE: near to and beyond the limits of the models
PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
MAX_TOKENS = {"minilm": make_minilm.MAX_SEQ_LENGTH, "minilm-l3": 128, "mpnet": 384}
"""Where the entries of the catalog cut texts; all but MiniLM's is the model's own limit."""


def texts() -> list[str]:
    """Return the texts in order."""
    sentences = json.loads((HERE / "sentences.json").read_text(encoding="utf-8"))
    words = (HERE.parents[1] / "LICENSE").read_text(encoding="utf-8").split()
    return [each["text"] for each in sentences] + [" ".join(words[:count]) for count in WORDS]


def main(weights: Path) -> None:
    """Write `real.npz` and `real.json` next to this script."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    vectors, models = {}, {}
    for name, max_tokens in MAX_TOKENS.items():
        folder = make_minilm.find_model() if name == "minilm" else weights / name
        model = make_minilm.load_model(folder)
        model.max_seq_length = max_tokens
        vectors[name] = np.stack([make_minilm.embed(model, text) for text in texts()])
        counted = [make_minilm.count_tokens(model, text) for text in texts()]
        models[name] = {
            "sha256": {
                each: make_minilm.sha256(folder / each)
                for each in ("model.safetensors", "tokenizer.json")
            },
            "max_seq_length": max_tokens,
            "tokens": [tokens for tokens, _ in counted],
            "cut": [row for row, (_, is_cut) in enumerate(counted) if is_cut],
        }
    np.savez(HERE / "real.npz", **vectors)
    record: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "words_of_license": WORDS,
        "models": models,
    }
    target = HERE / "real.json"
    record = {"date": make_minilm.kept_date(target, json.loads(json.dumps(record))), **record}
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
