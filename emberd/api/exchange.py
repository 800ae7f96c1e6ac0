"""The one way from a request to an answer of the pool, whatever the dialect."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from emberd.api.record import record_of
from emberd.pool.job import Answer
from emberd.pool.manager import EmbedRequest, Pool

T = TypeVar("T")


async def embed(request: Request, pool: Pool, asked: EmbedRequest) -> Answer:
    """Return the pool's answer; a fingerprint in the header counts as one that was asked for.

    Raises:
        EmberdError: as `Pool.embed`.
        ClientDisconnect: the client hung up; its texts leave the queue.
    """
    expected = asked.fingerprint or request.headers.get("x-emberd-expect-fingerprint")
    record = record_of(request.scope)
    record.model = pool.spec(asked.model).name
    answer = await while_connected(request, pool.embed(replace(asked, fingerprint=expected)))
    record.note(answer)
    return answer


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives; cancel it and raise ClientDisconnect when the client hangs up."""
    working = asyncio.ensure_future(work)
    hung_up = asyncio.ensure_future(_wait_for_hang_up(request))
    try:
        await asyncio.wait((working, hung_up), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hung_up.cancel()
        if not working.done():
            working.cancel()
    if working.cancelled() or not working.done():
        raise ClientDisconnect
    return working.result()


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
