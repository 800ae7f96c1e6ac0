"""Tiny sparse models, and what sentence-transformers' SparseEncoder makes of some texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from emberd.vectors import Matrix

SPARSE = Path(__file__).parent / "reference" / "sparse"
NAMES = sorted(path.name for path in SPARSE.iterdir())
FAR = 1e-5  # of two numbers that are 3 at most


def reference(name: str) -> dict[str, Any]:
    """Texts, where they are cut, and their sparse vectors."""
    found: dict[str, Any] = json.loads((SPARSE / name / "reference.json").read_text())
    return found


def dense(rows: list[dict[str, Any]], entries: int = 0) -> Matrix:
    """Sparse vectors with their zeros: `(N, V)`."""
    entries = entries or 1 + max(max(row["indices"], default=0) for row in rows)
    vectors = np.zeros((len(rows), entries), np.float32)
    for row, found in enumerate(rows):
        vectors[row, found["indices"]] = found["values"]
    return vectors


CONFIG = f"""
default_sparse: tiny
models:
  tiny:
    kind: sparse
    dimensions: 149
    compute: f32
    sources: [{{path: {SPARSE / "bert"}}}]
  routed:
    kind: sparse
    dimensions: 149
    compute: f32
    sources: [{{path: {SPARSE / "distilbert"}}}]
  m3:
    kind: sparse
    dimensions: 171
    compute: f32
    sources: [{{path: {SPARSE / "bge-m3"}}}]
"""
