"""One request through deaths and restarts: what came back is kept, the rest is sent again."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from emberd.errors import WorkerCrashedError
from emberd.pool.job import Answer, Job
from emberd.pool.request import EmbedRequest
from emberd.worker import wire
from emberd.worker.wire import OPTIONS, Chunk, Embed, Fragments, Tokenize
from tests.event_loop import in_event_loop


def job(*texts: str, dimensions: int = 8) -> Job:
    asked = EmbedRequest(texts=texts, truncate=False, encoding="raw")
    return Job(asked, prompt="q: ", dimensions=dimensions, done=asyncio.Future())


def vectors(*indices: int, tokens: int = 0, truncated: tuple[int, ...] = ()) -> Fragments:
    """Say that these texts come back with two bytes each."""
    return Fragments(
        id=1,
        indices=list(indices),
        sizes=[2] * len(indices),
        tokens=tokens,
        truncated=list(truncated),
        tokenize_s=0.001,
        queue_s=0.002,
        model_s=0.03,
        encode_s=0.004,
    )


def send(request: Job, request_id: int) -> Chunk | Embed | Tokenize:
    """Send all that is missing to a worker; the one before is gone."""
    request.parts.clear()
    return request.to_frame(request_id, request.take(len(request.asked.texts)))


def receive(request: Job, frame: Fragments, payload: bytes | memoryview) -> None:
    """Have the worker answer."""
    request.parts[0].receive(frame, payload)


def strike(request: Job) -> bool:
    """Have the worker die; return whether the request may be tried again."""
    return request.strike(request.parts)


@in_event_loop
async def test_a_request_asks_for_all_its_texts_with_all_its_options() -> None:
    assert send(job("a", "b", dimensions=4), 7) == Embed(
        id=7, texts=["a", "b"], prompt="q: ", truncate=False, dimensions=4, encoding="raw"
    )


@in_event_loop
async def test_every_option_passes_through_to_the_worker() -> None:
    options: dict[str, Any] = {name: f"the {name} asked for" for name in OPTIONS}
    request = Job(EmbedRequest(texts=["a"], **options), prompt="", dimensions=8)

    frame = wire.decode(wire.encode(send(request, 1))[wire.PREFIX.size :], b"").frame

    assert isinstance(frame, Embed)
    assert frame.options == options


@in_event_loop
async def test_fragments_are_answered_in_the_order_of_the_texts() -> None:
    request = job("a", "b", "c")
    assert request.enter("space")
    send(request, 1)
    receive(request, vectors(2, 0, tokens=5), b"ccaa")
    assert request.unanswered == 1
    receive(request, vectors(1, tokens=3), b"bb")
    assert request.unanswered == 0

    request.finish("mine")

    assert await request.done == Answer(
        model="mine",
        fragments=[b"aa", b"bb", b"cc"],
        dimensions=8,
        fingerprint="space",
        tokens=8,
        truncated=[],
        timing=request.timing,
    )


@in_event_loop
async def test_the_times_of_all_its_batches_are_added_up() -> None:
    request = job("a", "b")
    send(request, 1)
    receive(request, vectors(1), b"bb")
    receive(request, vectors(0), b"aa")
    request.finish("mine")

    timing = (await request.done).timing
    assert (timing.tokenize_s, timing.queue_s) == (0.001, 0.002)  # of the whole request
    assert (timing.model_s, timing.encode_s) == (0.06, 0.008)
    assert timing.wait_s >= 0


@in_event_loop
async def test_fragments_of_different_sizes_are_cut_apart() -> None:
    request = job("a", "b", "c")
    send(request, 1)
    frame = replace(vectors(0, 1, 2), sizes=[3, 0, 1])

    receive(request, frame, b"aaac")
    request.finish("mine")

    assert (await request.done).fragments == [b"aaa", b"", b"c"]


@in_event_loop
async def test_fragments_outlive_what_they_were_cut_from() -> None:
    request = job("a", "b")
    send(request, 1)
    came = bytearray(b"head aabb")

    receive(request, vectors(0, 1), memoryview(came)[5:])
    came[5:] = b"    "
    request.finish("mine")

    found = (await request.done).fragments
    assert found == [b"aa", b"bb"] and {type(each) for each in found} == {bytes}


@in_event_loop
async def test_after_a_death_only_the_missing_texts_are_asked_for_again() -> None:
    request = job("a", "b", "c", "d")
    send(request, 1)
    receive(request, vectors(2, 0, tokens=10), b"ccaa")

    again = send(request, 2)

    assert (again.id, again.texts) == (2, ["b", "d"])
    receive(request, vectors(1, tokens=4), b"dd")  # the second of those two
    assert send(request, 3).texts == ["b"]
    receive(request, vectors(0, tokens=4), b"bb")
    request.finish("mine")
    answer = await request.done
    assert answer.fragments == [b"aa", b"bb", b"cc", b"dd"]
    assert answer.tokens == 18


@in_event_loop
async def test_what_was_computed_in_another_space_is_thrown_away_and_asked_for_again() -> None:
    request = job("a", "b")
    assert request.enter("before")
    send(request, 1)
    receive(request, vectors(1, tokens=5, truncated=(1,)), b"bb")

    assert request.enter("after")
    assert request.unanswered == 2
    assert send(request, 2).texts == ["a", "b"]
    receive(request, vectors(0, 1, tokens=9), b"AABB")
    request.finish("mine")

    answer = await request.done
    assert (answer.fragments, answer.fingerprint) == ([b"AA", b"BB"], "after")
    assert (answer.tokens, answer.truncated) == (9, [])


@in_event_loop
async def test_a_space_that_changes_again_is_one_too_many_but_only_when_vectors_are_lost() -> None:
    request = job("a", "b")
    for space in ("one", "two", "three"):  # none of them gave a vector
        assert request.enter(space)
        send(request, 1)
    receive(request, vectors(0), b"aa")
    assert request.enter("three")
    assert request.unanswered == 1
    assert request.enter("four")
    send(request, 2)
    receive(request, vectors(0), b"aa")

    assert not request.enter("five")


@in_event_loop
async def test_truncated_texts_are_told_by_their_place_in_the_request_in_order() -> None:
    request = job("a", "b", "c", "d")
    send(request, 1)
    receive(request, vectors(3, truncated=(3,)), b"dd")
    send(request, 2)
    receive(request, vectors(0, 1, 2, truncated=(2, 0)), b"aabbcc")
    request.finish("mine")

    assert (await request.done).truncated == [0, 2, 3]


@in_event_loop
async def test_two_deaths_without_an_answer_end_a_request() -> None:
    request = job("a", "b")
    send(request, 1)
    assert strike(request)
    send(request, 2)
    assert not strike(request)


@in_event_loop
async def test_a_death_after_an_answer_is_no_strike() -> None:
    request = job("a", "b", "c")
    for request_id in range(3):
        send(request, request_id)
        receive(request, vectors(0), b"aa")
        assert strike(request)

    assert request.strikes == 0


@in_event_loop
async def test_an_answer_does_not_excuse_the_next_death() -> None:
    request = job("a", "b", "c")
    send(request, 1)
    receive(request, vectors(0), b"aa")
    assert strike(request)
    send(request, 2)
    assert strike(request)
    send(request, 3)
    assert not strike(request)


@in_event_loop
async def test_a_request_that_failed_stays_failed() -> None:
    request = job("a")
    send(request, 1)
    receive(request, vectors(0), b"aa")
    request.fail(WorkerCrashedError("It died twice."))

    request.finish("mine")
    request.fail(WorkerCrashedError("again"))

    with pytest.raises(WorkerCrashedError, match="It died twice"):
        await request.done


@in_event_loop
async def test_who_went_away_is_not_answered() -> None:
    request = job("a")
    send(request, 1)
    receive(request, vectors(0), b"aa")
    request.done.cancel()

    request.finish("mine")
    request.fail(WorkerCrashedError("It died."))

    assert request.done.cancelled()


@in_event_loop
async def test_a_request_has_its_own_future_unless_it_is_given_one() -> None:
    request = Job(EmbedRequest(texts=["a"]), prompt="", dimensions=8)

    assert not request.done.done()


@in_event_loop
async def test_the_chunks_of_a_text_go_where_it_goes() -> None:
    request = job("a b", "c d e", "f")
    spans = [[(0, 1), (2, 3)], [(0, 5)], [(0, 1)]]
    request.asked = replace(request.asked, spans=spans)
    first = request.to_frame(1, request.take(1))
    rest = request.to_frame(2, request.take(2))

    assert isinstance(first, Embed)
    assert isinstance(rest, Embed)
    assert (first.texts, first.spans) == (["a b"], [[(0, 1), (2, 3)]])
    assert (rest.texts, rest.spans) == (["c d e", "f"], [[(0, 5)], [(0, 1)]])
