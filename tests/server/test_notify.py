"""A real server that talks to a supervisor's real notify socket."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.serving import Server, run_emberd


@pytest.mark.parametrize("kind", ["path", pytest.param("abstract", marks=pytest.mark.slow)])
def test_a_server_says_when_it_is_ready_and_when_it_ends(tmp_path: Path, kind: str) -> None:
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    name = str(tmp_path / "notify") if kind == "path" else f"@emberd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        line.settimeout(30)
        server = Server(tmp_path / "home", environ={"NOTIFY_SOCKET": name})

        first = line.recv(4096).decode().splitlines()
        ready = server.http.get("/ready")
        code = server.stop()
        last = line.recv(4096).decode().splitlines()

        assert first == ["READY=1", f"STATUS=listening on {server.url}"]
        assert ready.status_code == 200
        assert last[0] == "STOPPING=1"
        assert code == 0


def test_a_supervisor_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name)
        line.settimeout(30)
        server = Server(tmp_path / "home", environ={"NOTIFY_SOCKET": name})
        line.recv(4096)

    assert server.stop() == 0


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ("limits:\n  max_loded: 2\n", [], "config.yaml:2: limits.max_loded: there is no such"),
        ("", ["--log-level", "loud"], "--log-level: log.level: 'loud'"),
    ],
)
def test_a_configuration_that_has_to_be_changed_has_an_exit_code_of_its_own(
    home: Path, config: str, arguments: list[str], said: str
) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(config)

    done = run_emberd("serve", *arguments, home=home)

    assert done.returncode == 78  # EX_CONFIG, see sysexits.h
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_taken_port_is_worth_another_try(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_emberd("serve", "--port", str(taken.getsockname()[1]), home=home)

    assert done.returncode == 1
