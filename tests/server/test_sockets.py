"""Where a server listens, what it refuses to listen on, and which server a command finds."""

import json
import os
import signal
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest

from emberd import running
from emberd.config.settings import ServerSettings
from emberd.server import sockets
from tests.ports import free_port
from tests.service.test_life import unwritable_home
from tests.serving import Server, clean_environ, run_emberd

SOCKET_ONLY = "server: {{port: off, socket: {home}/s}}"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short home: a socket's path has a limit."""
    home = tmp_path_factory.mktemp("h")
    home.chmod(0o700)
    return home


def refused(home: Path, config: str, *arguments: str) -> str:
    (home / "config.yaml").write_text(config)
    done = run_emberd("serve", *arguments, home=home)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_a_socket_instead_of_a_port_is_found_by_the_command_line(home: Path) -> None:
    config = SOCKET_ONLY.format(home=home)
    with Server(home, config=config, arguments=()) as server:
        shown = json.loads((home / "state" / "server.json").read_text())
        done = server.run("ps")

        assert (shown["port"], shown["socket"]) == (None, f"{home}/s")
        assert server.http.get("/health").json()["status"] == "ok"
        assert f"unix:{home}/s" in done.stdout.decode()
        assert stat.S_IMODE((home / "s").stat().st_mode) == 0o600
        assert b"already running at unix:" in server.run("serve").stdout
    assert not (home / "s").exists()


def test_a_flag_turns_the_port_off(home: Path) -> None:
    config = f"server: {{socket: {home}/s}}"
    with Server(home, config=config, arguments=("--port", "off")) as server:
        assert json.loads((home / "state" / "server.json").read_text())["port"] is None
        assert server.http.get("/ready").status_code == 200

    words = "--port: server.port: 'http' should be a whole number"
    assert words in refused(home, config, "--port", "http")


def test_an_empty_variable_names_no_socket_to_ask(home: Path) -> None:
    with Server(home):
        environ = {**clean_environ(home), "EMBERD_SERVER_SOCKET": ""}
        assert b"No model is loaded" in run_emberd("ps", home=home, environ=environ).stdout


def test_a_broken_file_hides_no_server_that_asks_for_a_token(home: Path) -> None:
    with Server(home, environ={"EMBERD_TOKEN": "secret-token"}) as server:
        (home / "config.yaml").write_text("limits: [\n")
        done = server.run("ps")

    assert done.returncode == 0, done.stderr
    assert b"No model is loaded" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_socket_in_somebody_elses_folder_is_refused(home: Path) -> None:
    theirs = home / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, 65534, -1)

    said = refused(home, f"server: {{port: off, socket: {theirs}/s}}")

    assert f"server.socket: {theirs}/s: its folder belongs to another user" in said
    assert not (theirs / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_tokens_in_somebody_elses_file_are_refused(home: Path) -> None:
    tokens = home / "tokens"
    tokens.touch(0o600)
    tokens.write_text("a-token\n")
    os.chown(tokens, 65534, -1)

    said = refused(home, f"server: {{port: 0, token_file: {tokens}}}")

    assert f"server.token_file: {tokens} " in said
    assert "chmod 600" in said


def test_a_socket_left_behind_is_replaced(home: Path) -> None:
    config = SOCKET_ONLY.format(home=home)
    killed = Server(home, config=config, arguments=())
    killed.http.close()
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    assert (home / "s").is_socket()
    (home / "state" / "server.json").unlink()

    with Server(home, config=config, arguments=()) as server:
        assert server.http.get("/ready").status_code == 200


def test_a_socket_that_somebody_listens_on_stays(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home / "s"))
        other.listen()
        assert "Another process" in refused(home, SOCKET_ONLY.format(home=home))
        assert (home / "s").is_socket()


def test_a_file_that_is_no_socket_stays(home: Path) -> None:
    (home / "s").write_text("mine")

    assert "not a socket" in refused(home, SOCKET_ONLY.format(home=home))
    assert (home / "s").read_text() == "mine"


def test_a_folder_that_others_can_write_to_is_no_place_for_a_socket(home: Path) -> None:
    (home / "open").mkdir()
    (home / "open").chmod(0o777)

    config = f"server: {{port: off, socket: {home}/open/s}}"
    assert "others can write" in refused(home, config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("server: {port: off}", "nothing to listen on"),
        ("server: {port: off, socket: relative/s}", "absolute path"),
        (f"server: {{port: off, socket: /tmp/{'x' * 120}}}", "at most 103 bytes"),
        ("server: {port: off, socket: /nowhere/at/all/s}", "no such file"),
        ("server: {host: 0.0.0.0, port: 0}", "--allow-open"),
        ("server: {host: '::', port: 0}", "--allow-open"),
        ("server: {port: 0, token_file: /nowhere/token}", "no such file"),
        ("log: {level: loud}", "log.level"),
        ("log: {file: /nowhere/at/all.log}", "log.file"),
    ],
)
def test_what_is_refused(home: Path, config: str, words: str) -> None:
    assert words in refused(home, config)


def test_an_open_address_with_a_token_or_when_asked_for(home: Path) -> None:
    config = "server: {host: 0.0.0.0, port: 0}"
    with Server(home, config=config, arguments=("--allow-open",)) as server:
        assert server.http.get("/models").status_code == 200
    environ = {"EMBERD_TOKEN": "secret-token"}
    with Server(home, config=config, environ=environ, arguments=()) as server:
        assert server.http.get("/models").status_code == 401
        assert server.run("ps").returncode == 0  # with the token of its environment
        for command in (("config", "show"), ("config", "show", "--json")):
            assert b"secret-token" not in server.run(*command).stdout


@pytest.mark.slow
def test_one_home_has_one_server_and_commands_ask_no_other_home(home: Path) -> None:
    with Server(home) as server:
        noted = (home / "state" / "server.json").read_bytes()
        second = server.run("serve", "--port", "0")
        assert second.returncode == 1
        assert b"EMBERD_HOME" in second.stderr
        assert (home / "state" / "server.json").read_bytes() == noted

        port = server.url.rpartition(":")[2]
        stranger = home / "other"
        (stranger / "state").mkdir(parents=True)
        (stranger / "config.yaml").write_text(f"server: {{port: {port}}}")
        assert b"No emberd server is running" in run_emberd("ps", home=stranger).stdout
        # The record of a server that is gone, and whose port another home uses now.
        gone = running.Running(os.getpid(), "127.0.0.1", int(port), "0", None, "another")
        running.write(stranger / "state", gone)
        assert b"No emberd server is running" in run_emberd("ps", home=stranger).stdout
        # The environment names an address: that one is tried, not the recorded one.
        named = {**clean_environ(stranger), "EMBERD_SERVER_PORT": port}
        assert b"No model is loaded" in run_emberd("ps", home=stranger, environ=named).stdout
        elsewhere = {**clean_environ(home), "EMBERD_SERVER_PORT": "1"}
        assert b"No emberd" in run_emberd("ps", home=home, environ=elsewhere).stdout
        # Its port is taken by an emberd that is not this home's.
        taken = run_emberd("serve", home=stranger)
        assert (taken.returncode, b"INFO" in taken.stderr) == (1, False)
        assert b"an emberd of another home" in taken.stderr


def test_a_state_folder_that_cannot_be_made_is_said_without_a_traceback(home: Path) -> None:
    (home / "state").write_text("a file where the folder should be")

    assert "cannot be written" in refused(home, "server: {port: 0}")


def test_a_server_that_cannot_write_its_record_has_answered_nobody(home: Path) -> None:
    unwritable_home(home)
    port, ended, answers = free_port(), Event(), []
    connected = Event()

    def ask() -> None:
        while not ended.wait(0.001):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as asked:
                connected.set()
                asked.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answers.append(asked.recv(4096))

    asker = Thread(target=ask)
    asker.start()
    try:
        for _ in range(5):  # until the client has come in time
            said = refused(home, f"server: {{port: {port}, host: localhost, socket: {home}/s}}")
            if connected.is_set():
                break
    finally:
        ended.set()
        asker.join()

    assert "cannot be written" in said
    assert connected.is_set()
    assert not [answer for answer in answers if answer]


@pytest.mark.slow
def test_no_token_is_in_the_list_of_processes(home: Path) -> None:
    environ = {"EMBERD_TOKEN": "secret-token"}
    with Server(home, environ=environ, forked=False) as server:
        listed = subprocess.run(
            ["/bin/ps", "-o", "args", "-p", str(server.process.pid)], capture_output=True
        )
        answer = httpx2.get(
            f"{server.url}/models", headers={"Authorization": "bearer secret-token"}
        )

    assert answer.status_code == 200
    assert b"serve" in listed.stdout
    assert b"secret" not in listed.stdout


def reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=10) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.mark.parametrize(
    "name", [pytest.param("localhost", marks=pytest.mark.slow), pytest.param("LocalHost.")]
)
@IPV6
def test_localhost_is_both_loopbacks(home: Path, name: str) -> None:
    with Server(home, arguments=("--host", name, "--port", "0")) as server:
        port = json.loads((home / "state" / "server.json").read_text())["port"]

        assert reaches("127.0.0.1", port)
        assert reaches("::1", port)
        assert server.http.get("/ready").status_code == 200
        assert b"No model is loaded" in server.run("ps").stdout


@pytest.mark.slow
@IPV6
def test_another_server_on_one_of_them_is_an_error_and_no_surprise(home: Path) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        other.listen()
        port = str(other.getsockname()[1])

        words = refused(home, "{}", "--host", "localhost", "--port", port)

    assert f"cannot listen on [::1]:{port}: address already in use" in words


def test_a_machine_without_ipv6_listens_on_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # 192.0.2.1 is nobody's address, so binding it fails
    monkeypatch.setattr(sockets, "LOOPBACKS", ("127.0.0.1", "192.0.2.1"))
    settings = ServerSettings(host="localhost", port=0, allow_open=True)

    listeners = sockets.listen(settings, has_token=False)

    try:
        assert [each.getsockname()[0] for each in listeners] == ["127.0.0.1"]
    finally:
        for each in listeners:
            each.close()


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (("--host", "[::1]"), {}),
        pytest.param((), {"EMBERD_SERVER_HOST": "[::1]"}, marks=pytest.mark.slow),
    ],
)
@IPV6
def test_brackets_around_an_address_are_taken(
    home: Path, arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    arguments = (*arguments, "--port", "0")
    with Server(home, arguments=arguments, environ=environ) as server:
        assert json.loads((home / "state" / "server.json").read_text())["host"] == "::1"
        assert server.url.startswith("http://[::1]:")
        assert server.http.get("/ready").status_code == 200


@pytest.mark.slow
@IPV6
def test_brackets_in_the_file_are_taken(home: Path) -> None:
    with Server(home, config="server: {host: '[::1]'}") as server:
        assert server.http.get("/ready").status_code == 200
