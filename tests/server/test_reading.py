"""A client that stops reading its answer is hung up on; one that reads slowly is not."""

import asyncio
import socket

from emberd.server.reading import ReadingWatch
from tests.event_loop import in_event_loop

READING_S = 1000.0  # the tests turn the clock forward
LARGE = b"x" * 8 * 2**20  # more than the buffers of both sides hold


class _Answering(asyncio.Protocol):
    """Sends a large answer, and watches as a connection does."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.watch = ReadingWatch(transport, asyncio.get_running_loop(), READING_S)
        self.lost = asyncio.Event()
        self.resumed = asyncio.Event()
        transport.write(LARGE)

    def pause_writing(self) -> None:
        self.watch.start()

    def resume_writing(self) -> None:
        self.watch.stop()
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.stop()
        self.lost.set()


async def answered() -> tuple[_Answering, socket.socket]:
    """Return who answers, and the client's end of the connection."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, protocol = await asyncio.get_running_loop().create_connection(_Answering, sock=ours)
    return protocol, theirs


async def let_pass(seconds: float) -> None:
    """Turn the loop's clock forward, and run what is due by then."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]
    for _ in range(3):
        await asyncio.sleep(0)


async def read_some(client: socket.socket, answering: _Answering) -> None:
    """Read until more of the answer could be sent."""
    before = answering.transport.get_write_buffer_size()
    while answering.transport.get_write_buffer_size() == before:
        await asyncio.get_running_loop().sock_recv(client, 2**18)
        await asyncio.sleep(0)


@in_event_loop
async def test_a_client_that_reads_nothing_in_time_is_hung_up_on() -> None:
    answering, client = await answered()
    with client:
        await let_pass(READING_S - 1)
        assert not answering.lost.is_set()
        await read_some(client, answering)
        await let_pass(2)  # it has read some
        await let_pass(READING_S - 2)
        assert not answering.lost.is_set()

        await let_pass(3)  # it has read nothing since

        assert answering.lost.is_set()
        assert not answering.resumed.is_set()


@in_event_loop
async def test_nobody_watches_a_client_that_has_read_enough() -> None:
    answering, client = await answered()
    with client:
        while not answering.resumed.is_set():
            await read_some(client, answering)

        await let_pass(5 * READING_S)

        assert not answering.lost.is_set()
        answering.transport.abort()
        await answering.lost.wait()
