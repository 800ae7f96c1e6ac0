"""How a batch is described to the graph: positions, which text a token is in, what is pooled."""

import numpy as np
import pytest

from emberd.backends.base import Pooling
from emberd.backends.rows import BLOCK_TOKENS, Rows

IDS = np.array([[5, 6, 7, 8, 9, 0, 0], [5, 1, 6, 7, 8, 9, 3]], np.int32)
TEXTS = np.array([[1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 2, 3, 3, 3]], np.int32)


def of(pooling: Pooling = "mean", padding_id: int | None = None) -> Rows:
    return Rows.of(IDS, TEXTS, pooling=pooling, padding_id=padding_id)


def test_positions_begin_anew_with_each_text() -> None:
    assert of().positions.tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 0, 0, 1, 2]]


def test_positions_of_fairseq_count_what_is_no_padding_and_start_after_its_id() -> None:
    assert of(padding_id=1).positions.tolist() == [[2, 3, 2, 3, 4, 2, 3], [2, 1, 3, 2, 2, 3, 4]]


@pytest.mark.parametrize(
    ("pooling", "places", "starts"),
    [
        ("mean", [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13], [0, 2, 5, 8, 9]),
        ("cls", [0, 2, 7, 10, 11], [0, 1, 2, 3, 4]),
        ("last", [1, 4, 9, 10, 13], [0, 1, 2, 3, 4]),
    ],
)
def test_what_is_pooled(pooling: Pooling, places: list[int], starts: list[int]) -> None:
    rows = of(pooling)

    assert rows.places.tolist() == places
    assert rows.starts.tolist() == starts
    assert all(given.dtype == np.int32 for given in rows.inputs())


def test_only_rows_of_several_texts_need_to_know_who_asks() -> None:
    ones = np.ones((2, 3), np.int32)

    assert of().queries.tolist() == TEXTS.tolist()
    assert Rows.of(ones, ones, pooling="mean", padding_id=None).queries.tolist() == [
        [1],
        [1],
    ]


def test_neighbours_of_equal_number_in_two_rows_are_two_texts() -> None:
    ones = np.ones((2, 3), np.int32)

    assert Rows.of(ones, ones, pooling="mean", padding_id=None).starts.tolist() == [0, 3]


def grouped(*lengths: int) -> Rows:
    """Texts of so many tokens, in one row, as a sparse model takes them."""
    mask = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)[None]
    return Rows.of(np.full_like(mask, 7), mask, pooling="max", padding_id=None)


@pytest.mark.parametrize("seed", range(20))
def test_groups_have_all_tokens_of_a_text_and_no_others(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 1 + draw.integers(1, 700), draw.integers(1, 40))
    rows = grouped(*lengths.tolist())
    blocks, size, in_block = rows.places.shape
    groups = rows.places.swapaxes(1, 2).reshape(-1, size)
    ends = lengths.cumsum()

    assert rows.texts == len(lengths)
    assert size * in_block <= BLOCK_TOKENS
    assert len(groups) == len(rows.starts) == blocks * in_block
    for text, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        found = np.unique(groups[rows.starts == text])
        assert found.tolist() == list(range(end - length, end))


@pytest.mark.parametrize(
    ("lengths", "shape"),
    [
        ([1], (1, 1, 1)),
        ([8], (1, 8, 1)),
        ([64] * 8, (1, 64, 8)),
        ([512], (1, 64, 8)),
        ([128] * 32, (8, 64, 8)),
        ([9] * 40, (1, 10, 40)),  # a tenth is scored twice, instead of three groups a text
    ],
)
def test_groups_are_as_large_as_texts_allow(
    lengths: list[int], shape: tuple[int, int, int]
) -> None:
    assert grouped(*lengths).places.shape == shape


def test_groups_of_mixed_lengths_are_few_and_hardly_filled_up() -> None:
    """The packed rows of `benchmarks/sparse.py`, of whose time the groups took a large part."""
    lengths = [60, 40, 28, 90, 30, 8, 17, 33, 50, 12, 16, *[9] * 7]
    rows = grouped(*lengths)

    assert len(rows.starts) <= 3 * len(lengths)
    assert rows.places.size <= 1.1 * sum(lengths)
