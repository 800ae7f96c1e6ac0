"""A client that stops reading its answer is hung up on; one that reads slowly is not."""

import asyncio
import socket
from contextlib import suppress

from emberd.server.reading import ReadingWatch
from tests.event_loop import in_event_loop

READING_S = 0.1
LARGE = b"x" * 8 * 2**20  # more than the buffers of both sides hold


class _Answering(asyncio.Protocol):
    """Sends a large answer, and watches as a connection does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self.lost = asyncio.Event()
        self.resumed = asyncio.Event()
        self.watch = ReadingWatch(transport, loop, READING_S)
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


@in_event_loop
async def test_a_client_that_does_not_read_is_hung_up_on() -> None:
    answering, client = await answered()

    with client:
        await asyncio.wait_for(answering.lost.wait(), 5)

        assert not answering.resumed.is_set()


@in_event_loop
async def test_a_client_that_reads_slowly_gets_its_whole_answer() -> None:
    answering, client = await answered()
    got = 0

    with client:
        for _ in range(8):  # longer than `READING_S` in all
            await asyncio.sleep(READING_S / 4)
            with suppress(BlockingIOError):
                got += len(client.recv(2**18))
        assert not answering.lost.is_set()
        while got < len(LARGE):
            got += len(await asyncio.get_running_loop().sock_recv(client, 2**20))

        assert answering.resumed.is_set()
        await asyncio.sleep(READING_S * 1.5)  # nobody watches any more
        assert not answering.lost.is_set()
