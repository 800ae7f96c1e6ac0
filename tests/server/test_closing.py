"""Connections that are closed while their client still sends, or has gone meanwhile."""

import asyncio
import errno

from emberd.server.closing import Lingering
from emberd.server.timeouts import Timeouts


class Gone(asyncio.Transport):
    """A transport whose client has reset the connection."""

    reads = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:  # noqa: D102
        self.protocol = protocol

    def write_eof(self) -> None:  # noqa: D102
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def resume_reading(self) -> None:  # noqa: D102
        self.reads = True

    def abort(self) -> None: ...  # noqa: D102


def test_a_client_that_has_gone_meanwhile_is_noticed_by_reading() -> None:
    """An error here would keep its place among the open connections taken for ever."""

    async def story() -> None:
        gone = Gone()
        lingering = Lingering(gone, asyncio.get_running_loop(), Timeouts())

        assert gone.protocol is lingering
        assert gone.reads
        lingering.connection_lost(None)
        assert lingering not in Lingering.every

    asyncio.run(story())
