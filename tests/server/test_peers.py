"""Who is still there: a client that only closed its sending side, and one that hung up."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from emberd.server import peers

LATER_S = 2 * peers.AT_ONCE_S  # when the time alone would say that the client has gone


@pytest.fixture(autouse=True)
def no_table_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_read_s", -peers.FRESH_S)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a TCP connection, and the server's."""
    family: socket.AddressFamily = request.param
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with closing(socket.socket(family)) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("a machine without IPv6")
        listener.listen()
        with closing(socket.socket(family)) as client:
            client.connect(listener.getsockname())
            with closing(listener.accept()[0]) as server:
                yield client, server


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who has a connection open")
def test_a_client_that_only_closed_its_sending_side_is_still_there(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""

    assert not peers.is_gone(server, LATER_S)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who has a connection open")
def test_a_client_that_hung_up_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.close()
    assert server.recv(1) == b""

    assert peers.is_gone(server, 0.0)


def test_without_a_table_the_time_between_request_and_end_decides(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TABLES", ())
    client, server = pair
    client.shutdown(socket.SHUT_WR)

    assert not peers.is_gone(server, 0.0)
    assert peers.is_gone(server, LATER_S)


def test_a_unix_socket_is_gone_once_both_directions_are_closed() -> None:
    client, server = socket.socketpair()
    with client, server:
        client.shutdown(socket.SHUT_WR)
        there = not peers.is_gone(server, LATER_S)
        client.close()

        assert there
        assert peers.is_gone(server, 0.0)
