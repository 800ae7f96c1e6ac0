"""Both backends give the vectors that sentence-transformers gives, whatever the batch.

What `test_architectures.py` shows with small models is marked slow here, with MiniLM.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.base import Backend, Compute, Encoder, Pooling, Precision
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.runtime import capabilities, make_core
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix
from tests.backends.support import a_request, batch_of, one_by_one, tokenize
from tests.cosines import cosines

BOTH = pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)
SHORT = 24  # tokens: MLX's build for processors is slow


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, as an installation has it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tokenized(minilm: Path, texts: list[str]) -> list[list[int]]:
    """The texts as token ids."""
    return tokenize(minilm, texts)


@pytest.fixture(scope="session")
def openvino(minilm: Path, cache: Path) -> Encoder:
    """MiniLM with all its digits."""
    return load(OpenVINOBackend(), minilm, cache)


@pytest.fixture(scope="session")
def alone(openvino: Encoder, tokenized: list[list[int]]) -> Matrix:
    """The vector of each text, encoded alone."""
    return one_by_one(openvino, tokenized)


def load(
    backend: Backend,
    folder: Path,
    cache: Path,
    *,
    pooling: Pooling = "mean",
    precision: Precision = "f32",
    compute: Compute = "auto",
) -> Encoder:
    return backend.load(
        a_request(
            folder,
            cache,
            pooling=pooling,
            precision=precision,
            compute=compute,
            cache_key=str(folder),
        )
    )


def short_ones(tokenized: Sequence[list[int]]) -> list[int]:
    """Where the short texts are, at most a dozen."""
    return [row for row, text in enumerate(tokenized) if len(text) <= SHORT][:12]


def test_openvino_gives_the_vectors_of_sentence_transformers(
    openvino: Encoder, alone: Matrix, reference: Matrix
) -> None:
    assert openvino.compute == "f32"
    assert cosines(alone, reference).min() > 0.99999


@pytest.mark.slow
def test_mlx_gives_the_vectors_of_sentence_transformers(
    minilm: Path, cache: Path, tokenized: list[list[int]], reference: Matrix
) -> None:
    encoder = load(MLXBackend(), minilm, cache)
    rows = short_ones(tokenized)

    assert encoder.compute == "f32"
    vectors = one_by_one(encoder, [tokenized[row] for row in rows])
    assert cosines(vectors, reference[rows]).min() > 0.99999


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "8bit", "4bit"])
def test_full_weights_make_one_space_on_both_backends(
    minilm: Path, cache: Path, tokenized: list[list[int]], precision: Precision
) -> None:
    texts = [tokenized[row] for row in short_ones(tokenized)[:6]]

    ours, theirs = (
        one_by_one(load(backend, minilm, cache, precision=precision, compute="f32"), texts)
        for backend in (OpenVINOBackend(), MLXBackend())
    )

    assert cosines(ours, theirs).min() > 0.99999


@pytest.mark.slow
def test_packed_weights_make_one_space_on_both_backends(
    packed_minilm: Path, cache: Path, tokenized: list[list[int]]
) -> None:
    texts = [tokenized[row] for row in short_ones(tokenized)[:6]]

    ours, theirs = (
        one_by_one(load(backend, packed_minilm, cache, precision="4bit", compute="f32"), texts)
        for backend in (OpenVINOBackend(), MLXBackend())
    )

    assert cosines(ours, theirs).min() > 0.99999


@pytest.mark.slow
def test_packed_and_full_weights_make_one_space(
    minilm: Path, packed_minilm: Path, cache: Path, tokenized: list[list[int]]
) -> None:
    full, packed = (
        one_by_one(load(OpenVINOBackend(), folder, cache, precision="4bit"), tokenized)
        for folder in (minilm, packed_minilm)
    )

    assert cosines(full, packed).min() > 0.999


@pytest.mark.slow
def test_four_bits_make_another_space_than_full_precision(
    minilm: Path, cache: Path, tokenized: list[list[int]], reference: Matrix
) -> None:
    quantized = one_by_one(load(OpenVINOBackend(), minilm, cache, precision="4bit"), tokenized)

    assert 0.85 < cosines(quantized, reference).mean() < 0.99


def test_openvino_gives_one_vector_alone_in_a_batch_and_shuffled(
    openvino: Encoder, alone: Matrix, tokenized: list[list[int]]
) -> None:
    rows = [row for row, text in enumerate(tokenized) if len(text) < 100]

    the_same_in_a_batch_and_shuffled(openvino, [tokenized[row] for row in rows], alone[rows])


@pytest.mark.slow
def test_openvino_gives_one_vector_in_bf16_too(
    minilm: Path, cache: Path, tokenized: list[list[int]]
) -> None:
    encoder = load_or_skip(minilm, cache, "bf16")
    texts = [text for text in tokenized if len(text) < 100]

    the_same_in_a_batch_and_shuffled(encoder, texts, one_by_one(encoder, texts))


def the_same_in_a_batch_and_shuffled(
    encoder: Encoder, texts: Sequence[list[int]], alone: Matrix
) -> None:
    order = np.random.default_rng(1).permutation(len(texts))

    batch = encoder.encode(*batch_of(*texts))
    shuffled = encoder.encode(*batch_of(*(texts[row] for row in order)))

    assert cosines(batch, alone).min() > 0.9999
    assert cosines(shuffled, alone[order]).min() > 0.9999


@pytest.mark.slow
def test_mlx_gives_one_vector_alone_in_a_batch_and_shuffled(
    minilm: Path, cache: Path, tokenized: list[list[int]]
) -> None:
    encoder = load(MLXBackend(), minilm, cache, precision="4bit")
    texts = [tokenized[row] for row in short_ones(tokenized)[:6]]
    alone = one_by_one(encoder, texts)

    assert cosines(encoder.encode(*batch_of(*texts)), alone).min() > 0.9999
    assert cosines(encoder.encode(*batch_of(*texts[::-1])), alone[::-1]).min() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "4bit"])
def test_half_the_digits_stay_near_float32_on_openvino(
    minilm: Path, cache: Path, tokenized: list[list[int]], precision: Precision
) -> None:
    exact = load(OpenVINOBackend(), minilm, cache, precision=precision, compute="f32")
    fast = load_or_skip(minilm, cache, "bf16", precision=precision)

    assert cosines(one_by_one(fast, tokenized), one_by_one(exact, tokenized)).min() > 0.9995


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "4bit"])
def test_half_the_digits_stay_near_float32_on_mlx(
    minilm: Path, cache: Path, tokenized: list[list[int]], precision: Precision
) -> None:
    texts = [tokenized[row] for row in short_ones(tokenized)[:3]]
    compute_types: list[Compute] = ["f32", "bf16"]
    exact, fast = (
        one_by_one(load(MLXBackend(), minilm, cache, precision=precision, compute=compute), texts)
        for compute in compute_types
    )

    assert cosines(fast, exact).min() > 0.9995


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("precision", ["f32", "4bit"])
def test_plain_numpy_gives_the_same_vectors(
    backend: Backend,
    numpy_backend: Backend,
    tiny: Path,
    tmp_path: Path,
    pooling: Pooling,
    precision: Precision,
) -> None:
    batch = batch_of([2, 5, 7, 3], [2, 9, 3], [8])

    theirs, ours = (
        load(which, tiny, tmp_path, pooling=pooling, precision=precision, compute="f32")
        for which in (numpy_backend, backend)
    )

    assert cosines(ours.encode(*batch), theirs.encode(*batch)).min() > 0.99999


@BOTH
def test_more_tokens_than_positions_are_refused(
    backend: Backend, tiny: Path, tmp_path: Path
) -> None:
    encoder = load(backend, tiny, tmp_path)

    with pytest.raises(ModelLoadError, match=r"49 tokens, .* 48 positions"):
        encoder.encode(*batch_of([1] * 49))


@BOTH
@pytest.mark.parametrize("token_id", [96, -1])
def test_token_ids_of_another_tokenizer_are_refused(
    backend: Backend, tiny: Path, tmp_path: Path, token_id: int
) -> None:
    encoder = load(backend, tiny, tmp_path)

    with pytest.raises(ModelLoadError, match="outside the model's 96 tokens"):
        encoder.encode(*batch_of([1, token_id]))


def load_or_skip(
    folder: Path, cache: Path, compute: Compute, *, precision: Precision = "f32"
) -> Encoder:
    if compute == "bf16" and "BF16" not in capabilities(make_core()):
        pytest.skip("this processor has no bf16")
    return load(OpenVINOBackend(), folder, cache, precision=precision, compute=compute)
