"""Who listens where the server would."""

import os
import socket
import threading
from pathlib import Path

import pytest

from emberd.config.settings import ServerSettings
from emberd.doctor.network import port
from emberd.doctor.network import socket as socket_check


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path, for sockets."""
    return tmp_path_factory.mktemp("h")


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path) -> None:
    (finding,) = port(ServerSettings(host="192.0.2.1"), tmp_path)

    assert finding.verdict == "failed"
    assert "cannot listen on 192.0.2.1" in finding.detail


def hang_up(listener: socket.socket, times: int) -> None:
    for _ in range(times):
        listener.accept()[0].close()


def test_who_else_is_in_the_place_of_the_socket_is_told(short: Path) -> None:
    place = short / "s"
    settings = ServerSettings(port=None, socket=str(place))

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        threading.Thread(target=hang_up, args=(other, 2), daemon=True).start()
        (held,) = socket_check(settings)
    place.unlink()
    place.write_text("mine")
    (file,) = socket_check(settings)
    (nowhere,) = socket_check(ServerSettings(socket="/nowhere/at/all/s"))

    assert {finding.verdict for finding in (held, file, nowhere)} == {"failed"}
    assert f"(pid {os.getpid()}) listens on {place}" in held.detail
    assert "not a socket" in file.detail
    assert "/nowhere/at/all" in nowhere.detail
