"""How many tokens a batch has: on any machine, the budget ends up both fast and fair."""

from collections.abc import Callable

import pytest

from emberd.worker.budget import AGAIN, FEWEST_TOKENS, FIRST_TOKENS, LONGEST_S, MOST_TOKENS, Budget


def settle(seconds: Callable[[int], float], batches: int = 390) -> Budget:
    """Run full batches on a machine that takes `seconds(tokens)` for one."""
    budget = Budget()
    for _ in range(batches):
        budget.note(budget.tokens, seconds(budget.tokens))
    return budget


def test_a_machine_whose_speed_does_not_depend_on_it_keeps_batches_short() -> None:
    """Two cores and MiniLM: 16,000 tokens a second, at 512 as at 4,096."""
    budget = settle(lambda tokens: 0.001 + tokens / 16_000)

    assert budget.tokens / 16_000 <= 0.04


def test_a_machine_that_needs_large_batches_gets_them() -> None:
    """A GPU: launching takes 1.5 ms, whatever is in the batch."""
    budget = settle(lambda tokens: 0.0015 + tokens / 4_000_000)

    assert budget.tokens >= MOST_TOKENS / 2


def test_a_large_model_on_a_slow_machine_gets_small_batches() -> None:
    budget = settle(lambda tokens: 0.005 + tokens / 1_000)

    assert FEWEST_TOKENS <= budget.tokens < FIRST_TOKENS
    assert 0.005 + budget.tokens / 1_000 <= 2 * LONGEST_S


def test_a_model_too_slow_for_any_budget_gets_the_smallest() -> None:
    assert settle(lambda tokens: tokens / 10).tokens == FEWEST_TOKENS


@pytest.mark.parametrize("tokens", [1, FIRST_TOKENS // 2, FIRST_TOKENS + 1])
def test_a_batch_that_is_not_full_teaches_nothing(tokens: int) -> None:
    budget = Budget()

    for _ in range(100):
        budget.note(tokens, 1.0)

    assert budget.tokens == FIRST_TOKENS


def test_one_slow_batch_does_not_change_what_was_found() -> None:
    budget = settle(lambda tokens: 0.001 + tokens / 16_000)
    found = budget.tokens

    budget.note(found, 0.5)
    for _ in range(20):
        budget.note(budget.tokens, 0.001 + budget.tokens / 16_000)

    assert budget.tokens == found


def test_a_slow_phase_is_got_over() -> None:
    budget = settle(lambda tokens: 12 * (0.001 + tokens / 16_000), batches=40)
    assert budget.tokens < FIRST_TOKENS / 2

    for _ in range(10 * AGAIN):
        budget.note(budget.tokens, 0.001 + budget.tokens / 16_000)

    speed = budget.tokens / (0.001 + budget.tokens / 16_000)
    assert speed > 0.85 * 16_000


def test_it_stays_where_it_has_settled() -> None:
    budget = settle(lambda tokens: 0.002 + tokens / 30_000)
    found, seen = budget.tokens, []

    for _ in range(AGAIN):
        budget.note(budget.tokens, 0.002 + budget.tokens / 30_000)
        seen.append(budget.tokens)

    assert set(seen) <= {found // 2, found, found * 2}  # a neighbour is tried now and then
    assert seen.count(found) > 0.9 * AGAIN
