"""The conformance check accepts correct backends, and names what is wrong with others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from emberd.backends.base import Backend, Encoder, LoadRequest, Pooling, Precision, TokenIds
from emberd.backends.conformance import check_backend
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.tiny_bert import TINY_DIMENSIONS, TINY_ENTRIES, tiny_bert, tiny_reranker
from emberd.vectors import Matrix

Encode = Callable[[TokenIds, TokenIds], Matrix]
Score = Callable[..., Matrix]


@pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)
@pytest.mark.parametrize(
    ("pooling", "precision"),
    [
        ("mean", "f32"),
        ("cls", "4bit"),
        pytest.param("last", "8bit", marks=pytest.mark.slow),
        pytest.param("mean", "bf16", marks=pytest.mark.slow),
    ],
)
def test_our_backends_keep_every_promise(
    backend: Backend, tiny: Path, pooling: Pooling, precision: Precision
) -> None:
    check_backend(backend, tiny, dimensions=TINY_DIMENSIONS, pooling=pooling, precision=precision)


@pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)
def test_our_backends_keep_every_promise_with_a_re_ranker(backend: Backend, tmp_path: Path) -> None:
    tiny_reranker(tmp_path)
    check_backend(backend, tmp_path, dimensions=1, pooling="cls", kind="rerank")


class Scoring:
    """A re-ranker that does one thing wrong."""

    def __init__(self, right: Encoder, encode: Callable[[Score], Score]) -> None:
        self.encode = encode(right.encode)
        self.dimensions = right.dimensions
        self.compute = right.compute


class WrongReranker:
    """Loads what is right, then spoils it; without `kinds`, it says that it only embeds."""

    files: ClassVar[tuple[str, ...]] = MLXBackend.files
    libraries: ClassVar[tuple[str, ...]] = MLXBackend.libraries

    def __init__(self, encode: Callable[[Score], Score]) -> None:
        self._encode = encode

    def load(self, request: LoadRequest) -> Scoring:
        """Load; see `backends.base.Backend.load`."""
        return Scoring(MLXBackend().load(request), self._encode)


def forgets_types(encode: Score) -> Score:
    return lambda token_ids, mask, types: encode(token_ids, mask, np.zeros_like(types))


def gives_sigmoids_of_neighbours(encode: Score) -> Score:
    """As a softmax over the batch would: what others are changes a score."""

    def soft(*arrays: TokenIds) -> Matrix:
        logits = np.exp(encode(*arrays))
        shares: Matrix = (logits / logits.sum()).astype(np.float32)
        return shares

    return soft


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        (forgets_types, "the token types of a pair count"),
        (gives_sigmoids_of_neighbours, "padding and neighbours change nothing"),
        (lambda encode: encode, "`kinds` has rerank"),
    ],
)
def test_a_mistake_of_a_re_ranker_is_named(
    tmp_path: Path, mistake: Callable[[Score], Score], promise: str
) -> None:
    tiny_reranker(tmp_path)
    with pytest.raises(AssertionError, match=f"^WrongReranker .*{promise}"):
        check_backend(WrongReranker(mistake), tmp_path, dimensions=1, pooling="cls", kind="rerank")


@pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)
def test_ours_keep_every_promise_with_a_sparse_model(backend: Backend, tmp_path: Path) -> None:
    tiny_bert(tmp_path / "tiny", masked_lm=True)
    check_backend(backend, tmp_path / "tiny", dimensions=TINY_ENTRIES, pooling="max", kind="sparse")


def test_a_wrong_sparse_backend_is_told_what_is_wrong(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "tiny", masked_lm=True)
    wrong = WrongBackend(lambda encode: lambda *arrays: encode(*arrays) - np.float32(0.1))
    with pytest.raises(AssertionError) as caught:
        check_backend(
            wrong, tmp_path / "tiny", dimensions=TINY_ENTRIES, pooling="max", kind="sparse"
        )
    for promise in ("`kinds` has sparse", "no number is negative"):
        assert promise in str(caught.value)


@pytest.mark.slow
def test_openvino_keeps_every_promise_with_a_real_model(minilm: Path) -> None:
    check_backend(OpenVINOBackend(), minilm, dimensions=384, pooling="mean", precision="4bit")


class Wrong:
    """An encoder that does one thing wrong."""

    def __init__(self, right: Encoder, encode: Callable[[Encode], Encode]) -> None:
        self.encode = encode(right.encode)
        self.dimensions = right.dimensions
        self.compute = right.compute


class WrongBackend:
    """Loads what is right, then spoils it."""

    files: ClassVar[tuple[str, ...]] = MLXBackend.files
    libraries: ClassVar[tuple[str, ...]] = MLXBackend.libraries

    def __init__(self, encode: Callable[[Encode], Encode]) -> None:
        self._encode = encode

    def load(self, request: LoadRequest) -> Wrong:
        """Load; see `backends.base.Backend.load`."""
        return Wrong(MLXBackend().load(request), self._encode)


def counts_padding(encode: Encode) -> Encode:
    return lambda token_ids, mask: encode(token_ids, np.ones_like(mask))


def gives_float64(encode: Encode) -> Encode:
    return lambda token_ids, mask: encode(token_ids, mask).astype(np.float64)


def gives_columns_first(encode: Encode) -> Encode:
    return lambda token_ids, mask: np.asfortranarray(encode(token_ids, mask))


def gives_nan(encode: Encode) -> Encode:
    return lambda token_ids, mask: encode(token_ids, mask) * np.float32(np.nan)


def sorts_the_texts(encode: Encode) -> Encode:
    def sorting(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        order = np.argsort(mask.sum(axis=1))
        return encode(token_ids[order], mask[order])

    return sorting


def drops_a_text(encode: Encode) -> Encode:
    return lambda token_ids, mask: encode(token_ids, mask)[: max(1, len(mask) - 1)]


def cuts_long_texts(encode: Encode) -> Encode:
    def cutting(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        if mask.shape[1] > 40:
            raise IndexError("too long")
        return encode(token_ids, mask)

    return cutting


def cleans_its_input(encode: Encode) -> Encode:
    def cleaning(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        vectors = encode(token_ids, mask)
        token_ids[mask == 0] = -1
        return vectors

    return cleaning


def uses_one_buffer(encode: Encode) -> Encode:
    buffer = np.empty((8, TINY_DIMENSIONS), np.float32)

    def reusing(token_ids: TokenIds, mask: TokenIds) -> Matrix:
        buffer[: len(mask)] = encode(token_ids, mask)
        return buffer[: len(mask)]

    return reusing


def says_the_same_of_all(encode: Encode) -> Encode:
    return lambda _, mask: np.ones((len(mask), TINY_DIMENSIONS), np.float32)


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        (counts_padding, "padding and neighbours change nothing"),
        (gives_float64, "float32"),
        (gives_columns_first, "C-contiguous"),
        (gives_nan, "finite, and not zero"),
        (sorts_the_texts, "order changes nothing"),
        (drops_a_text, "one row per text"),
        (cuts_long_texts, r"the longest text \(IndexError: too long\)"),
        (cleans_its_input, "token ids and mask are not changed"),
        (uses_one_buffer, "a result does not change when the next batch runs"),
        (says_the_same_of_all, "different texts get different vectors"),
    ],
)
def test_a_mistake_is_named(tiny: Path, mistake: Callable[[Encode], Encode], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"^WrongBackend .*{promise}"):
        check_backend(WrongBackend(mistake), tiny, dimensions=TINY_DIMENSIONS, pooling="mean")


class SaysThatItPacks(Wrong):
    """Takes every token of a row for one text's."""

    packs = True


def gives_each_row_one_vector(encode: Encode) -> Encode:
    return lambda token_ids, mask: encode(token_ids, np.sign(mask))


def test_who_packs_keeps_the_texts_of_a_row_apart(tiny: Path) -> None:
    class Backend(WrongBackend):
        def load(self, request: LoadRequest) -> Wrong:
            return SaysThatItPacks(MLXBackend().load(request), gives_each_row_one_vector)

    with pytest.raises(AssertionError, match="a text packed with others"):
        check_backend(
            Backend(lambda encode: encode), tiny, dimensions=TINY_DIMENSIONS, pooling="mean"
        )


class Trusting(WrongBackend):
    """Keeps what it loaded first, whatever it is asked for later."""

    def __init__(self, tiny: Path, kept: Path) -> None:
        super().__init__(lambda encode: encode)
        self._folder = shutil.copytree(tiny, kept)

    def load(self, request: LoadRequest) -> Wrong:
        """Load the same model every time."""
        return super().load(
            LoadRequest(
                folder=self._folder,
                pooling="mean",
                precision="f32",
                compute="auto",
                cache=request.cache,
                cache_key="",
            )
        )


def test_a_backend_that_does_not_look_at_its_files_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        check_backend(Trusting(tiny, tmp_path / "kept"), tiny, dimensions=32, pooling="mean")

    for promise in (
        "`dimensions` is 32",
        "another pooling gives other vectors, or ModelLoadError",
        "a missing folder raises ModelLoadError",
        "a file cut in half raises ModelLoadError",
        "an unknown model_type raises ModelLoadError",
    ):
        assert promise in str(caught.value)
