"""Texts of thousands of tokens: no scores, distances or numbers for all pairs and heads at once."""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from emberd.backends.base import Backend
from emberd.backends.mlx.attention import attend
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.vectors import Matrix
from tests.backends.references import change_json, copy_of, load
from tests.reference.encode_real_sizes import peak_above

LONG = 4096
NUMBERS_OF_PAIRS = 4 * LONG**2
"""Bytes of one float32 or int32 for each pair of tokens; the tiny checkpoints have four heads."""


def plain(query: Matrix, key: Matrix, value: Matrix, unseen: Matrix, scale: float) -> Matrix:
    """Attention by its formula, in float64: three `(B, H, T, S)` -> `(B, T, H * S)`."""
    scores = scale * query.astype(np.float64) @ key.swapaxes(-1, -2) + unseen
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attended = shares / shares.sum(axis=-1, keepdims=True) @ value
    joined: Matrix = attended.swapaxes(1, 2).reshape(len(query), query.shape[2], -1)
    return joined


@pytest.mark.parametrize("queries", [None, 1, 1100], ids=["no mask", "of keys", "of pairs"])
def test_mlx_attends_part_by_part_as_it_would_at_once(queries: int | None) -> None:
    draw = np.random.default_rng(1)
    query, key, value = draw.standard_normal((3, 2, 4, 1100, 8), np.float32)
    seen = draw.random((2, 1, queries or 1, 1100)) < 0.5
    unseen = np.where(seen if queries else True, 0, -np.inf).astype(np.float32)

    mask = mx.array(unseen) if queries else None
    ours = np.array(attend(mx.array(query), mx.array(key), mx.array(value), mask, 0.3))

    np.testing.assert_allclose(ours, plain(query, key, value, unseen, 0.3), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("backend", "most"), [(OpenVINOBackend(), 1.5), (MLXBackend(), 3)], ids=["openvino", "mlx"]
)
@pytest.mark.parametrize("name", ["modernbert", "new", "qwen3"])
def test_a_long_text_takes_less_than_numbers_for_all_pairs_and_heads(
    backend: Backend, most: float, name: str, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name)
    change_json(folder / "config.json", max_position_embeddings=LONG)
    encoder = load(backend, folder, tmp_path)
    token_ids = np.random.default_rng(1).integers(10, 90, (1, LONG), np.int32)
    encoder.encode(token_ids[:, :16], np.ones((1, 16), np.int32))

    peak = peak_above(lambda: encoder.encode(token_ids, np.ones_like(token_ids)))

    assert peak * 2**20 < most * NUMBERS_OF_PAIRS
