"""Connections in this process's event loop: too many, closed in a trailer, and not read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn
from uvicorn.server import ServerState

from emberd.api.hang_up import hang_up_of
from emberd.server.connection import Connection
from emberd.server.timeouts import Timeouts
from tests.event_loop import in_event_loop

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 16 * 2**20


async def _app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer without reading the request: `ok`, or at /large very much; at /never not at all."""
    if scope["path"] == "/never":
        while (await receive()).get("more_body"):
            pass
        await hang_up_of(scope).ends(asyncio.Event().wait())
    body = b"x" * LARGE if scope["path"] == "/large" else b"ok"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def listening(*, most: int = 9, reading_s: float = 5.0) -> AsyncIterator[Callable[[], Any]]:
    """Listen as emberd does; yield what connects to it."""

    class Ours(Connection):
        timeouts = Timeouts(reading_s=reading_s)

    Ours.most = most
    config = uvicorn.Config(_app, http=Ours, ws="none", log_config=None, lifespan="off")
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Ours(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        opened.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in opened:
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0.01)  # the other ends notice


async def answer(streams: Streams, request: bytes = GET) -> tuple[bytes, bytes]:
    """Send a request; return the status line and the body of the answer."""
    reader, writer = streams
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.partition(b"\r\n")[0], await reader.readexactly(length)


@in_event_loop
async def test_one_connection_too_many_is_answered_and_closed() -> None:
    async with listening(most=1) as connect:
        first = await connect()
        assert await answer(first) == (b"HTTP/1.1 200 OK", b"ok")

        second = await connect()
        status, body = await answer(second, b"")
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert orjson.loads(body)["code"] == "too_many_connections"
        assert await second[0].read() == b""  # it was closed
        assert await answer(first) == (b"HTTP/1.1 200 OK", b"ok")  # this one was not


@in_event_loop
async def test_a_connection_is_closed_when_a_trailer_asks_for_it() -> None:
    """The answer was already complete when the trailer came."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with listening() as connect:
        reader, writer = await connect()
        assert await answer((reader, writer), head + b"1\r\na\r\n") == (b"HTTP/1.1 200 OK", b"ok")

        writer.write(b"0\r\nConnection: close\r\n\r\n")

        assert await asyncio.wait_for(reader.read(), 5) == b""


@in_event_loop
async def test_a_client_that_does_not_read_its_answer_is_hung_up_on() -> None:
    async with listening(reading_s=0.1) as connect:
        reader, writer = await connect()
        writer.write(GET.replace(b"/ ", b"/large ", 1))
        await asyncio.sleep(0.3)  # the reader's buffer is full long before that

        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await asyncio.wait_for(reader.readexactly(LARGE), 5)


@in_event_loop
async def test_a_client_that_reads_gets_a_large_answer_and_may_ask_again() -> None:
    async with listening() as connect:
        streams = await connect()

        status, body = await answer(streams, GET.replace(b"/ ", b"/large ", 1))
        assert (status, len(body)) == (b"HTTP/1.1 200 OK", LARGE)
        assert await answer(streams) == (b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize("size", [10, 2**20])
@in_event_loop
async def test_a_client_that_hangs_up_is_noticed_whatever_it_has_sent(size: int) -> None:
    async with listening() as connect:
        _, writer = await connect()
        writer.write(b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        await writer.drain()
        await asyncio.sleep(0.1)  # it has all arrived

        writer.transport.abort()

        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
