"""A real server and a supervisor's real notify socket."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.service.conftest import free_port
from tests.serving import clean_environ


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_server_says_when_it_is_ready_and_when_it_ends(tmp_path: Path, kind: str) -> None:
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    name = str(tmp_path / "notify") if kind == "path" else f"@emberd-test-{os.getpid()}"
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        line.settimeout(30)
        environ = clean_environ(tmp_path / "home") | {"NOTIFY_SOCKET": name}
        server = subprocess.Popen(
            [sys.executable, "-m", "emberd.cli.main", "serve", "--port", str(port)],
            env=environ,
            stderr=subprocess.DEVNULL,
        )

        first = line.recv(4096).decode().splitlines()
        ready = httpx2.get(f"http://127.0.0.1:{port}/ready", trust_env=False)
        server.send_signal(signal.SIGTERM)
        last = line.recv(4096).decode().splitlines()

        assert first == ["READY=1", f"STATUS=listens on http://127.0.0.1:{port}"]
        assert ready.status_code == 200
        assert last[0] == "STOPPING=1"
        assert server.wait(30) == 0


def test_a_supervisor_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name)
        line.settimeout(30)
        server = subprocess.Popen(
            [sys.executable, "-m", "emberd.cli.main", "serve", "--port", "0"],
            env=clean_environ(tmp_path / "home") | {"NOTIFY_SOCKET": name},
            stderr=subprocess.DEVNULL,
        )
        line.recv(4096)

    server.send_signal(signal.SIGTERM)

    assert server.wait(30) == 0


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

    done = subprocess.run(
        [sys.executable, "-m", "emberd.cli.main", "serve", *arguments],
        capture_output=True,
        text=True,
        env=clean_environ(home),
        timeout=60,
    )

    assert done.returncode == 78  # EX_CONFIG, see sysexits.h
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_taken_port_is_worth_another_try(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "emberd.cli.main", "serve", "--port",
             str(taken.getsockname()[1])],
            capture_output=True,
            env=clean_environ(home),
            timeout=60,
        )  # fmt: skip

    assert done.returncode == 1
