"""Where a server is recorded to listen, and which process is the server of a home."""

import os
from pathlib import Path

import pytest

from emberd import running
from emberd.running import Running, url_of


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("127.0.0.1", 8767, "http://127.0.0.1:8767"),
        ("0.0.0.0", 8767, "http://127.0.0.1:8767"),  # noqa: S104
        ("::", 8767, "http://[::1]:8767"),
        ("::1", 8767, "http://[::1]:8767"),
        ("127.0.0.1", None, "http://localhost"),
    ],
)
def test_a_server_is_asked_where_it_can_be_reached(host: str, port: int | None, url: str) -> None:
    assert url_of(host, port) == url


def test_it_listens_at_a_port_a_socket_or_both() -> None:
    both = Running(1, "127.0.0.1", 1, "0", "/s")
    by_socket = Running(1, "127.0.0.1", None, "0", "/s")

    assert both.addresses == ["http://127.0.0.1:1", "unix:/s"]
    assert (by_socket.addresses, by_socket.address) == (["unix:/s"], "unix:/s")


def test_a_note_is_read_as_it_was_written_and_removed_by_its_process_only(tmp_path: Path) -> None:
    mine = Running(os.getpid(), "127.0.0.1", 1, "0", "/s", "run")
    other = Running(os.getppid(), "127.0.0.1", 1, "0")
    state = tmp_path / "state"

    running.write(state, other)
    running.remove(state)
    assert running.read(state) == other

    running.write(state, mine)
    assert running.read(state) == mine
    running.remove(state)
    assert running.read(state) is None


def test_a_home_has_one_server(tmp_path: Path) -> None:
    first = running.claim(tmp_path)
    assert first is not None

    assert running.claim(tmp_path) is None
    os.close(first)
    second = running.claim(tmp_path)
    assert second is not None
    os.close(second)
