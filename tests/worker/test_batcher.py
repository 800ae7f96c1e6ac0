"""Which texts run next: batches by padded tokens, short work first, nothing lost or repeated."""

from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.backends.base import Encoder
from emberd.worker.batcher import (
    FILLING,
    OLDEST_EVERY,
    Batch,
    Batcher,
)
from emberd.worker.budget import Budget
from emberd.worker.row_widths import STEP, round_up
from emberd.worker.row_widths import USUAL as ROW_TOKENS
from emberd.worker.tokenizer import Tokens
from emberd.worker.wire import Embed
from emberd.worker.work import CORE_CHARS, SLICE_CHARS, SLICE_TEXTS, Work
from tests.worker.distinct import text_of

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
    return Batcher(Budget(BUDGET), clock)


def add(batcher: Batcher, request_id: int, *lengths: int) -> None:
    """Queue a request with texts of these lengths."""
    texts = [text_of(4 * length) for length in lengths]
    request = Embed(
        id=request_id, texts=texts, prompt="", truncate=True, dimensions=1, encoding="raw"
    )
    bring(batcher, batcher.add(request))
    while wants_tokens(batcher):
        tokenize(batcher)


def wants_tokens(batcher: Batcher) -> bool:
    return any(work.wants_tokens for work in batcher._works.values())


def bulk(batcher: Batcher, request_id: int, texts: int, chars: int) -> tuple[Work, range] | None:
    """Queue a request that is not tokenized yet; return its first slice."""
    distinct = [text_of(chars) for _ in range(texts)]
    request = Embed(
        id=request_id, texts=distinct, prompt="", truncate=True, dimensions=1, encoding="raw"
    )
    return batcher.add(request)


def tokenize(batcher: Batcher) -> list[tuple[int, int]]:
    """Do what the tokenizing thread does, once."""
    return bring(batcher, batcher.next_slice())


def bring(batcher: Batcher, found: tuple[Work, range] | None) -> list[tuple[int, int]]:
    """Add the tokens of a slice; a token has four characters."""
    assert found is not None
    work, indices = found
    texts = [work.request.texts[index] for index in indices]
    tokens = [Tokens([0] * (len(text) // 4), len(text) // 4) for text in texts]
    batcher.add_tokens(work, indices, tokens)
    return [(work.request.id, index) for index in indices]


def places(batch: Batch | None) -> list[tuple[int, int]]:
    """Return (request, index) of each text of a batch."""
    assert batch is not None
    return [(item.work.request.id, item.index) for item in batch.items]


def lengths(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [len(item.tokens.ids) for item in batch.items]


def rows(batch: Batch | None) -> list[list[int]]:
    """Return the length of each text, row by row."""
    assert batch is not None
    return [[len(item.tokens.ids) for item in row] for row in batch.rows]


def drain(batcher: Batcher) -> list[Batch]:
    """Take all batches."""
    batcher.close()
    batches = []
    while (batch := batcher.next_batch()) is not None:
        assert batch.items  # an empty one would come again and again
        batches.append(batch)
    return batches


def test_a_batch_is_cut_by_its_padded_tokens(batcher: Batcher) -> None:
    add(batcher, 1, 21, 50, 22, 40, 20)

    assert [lengths(batch) for batch in drain(batcher)] == [[50, 40], [22, 21, 20]]


def test_texts_of_unlike_lengths_do_not_share_a_batch(batcher: Batcher) -> None:
    add(batcher, 1, 40, 5, 30, 6)

    assert [lengths(batch) for batch in drain(batcher)] == [[40, 30], [6, 5]]


def test_a_query_is_not_padded_to_the_texts_of_a_larger_request(batcher: Batcher) -> None:
    add(batcher, 1, 50, 12, 11)
    add(batcher, 2, 12)

    assert places(batcher.next_batch()) == [(2, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("row_tokens", [None, 100])
def test_a_query_does_not_wait_for_a_batch_full_of_a_bulk_job(
    batcher: Batcher, row_tokens: int | None
) -> None:
    batcher.row_tokens = row_tokens
    add(batcher, 1, *[6] * 100)
    add(batcher, 2, 6)

    batch = batcher.next_batch()

    assert batch and batch.items[0].work.request.id == 2
    most = BUDGET // FILLING
    assert batch.padded_tokens <= (round_up(most) if row_tokens else most)


def test_texts_that_fill_the_budget_to_the_brim_run_together(batcher: Batcher) -> None:
    add(batcher, 1, *[20] * 5, *[5] * 20)

    assert [len(batch.items) for batch in drain(batcher)] == [5, 20]


def test_a_text_longer_than_the_budget_runs_alone(batcher: Batcher) -> None:
    add(batcher, 1, 500, 10)

    assert [lengths(batch) for batch in drain(batcher)] == [[500], [10]]


def test_small_requests_share_a_batch(batcher: Batcher) -> None:
    for request_id in range(5):
        add(batcher, request_id, 20)

    assert sorted(places(batcher.next_batch())) == [(request_id, 0) for request_id in range(5)]


def test_some_of_a_bulk_job_runs_along(batcher: Batcher) -> None:
    add(batcher, 1, *[8] * 30)
    add(batcher, 2, 8)

    assert places(batcher.next_batch()) == [(2, 0), (1, 29), (1, 28)]


def test_the_shortest_remaining_work_goes_first(batcher: Batcher) -> None:
    add(batcher, 1, *[100] * 3)
    add(batcher, 2, 100)
    add(batcher, 3, *[100] * 2)

    order = [places(batch)[0][0] for batch in drain(batcher)]

    assert order == [2, 3, 3, 1, 1, 1]


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


def test_a_query_passes_a_bulk_job_however_long_that_has_waited(
    batcher: Batcher, clock: Clock
) -> None:
    add(batcher, 0, *[100] * 1000)
    for request_id in range(1, 100):
        clock.now_s += 10
        batcher.next_batch()
        add(batcher, request_id, 100)
        seen = [places(batcher.next_batch())[0][0] for _ in range(2)]

        assert request_id in seen


def test_a_bulk_job_gets_its_share_under_a_stream_of_queries(
    batcher: Batcher, clock: Clock
) -> None:
    add(batcher, 0, *[100] * 1000)
    seen = []
    for request_id in range(1, 400):
        clock.now_s += 1
        add(batcher, request_id, 100)
        seen += places(batcher.next_batch())

    of_the_job = [place for place in seen if place[0] == 0]
    assert len(of_the_job) == len(seen) // OLDEST_EVERY


@pytest.mark.parametrize("row_tokens", [None, 100])
def test_of_many_clients_with_short_texts_none_waits_for_long(
    batcher: Batcher, clock: Clock, row_tokens: int | None
) -> None:
    batcher.row_tokens = row_tokens
    lengths = range(8, 32)  # together five batches
    asked = dict.fromkeys(lengths, 0)
    waited = []
    for length in lengths:
        add(batcher, length, length)
    for number in range(1, 300):
        clock.now_s += 1
        for length, _ in places(batcher.next_batch()):
            waited.append(number - asked[length])
            asked[length] = number
            add(batcher, length, length)  # each asks again when it has its answer

    assert max(waited + [300 - since for since in asked.values()]) <= 8


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
    seen: list[Batch | None] = []
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


def test_a_bulk_job_is_tokenized_in_slices(batcher: Batcher) -> None:
    first = bulk(batcher, 1, texts=SLICE_TEXTS + 1, chars=40)
    second = bulk(batcher, 2, texts=2, chars=SLICE_CHARS)

    slices = [bring(batcher, first), bring(batcher, second)]
    while wants_tokens(batcher):
        slices.append(tokenize(batcher))

    assert sorted(slices) == [
        [(1, index) for index in range(SLICE_TEXTS)],
        [(1, SLICE_TEXTS)],
        [(2, 0)],
        [(2, 1)],
    ]


def test_workers_that_share_the_cores_tokenize_less_at_once(batcher: Batcher) -> None:
    batcher.suit(cast("Encoder", SimpleNamespace()), 384, workers=1000)

    found = bulk(batcher, 1, texts=2, chars=CORE_CHARS)

    assert [bring(batcher, found), tokenize(batcher)] == [[(1, 0)], [(1, 1)]]


def test_a_query_is_tokenized_before_the_rest_of_a_bulk_job(batcher: Batcher) -> None:
    bring(batcher, bulk(batcher, 1, texts=3 * SLICE_TEXTS, chars=40))
    bring(batcher, bulk(batcher, 2, texts=SLICE_TEXTS + 1, chars=40))

    assert tokenize(batcher) == [(2, SLICE_TEXTS)]


def test_who_brings_a_query_tokenizes_it(batcher: Batcher) -> None:
    bring(batcher, bulk(batcher, 1, texts=3 * SLICE_TEXTS, chars=40))

    assert bring(batcher, bulk(batcher, 2, texts=1, chars=40)) == [(2, 0)]
    assert places(batcher.next_batch())[0] == (2, 0)


def test_a_request_without_texts_is_nothing_to_do(batcher: Batcher) -> None:
    assert bulk(batcher, 1, texts=0, chars=0) is None
    assert drain(batcher) == []


def test_batches_are_cut_before_all_is_tokenized(batcher: Batcher) -> None:
    bring(batcher, bulk(batcher, 1, texts=3, chars=SLICE_CHARS))

    assert places(batcher.next_batch()) == [(1, 0)]


def test_a_cancelled_request_is_tokenized_no_further(batcher: Batcher) -> None:
    bring(batcher, bulk(batcher, 1, texts=3, chars=SLICE_CHARS))

    batcher.cancel(1)

    assert not wants_tokens(batcher)
    assert drain(batcher) == []


def test_tokens_that_come_after_the_cancelling_are_dropped(batcher: Batcher) -> None:
    found = bulk(batcher, 1, texts=1, chars=40)
    assert found is not None
    batcher.cancel(1)

    batcher.add_tokens(found[0], found[1], [Tokens([0], 1)])

    assert drain(batcher) == []


def test_a_closed_batcher_is_tokenized_to_the_end(batcher: Batcher) -> None:
    first = bulk(batcher, 1, texts=2, chars=SLICE_CHARS)

    batcher.close()

    assert [bring(batcher, first), tokenize(batcher)] == [[(1, 0)], [(1, 1)]]
    assert batcher.next_slice() is None
    assert len(drain(batcher)) == 2


def packing(tokens: int, row_tokens: int = 512) -> Batcher:
    """Return a batcher for an encoder that takes several texts in a row."""
    batcher = Batcher(Budget(tokens))
    batcher.row_tokens = row_tokens
    return batcher


def test_rows_are_filled_with_the_longest_texts_that_fit() -> None:
    batcher = packing(2 * ROW_TOKENS)
    add(batcher, 1, 120, 100, 28, 8, 70, 50, 5)

    batch = batcher.next_batch()

    assert rows(batch) == [[120, 8], [100, 28]]
    assert batch and (batch.width, batch.padded_tokens) == (ROW_TOKENS, 2 * ROW_TOKENS)
    assert rows(batcher.next_batch()) == [[70, 50, 5]]


def test_texts_that_are_alike_share_wider_rows() -> None:
    """Of a row of 128 tokens, each of these would leave an eighth empty."""
    batcher = packing(512)
    add(batcher, 1, *[112] * 19, 20)

    batches = drain(batcher)

    assert [batch.width for batch in batches[:4]] == [224] * 4
    assert sum(batch.padded_tokens for batch in batches) <= 1.05 * (19 * 112 + 20)


def test_batches_suit_the_encoder() -> None:
    plain, gpu = Batcher(Budget(512)), Batcher(Budget(512))
    plain.suit(cast("Encoder", SimpleNamespace()), 384)
    gpu.suit(cast("Encoder", SimpleNamespace(packs=True, row_tokens=256, batch_tokens=4096)), 384)
    for batcher in (plain, gpu):
        add(batcher, 1, *[100] * 60)

    first, wide = plain.next_batch(), gpu.next_batch()

    assert first and (first.width, len(first.rows), first.budget_tokens) == (100, 5, 512)
    assert wide and (wide.width, len(wide.rows), wide.budget_tokens) == (224, 16, 4096)
    assert {len(row) for row in wide.rows} == {2}


def test_a_text_alone_is_not_padded_and_a_few_are_little() -> None:
    batcher = packing(512)
    add(batcher, 1, 11)
    alone = batcher.next_batch()
    add(batcher, 1, 11)
    add(batcher, 2, 9, 7)

    batch = batcher.next_batch()

    assert alone and alone.width == 11
    assert rows(batch) == [[11, 9, 7]]
    assert batch and batch.width == STEP


def test_rows_have_few_widths() -> None:
    batcher = packing(512)
    add(batcher, 1, *range(3, 400, 7), *range(2, 90))

    widths = {batch.width for batch in drain(batcher) if len(batch.items) > 1}

    assert widths
    assert all(width % STEP == 0 for width in widths)


def test_a_very_long_text_has_its_row_for_itself() -> None:
    batcher = packing(512, row_tokens=8192)
    add(batcher, 1, 1100, 20)

    assert [rows(batch) for batch in drain(batcher)] == [[[1100]], [[20]]]


def test_a_bulk_job_alone_has_the_whole_budget_to_its_end(batcher: Batcher) -> None:
    add(batcher, 1, *[20] * 7)
    add(batcher, 2, *[20] * 50)

    drained = drain(batcher)

    assert {len(batch.items) for batch in drained[:-1]} == {5}


def test_a_row_is_no_longer_than_the_model_takes() -> None:
    batcher = packing(512, row_tokens=48)
    add(batcher, 1, 48, 40, 30, 20, 8)

    batch = batcher.next_batch()

    assert rows(batch) == [[48], [40, 8], [30], [20]]
    assert batch and batch.width == 48


def test_nearly_nothing_of_a_bulk_job_is_padding() -> None:
    batcher = packing(512)
    lengths_of_texts = [3 + (37 * place) % 250 for place in range(400)]
    add(batcher, 1, *lengths_of_texts)

    padded_tokens = sum(batch.padded_tokens for batch in drain(batcher))

    assert padded_tokens < 1.07 * sum(lengths_of_texts)


def test_a_query_and_its_like_share_rows_ahead_of_a_bulk_job() -> None:
    batcher = packing(512)
    add(batcher, 1, *[100] * 100)
    for request_id in range(2, 30):
        add(batcher, request_id, 11)

    batch = batcher.next_batch()

    assert {request for request, _ in places(batch)} >= set(range(2, 30))
    assert batch and batch.padded_tokens <= 512


@given(
    st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=20), max_size=6),
    st.lists(st.floats(0, 1), max_size=6),
    st.sampled_from([None, 150, 512]),
    st.sampled_from([BUDGET, 512]),
)
def test_every_text_comes_out_exactly_once_in_batches_within_the_budget(
    requests: list[list[int]], pauses_s: list[float], row_tokens: int | None, budget: int
) -> None:
    clock = Clock()
    batcher = Batcher(Budget(budget), clock)
    batcher.row_tokens = row_tokens
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
        longest = max(lengths(batch))
        needs = min(round_up(longest), row_tokens) if row_tokens else longest
        assert batch.padded_tokens <= max(budget, needs)
        assert all(sum(row) <= batch.width for row in rows(batch))
        assert batch.width <= (row_tokens or 150)
        for item in batch.items:
            assert len(item.tokens.ids) == requests[item.work.request.id][item.index]


@pytest.mark.parametrize("packs", [True, False])
def test_a_batch_has_no_more_texts_than_there_is_memory_for_their_vectors(packs: bool) -> None:
    batcher = Batcher(Budget(4096))
    batcher.suit(cast("Encoder", SimpleNamespace(packs=packs, dimensions=2**21)), 384)
    add(batcher, 1, *[3] * 20)

    assert [len(batch.items) for batch in drain(batcher)] == [8, 8, 4]
