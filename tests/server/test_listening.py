"""Addresses that cannot be listened on, and what is left open then."""

import errno
import os
import socket
from pathlib import Path

import pytest

from emberd.client import finding
from emberd.config.settings import ServerSettings
from emberd.errors import ConfigError, PortTakenError
from emberd.server import sockets
from emberd.server.sockets import listen
from tests.answering import EMBERD, answering
from tests.ports import free_port


def test_whoever_has_the_port_is_named() -> None:
    with answering({}) as other, pytest.raises(PortTakenError) as caught:
        listen(ServerSettings(port=other.port), has_token=False)

    assert f":{other.port}: " in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "of another home" not in caught.value.message


def test_an_emberd_of_another_home_is_named() -> None:
    with answering({"/health": (200, EMBERD)}) as other, pytest.raises(PortTakenError) as caught:
        listen(ServerSettings(port=other.port), has_token=False)

    assert "(an emberd of another home)" in caught.value.message


@pytest.mark.parametrize("host", ["a..b", "no host has this name"])
def test_a_host_that_does_not_exist_is_an_error(host: str) -> None:
    with pytest.raises(PortTakenError) as caught:
        listen(ServerSettings(host=host, port=0), has_token=True)

    assert f"cannot listen on {host}:0" in caught.value.message
    assert "--host" in (caught.value.hint or "")


def test_localhost_needs_its_port_on_both_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(finding, "HEALTH_TIMEOUT_S", 0.05)  # this one never answers
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            listen(ServerSettings(host="localhost", port=port), has_token=False)
        assert f"[::1]:{port}" in caught.value.message
        with socket.create_server(("127.0.0.1", port)):  # the other one was closed again
            pass
    monkeypatch.setattr(sockets, "ATTEMPTS", 0)
    with pytest.raises(PortTakenError, match=r"both 127\.0\.0\.1 and ::1"):
        listen(ServerSettings(host="localhost", port=0), has_token=False)


def test_no_port_stays_taken_if_the_socket_cannot_be_made(tmp_path: Path) -> None:
    port = free_port()
    settings = ServerSettings(port=port, socket=str(tmp_path / "no-folder" / "s"))

    with pytest.raises(ConfigError, match=os.strerror(errno.ENOENT).lower()):
        listen(settings, has_token=False)

    socket.create_server(("127.0.0.1", port)).close()
