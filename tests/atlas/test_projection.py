"""Principal components: exact, the same every time, and for every shape."""

import numpy as np
import pytest

from emberd.atlas.projection import principal_components


@pytest.mark.parametrize("shape", [(500, 40), (30, 64), (9000, 12), (7, 7)])
def test_they_are_those_of_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    drawn = np.random.default_rng(1).normal(size=shape) * np.linspace(3, 1, shape[1]) + 5
    vectors = drawn.astype(np.float32)

    found, shares = principal_components(vectors, 5)

    centred = drawn - drawn.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    wanted = (left * values)[:, :5]
    turned = np.sign((wanted * found).sum(axis=0))
    assert np.abs(found - wanted * turned).max() < 1e-3 * np.abs(wanted).max()
    assert shares == pytest.approx((values**2 / (values**2).sum())[:5], rel=1e-4)
    assert np.array_equal(found, principal_components(vectors, 5)[0])


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_few_rows_have_fewer_components(rows: int) -> None:
    found, shares = principal_components(np.ones((rows, 4), np.float32), 50)

    assert found.shape == (rows, min(rows, 4))
    assert len(shares) == min(rows, 4)
    assert np.allclose(found, 0)
