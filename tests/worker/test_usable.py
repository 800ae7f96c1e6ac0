"""Texts whose vectors are not usable run again alone, and a model that fails on all is given up."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from emberd.backends.base import TokenIds
from emberd.errors import BadVectorError, WorkerError
from emberd.vectors import Matrix
from emberd.worker.inference import can_embed, usable
from emberd.worker.loading import Loaded
from emberd.worker.tokenizer import Tokens
from emberd.worker.work import Item


class Encoder:
    """Gives every text the same vector; raises if one has a token that it cannot take."""

    def __init__(self, fails: tuple[int, ...], vector: tuple[float, float]) -> None:
        self.fails = fails
        self.vector = vector

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run at once."""
        del mask
        if np.isin(token_ids, self.fails).any():
            raise RuntimeError
        return np.array([self.vector] * len(token_ids), np.float32)


HARMLESS = 5  # the token of the harmless text


def loaded(*fails: int, vector: tuple[float, float] = (1, 1), norm: bool = False) -> Loaded:
    """Return a model that fails on these tokens."""
    encoder = Encoder(fails, vector)
    tokenizer = SimpleNamespace(encode=lambda texts: [Tokens([HARMLESS], 1) for _ in texts])
    spec = SimpleNamespace(dimensions=2, matryoshka_norm=norm)
    return cast(
        Loaded,
        SimpleNamespace(
            takes_pairs=False, is_sparse=False, encoder=encoder, tokenizer=tokenizer, spec=spec
        ),
    )


def batch(*tokens: int, dimensions: int = 2) -> list[Item]:
    """Return texts of one token each."""
    work: Any = SimpleNamespace(request=SimpleNamespace(dimensions=dimensions))
    return [Item(work, at, Tokens([token], 1)) for at, token in enumerate(tokens)]


def test_only_the_text_at_fault_fails() -> None:
    rows, failures = usable(None, batch(1, 2, 3), loaded(2))

    assert np.array_equal(rows[[0, 2]], np.ones((2, 2)))
    assert list(failures) == [1]
    assert isinstance(failures[1], BadVectorError)


def test_a_vector_that_is_usable_alone_takes_its_place() -> None:
    together = np.array([[1, 2], [np.nan, 1], [0, 0]], np.float32)

    rows, failures = usable(together, batch(1, 2, 3), loaded())

    assert rows.tolist() == [[1, 2], [1, 1], [1, 1]]
    assert failures == {}


@pytest.mark.parametrize("texts", [(1,), (1, 2)])
def test_a_model_that_fails_on_a_harmless_text_too_is_given_up(texts: tuple[int, ...]) -> None:
    with pytest.raises(WorkerError):
        usable(None, batch(*texts), loaded(*texts, HARMLESS))


@pytest.mark.parametrize(
    ("norm", "dimensions", "expected"),
    [(False, 1, [1, 0]), (True, 1, [-1, 0]), (True, 2, [1, 5])],
)
def test_what_is_cut_off_counts_only_in_a_norm_before_the_cut(
    norm: bool, dimensions: int, expected: list[float]
) -> None:
    texts = batch(1, 2, dimensions=dimensions)

    rows, failures = usable(None, texts, loaded(vector=(1, 5), norm=norm))

    assert rows == pytest.approx(np.array([expected] * 2), abs=1e-4)
    assert failures == {}


def test_a_harmless_text_shows_whether_a_model_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert can_embed(loaded())
    assert not can_embed(loaded(HARMLESS), 9)

    assert "a harmless text failed: RuntimeError" in capsys.readouterr().err
