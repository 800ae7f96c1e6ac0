"""The one way from a request to an answer of the pool, whatever the dialect."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from emberd.api.record import record_of
from emberd.pool.job import Answer, Timing
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
    if expected != asked.fingerprint:
        asked = replace(asked, fingerprint=expected)
    answer = await while_connected(request, pool.embed(asked))
    record.note(answer)
    return answer


async def load(request: Request, pool: Pool, name: str | None) -> Answer:
    """Return an answer without vectors, once the model is there.

    Nobody's fingerprint is compared: nothing in it could be of another space.

    Raises:
        EmberdError: as `Pool.load`.
        ClientDisconnect: the client hung up; a start under way goes on while others want it.
    """
    record = record_of(request.scope)
    record.model = pool.spec(name).name
    began_s = time.monotonic()
    row = await while_connected(request, pool.load(name))
    answer = Answer(
        model=row["name"],
        fragments=(),
        dimensions=row["dimensions"],
        fingerprint=row["fingerprint"],
        tokens=0,
        truncated=(),
        timing=Timing(wait_s=time.monotonic() - began_s),
    )
    record.note(answer)
    return answer


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives; cancel it and raise ClientDisconnect when the client hangs up."""
    try:
        async with asyncio.timeout(None) as patience:
            watching = asyncio.create_task(_end_with_connection(request, patience))
            try:
                return await work
            finally:
                watching.cancel()
    except TimeoutError:
        if patience.expired():
            raise ClientDisconnect from None
        raise


async def _end_with_connection(request: Request, patience: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    patience.reschedule(asyncio.get_running_loop().time())
