"""Write `emberd/verify/references/NAME.json`: short texts of tests/reference and their vectors.

    .venv/bin/python -m tests.verify.make_reference

Run it after `make_minilm.py` and `make_real.py` of tests/reference, which make the vectors; a
second run writes the same bytes.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emberd.vectors import Matrix

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"
ROWS = (0, 3, 4, 5, 6, 10, 13, 15, 22, 23)
MODELS = {
    "minilm-l3": "sentence-transformers/paraphrase-MiniLM-L3-v2",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
}
"""Those of `real.npz` that are shipped, and what they are called on the Hub."""
CONVERTED = ("minilm-l3",)
"""Those that were made with other files than the Hub's, so that these have another hash."""


@dataclass(frozen=True, slots=True)
class Made:
    """The vectors of one model, `(N, D)`, as sentence-transformers made them."""

    name: str
    model: str
    made_by: str
    weights_sha256: str | None
    tokens: Sequence[int]
    vectors: Matrix


def models() -> Iterator[Made]:
    """Yield each model."""
    minilm = json.loads((REFERENCE / "minilm.json").read_text())
    yield Made(
        name="minilm",
        model=minilm["model"],
        made_by=minilm["packages"]["sentence-transformers"],
        weights_sha256=minilm["sha256"]["model.safetensors"],
        tokens=[text["tokens"] for text in minilm["texts"]],
        vectors=np.load(REFERENCE / "minilm.npy"),
    )
    record = json.loads((REFERENCE / "real.json").read_text())
    with np.load(REFERENCE / "real.npz") as vectors:
        for name, model in MODELS.items():
            facts = record["models"][name]
            digest = facts["sha256"]["model.safetensors"]
            yield Made(
                name=name,
                model=model,
                made_by=record["packages"]["sentence-transformers"],
                weights_sha256=None if name in CONVERTED else digest,
                tokens=facts["tokens"],
                vectors=vectors[name],
            )


def main() -> None:
    """Select and write."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text())
    for made in models():
        data = {
            "model": made.model,
            "made_by": f"sentence-transformers {made.made_by}",
            "weights_sha256": made.weights_sha256,
            "texts": [
                {
                    "text": sentences[row]["text"],
                    "tokens": made.tokens[row],
                    "vector": base64.b64encode(made.vectors[row].astype("<f4").tobytes()).decode(),
                }
                for row in ROWS
            ],
        }
        target = ROOT / "emberd/verify/references" / f"{made.name}.json"
        target.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
