"""Which texts run next: batches by padded tokens, short work first, nothing lost or run twice."""

from collections.abc import Sequence
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.worker.batcher import AGEING_TOKENS_PER_S, Batcher, Item
from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed

BUDGET = 100


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def batcher(clock: Clock) -> Batcher:
    return Batcher(BUDGET, clock)


def add(batcher: Batcher, request_id: int, *lengths: int) -> None:
    """Queue a request with texts of these lengths."""
    request = Embed(
        id=request_id, texts=["?"] * len(lengths), prompt="", truncate=True, dimensions=1,
        encoding="raw",
    )  # fmt: skip
    batcher.add(request, [Tokens([0] * length, length) for length in lengths])


def places(batch: Sequence[Item] | None) -> list[tuple[int, int]]:
    """Return (request, index) of each text of a batch."""
    assert batch is not None
    return [(item.work.request.id, item.index) for item in batch]


def lengths(batch: Sequence[Item] | None) -> list[int]:
    assert batch is not None
    return [len(item.tokens.ids) for item in batch]


def drain(batcher: Batcher) -> list[list[Item]]:
    """Take all batches there are."""
    batcher.close()
    batches = []
    while (batch := batcher.next_batch()) is not None:
        assert batch  # an empty one would come again and again
        batches.append(batch)
    return batches


def test_a_batch_is_cut_by_its_padded_tokens(batcher: Batcher) -> None:
    add(batcher, 1, 10, 50, 30, 40, 20)

    assert [lengths(batch) for batch in drain(batcher)] == [[50, 40], [30, 20, 10]]


def test_texts_that_fill_the_budget_to_the_brim_run_together(batcher: Batcher) -> None:
    add(batcher, 1, *[20] * 5, *[5] * 20)

    assert [len(batch) for batch in drain(batcher)] == [5, 20]


def test_a_text_longer_than_the_budget_runs_alone(batcher: Batcher) -> None:
    add(batcher, 1, 500, 10)

    assert [lengths(batch) for batch in drain(batcher)] == [[500], [10]]


def test_small_requests_share_a_batch(batcher: Batcher) -> None:
    for request_id in range(5):
        add(batcher, request_id, 20)

    assert sorted(places(batcher.next_batch())) == [(request_id, 0) for request_id in range(5)]


def test_the_rest_of_a_batch_is_filled_from_a_larger_request(batcher: Batcher) -> None:
    add(batcher, 1, *[20] * 30)
    add(batcher, 2, 20)

    assert places(batcher.next_batch()) == [(2, 0), *((1, index) for index in (29, 28, 27, 26))]


def test_the_shortest_remaining_work_goes_first(batcher: Batcher) -> None:
    add(batcher, 1, *[100] * 10)
    add(batcher, 2, *[100] * 2)
    add(batcher, 3, *[100] * 5)

    order = [places(batch)[0][0] for batch in drain(batcher)]

    assert order == [2] * 2 + [3] * 5 + [1] * 10


def test_what_has_run_already_is_no_remaining_work(batcher: Batcher) -> None:
    add(batcher, 1, *[100] * 10)
    for _ in range(9):
        batcher.next_batch()

    add(batcher, 2, *[100] * 3)

    assert places(batcher.next_batch()) == [(1, 0)]


def test_a_query_waits_for_one_batch_of_a_bulk_job_at_most(batcher: Batcher) -> None:
    add(batcher, 1, *[100] * 1000)
    assert places(batcher.next_batch()) == [(1, 999)]  # is running
    add(batcher, 2, 100)

    assert places(batcher.next_batch()) == [(2, 0)]


def test_work_that_has_waited_long_goes_before_shorter_work(batcher: Batcher, clock: Clock) -> None:
    add(batcher, 1, *[100] * 10)
    clock.now_s = 1100 / AGEING_TOKENS_PER_S
    add(batcher, 2, 100)

    assert places(batcher.next_batch()) == [(1, 9)]


def test_work_that_has_not_waited_long_enough_stays_behind(batcher: Batcher, clock: Clock) -> None:
    add(batcher, 1, *[100] * 10)
    clock.now_s = 800 / AGEING_TOKENS_PER_S
    add(batcher, 2, 100)

    assert places(batcher.next_batch()) == [(2, 0)]


def test_a_bulk_job_does_not_starve_under_a_stream_of_queries(
    batcher: Batcher, clock: Clock
) -> None:
    add(batcher, 0, *[100] * 10)
    seen = []
    for request_id in range(1, 300):
        add(batcher, request_id, 100)
        clock.now_s += 100 / AGEING_TOKENS_PER_S  # as long as a batch takes
        seen += places(batcher.next_batch())

    assert [place for place in seen if place[0] == 0] == [(0, index) for index in range(9, -1, -1)]


def test_a_cancelled_request_leaves_the_queue(batcher: Batcher) -> None:
    add(batcher, 1, 100, 100)
    add(batcher, 2, 100, 100, 100)
    batcher.next_batch()

    batcher.cancel(1)

    assert [places(batch) for batch in drain(batcher)] == [[(2, 2)], [(2, 1)], [(2, 0)]]


def test_cancelling_what_is_done_or_unknown_does_nothing(batcher: Batcher) -> None:
    add(batcher, 1, 10)
    batcher.next_batch()

    batcher.cancel(1)
    batcher.cancel(99)

    assert drain(batcher) == []


def test_a_closed_batcher_gives_out_what_it_has_and_ends(batcher: Batcher) -> None:
    add(batcher, 1, 100, 100)

    batcher.close()

    assert places(batcher.next_batch()) == [(1, 1)]
    assert places(batcher.next_batch()) == [(1, 0)]
    assert batcher.next_batch() is None
    assert batcher.next_batch() is None


@pytest.mark.parametrize("event", ["add", "close"])
def test_who_waits_for_work_is_woken(batcher: Batcher, event: str) -> None:
    seen: list[list[Item] | None] = []
    waiting = Thread(target=lambda: seen.append(batcher.next_batch()), daemon=True)
    waiting.start()

    if event == "add":
        add(batcher, 1, 10)
    else:
        batcher.close()
    waiting.join(10)

    assert len(seen) == 1
    assert seen[0] is None or places(seen[0]) == [(1, 0)]
    assert (seen[0] is None) == (event == "close")


@given(
    st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=20), max_size=6),
    st.lists(st.floats(0, 1), max_size=6),
)
def test_every_text_comes_out_exactly_once_in_batches_within_the_budget(
    requests: list[list[int]], pauses_s: list[float]
) -> None:
    clock = Clock()
    batcher = Batcher(BUDGET, clock)
    for request_id, request in enumerate(requests):
        clock.now_s += pauses_s[request_id] if request_id < len(pauses_s) else 0
        add(batcher, request_id, *request)

    batches = drain(batcher)

    assert sorted(place for batch in batches for place in places(batch)) == [
        (request_id, index)
        for request_id, request in enumerate(requests)
        for index in range(len(request))
    ]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths(batch)) <= BUDGET
        for item in batch:
            assert len(item.tokens.ids) == requests[item.work.request.id][item.index]
