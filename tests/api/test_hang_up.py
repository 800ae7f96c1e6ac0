"""Work for a client ends when the client hangs up, and only then."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from emberd.api.hang_up import KEY, HangUp, hang_up_of
from tests.event_loop import in_event_loop


class Work:
    """Work that says how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self) -> str:
        """Work until told to go on."""
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "done"


@in_event_loop
async def test_work_is_done_while_the_client_is_there() -> None:
    hang_up, work = HangUp(), Work()
    work.go_on.set()

    assert await hang_up.ends(work()) == "done"
    hang_up.happen()  # nobody is at work any longer
    await asyncio.sleep(0)


@in_event_loop
async def test_work_ends_when_the_client_hangs_up() -> None:
    hang_up, work = HangUp(), Work()
    task = asyncio.create_task(hang_up.ends(work()))
    await work.began.wait()

    hang_up.happen()

    with pytest.raises(ClientDisconnect):
        await task
    assert work.was_cancelled
    assert not task.cancelled()


@in_event_loop
async def test_work_for_a_client_that_has_gone_does_not_begin() -> None:
    hang_up, work = HangUp(), Work()
    work.go_on.set()  # it would not even wait
    hang_up.happen()

    with pytest.raises(ClientDisconnect):
        await hang_up.ends(work())
    assert not work.began.is_set()


@in_event_loop
async def test_who_cancels_it_for_another_reason_gets_that() -> None:
    hang_up, work = HangUp(), Work()
    task = asyncio.create_task(hang_up.ends(work()))
    await work.began.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@in_event_loop
async def test_a_deadline_inside_is_not_taken_for_it() -> None:
    async def late() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await HangUp().ends(late())


def test_a_request_has_that_of_its_connection_or_none() -> None:
    hang_up = HangUp()

    assert hang_up_of({"state": {KEY: hang_up}}) is hang_up
    assert hang_up_of({}) is not hang_up
