"""How wide rows are for texts that are about as long as each other."""

import pytest

from emberd.worker.row_widths import USUAL, for_alike


def width_for(longest: int, common: int, texts: int, budget: int = 512, most: int = 256) -> int:
    """Return the width, of rows that usually have 128 tokens."""
    return for_alike(USUAL, longest=longest, common=common, texts=texts, budget=budget, most=most)


@pytest.mark.parametrize(
    ("longest", "width"),
    [
        (128, 128),  # one fills a row
        (112, 224),  # two fill a row, one leaves an eighth of it
        (100, 224),
        (80, 160),
        (64, 128),
    ],
)
def test_a_whole_number_of_texts_fills_a_row(longest: int, width: int) -> None:
    assert width_for(longest, longest, 100) == width


def test_texts_of_other_lengths_fill_usual_rows() -> None:
    assert width_for(112, 60, 100) == USUAL


def test_rows_are_no_wider_than_a_few_texts_need() -> None:
    """Two rows of 224 tokens for three texts would be more than three of 128."""
    assert width_for(112, 112, 3) == USUAL
    assert width_for(112, 112, 4) == 224


def test_rows_fit_into_the_budget_and_the_model() -> None:
    assert width_for(112, 112, 100, budget=192) <= 192
    assert width_for(112, 112, 100, most=160) <= 160
    assert for_alike(400, longest=390, common=390, texts=9, budget=256, most=256) == 400
