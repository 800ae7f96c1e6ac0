"""A tiny re-ranker, and what sentence-transformers' CrossEncoder makes of some texts."""

import json
import math
from pathlib import Path

RERANKERS = Path(__file__).parent / "reference" / "rerankers"
FOLDER = RERANKERS / "bert"
GIVEN = json.loads((FOLDER / "reference.json").read_text())
QUERY: str = GIVEN["query"]
TEXTS: list[str] = GIVEN["texts"]
LOGITS: list[float] = GIVEN["logits"]
ORDER = sorted(range(len(TEXTS)), key=lambda index: -LOGITS[index])
LONG = len(TEXTS) - 1  # the only one that is cut
CONFIG = f"""
default_reranker: tiny
models:
  tiny:
    kind: rerank
    pooling: cls
    compute: f32
    sources: [{{path: {FOLDER}}}]
"""


def sigmoid(logit: float) -> float:
    """What a score is."""
    return 1 / (1 + math.exp(-logit))
