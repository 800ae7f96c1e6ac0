"""Installing, checking, restarting and uninstalling under launchd and systemd, as a user does."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.service.managers import Fake, Machine
from tests.serving import wait_for


def answers(port: int) -> bool:
    """Say whether emberd is ready there."""
    try:
        return (
            httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=5, trust_env=False).status_code
            == 200
        )
    except httpx2.HTTPError:
        return False


def status(machine: Machine) -> dict[str, Any]:
    """Return what `emberd service status` says."""
    row: dict[str, Any] = json.loads(machine.run("service", "status", "--json").stdout)
    return row


def status_when_ready(machine: Machine) -> dict[str, Any]:
    """Return what it says once the server, which may stand still for a while, has answered it."""
    return wait_for(lambda: row if (row := status(machine))["ready"] else None)


def unwritable_home(folder: Path) -> Path:
    """Return an EMBERD_HOME where a server starts, then ends because it cannot write its note."""
    (folder / "state" / "server.json" / "in the way").mkdir(parents=True)
    return folder


def test_a_service_lives_from_install_to_uninstall(machine: Machine) -> None:
    said = machine.said("service", "install")

    assert f"emberd runs at http://127.0.0.1:{machine.port} as a service" in said
    assert ("loginctl enable-linger" in said) is (machine.manager.name == "systemd")
    assert answers(machine.port)
    row = status_when_ready(machine)
    assert row["state"] == "running"
    assert "emberd.cli.main" in " ".join(psutil.Process(row["pid"]).cmdline())
    assert f"The service is running (pid {row['pid']})" in machine.said("service", "status")
    assert machine.unit.stat().st_mode & 0o777 == 0o600

    if machine.manager.name == "launchd":  # systemd's are in the journal
        assert f":{machine.port}" in machine.said("service", "logs", "-n", "500")
    assert "running again" in machine.said("service", "restart")
    assert answers(machine.port)
    assert status(machine)["pid"] not in (None, row["pid"])

    machine.config.write_text("default: minilm\n")
    assert "are kept" in machine.said("service", "uninstall")
    assert not answers(machine.port)
    assert not machine.unit.exists()
    assert machine.config.exists()
    assert status(machine)["state"] == "not installed"
    assert "not installed" in machine.said("service", "uninstall")
    machine.config.unlink()


@pytest.mark.slow
def test_what_cannot_become_ready_is_not_installed(machine: Machine, tmp_path: Path) -> None:
    broken = unwritable_home(tmp_path / "broken")

    done = machine.run("service", "install", EMBERD_HOME=str(broken))

    assert done.returncode == 1
    assert "The service was not installed: " in done.stderr
    assert "All is as it was before." in done.stderr
    assert not machine.unit.exists()
    assert not answers(machine.port)
    assert status(machine)["state"] == "not installed"


@pytest.mark.slow
def test_the_unit_before_comes_back_when_the_new_one_fails(
    machine: Machine, tmp_path: Path
) -> None:
    machine.said("service", "install")
    machine.said("service", "install")  # over itself: the port is held by our own
    assert answers(machine.port)
    before = machine.unit.read_bytes()
    pid = status(machine)["pid"]

    done = machine.run("service", "install", EMBERD_HOME=str(unwritable_home(tmp_path / "broken")))

    assert done.returncode == 1
    assert "All is as it was before." in done.stderr
    assert machine.unit.read_bytes() == before
    wait_for(lambda: answers(machine.port))
    assert status(machine)["pid"] not in (None, pid)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["real systemd"], indirect=True)
def test_systemd_has_the_configuration_reloaded(machine: Machine) -> None:
    machine.said("service", "install")
    pid = status(machine)["pid"]

    systemctl = [str(machine.manager.bin / "systemctl"), "--user", "reload", "emberd.service"]
    done = subprocess.run(systemctl, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert answers(machine.port)
    assert status(machine)["pid"] == pid


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["real systemd"], indirect=True)
def test_a_killed_server_is_started_again(machine: Machine) -> None:
    machine.said("service", "install")
    pid = status(machine)["pid"]

    os.kill(pid, signal.SIGKILL)

    wait_for(lambda: status(machine)["pid"] not in (None, pid), within_s=30)
    wait_for(lambda: answers(machine.port))


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["real systemd"], indirect=True)
def test_a_broken_configuration_ends_the_restarts(machine: Machine) -> None:
    machine.said("service", "install")
    pid = status(machine)["pid"]
    machine.config.write_text("limits: {max_loded: 1}\n")

    os.kill(pid, signal.SIGKILL)

    def ended() -> bool:
        done = machine.run("service", "status", "--json")
        row = json.loads(done.stdout)
        return (row["state"], row["last_exit"]) == ("failed", 78)

    wait_for(ended, within_s=30)
    machine.config.unlink()
    assert "running again" in machine.said("service", "restart")


def test_a_taken_port_is_refused_and_its_holder_named(linux: Machine) -> None:
    with socket.create_server(("127.0.0.1", linux.port)):
        done = linux.run("service", "install")

    assert done.returncode == 1
    assert f"Port {linux.port} is held by " in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not linux.unit.exists()


def test_a_dry_run_prints_the_unit_and_does_nothing(linux: Machine) -> None:
    shown = linux.said("service", "install", "--dry-run")

    assert "emberd.cli.main" in shown
    assert not linux.unit.exists()
    assert isinstance(linux.manager, Fake)
    # it is only asked where units are
    assert linux.manager.calls() == ["systemctl --user show --property=UnitPath --value"]


@pytest.mark.slow
def test_a_server_started_by_hand_is_not_pushed_aside(linux: Machine) -> None:
    by_hand = subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "serve"],
        env=linux.environ,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(linux.port), within_s=20)

        done = linux.run("service", "install", "--replace")

        assert done.returncode == 1
        assert "is not the server that emberd replaces" in done.stderr
        assert by_hand.poll() is None
    finally:
        by_hand.terminate()
        by_hand.wait(30)


def test_port_0_is_no_port_for_a_service(linux: Machine) -> None:
    done = linux.run("service", "install", EMBERD_SERVER_PORT="0")

    assert done.returncode == 1
    assert "server.port: a service needs " in done.stderr
    off = linux.run("service", "install", EMBERD_SERVER_PORT="off")
    assert "`server.socket`" in off.stderr


@pytest.mark.slow
def test_a_service_may_listen_on_a_socket_alone(
    linux: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("s") / "s"  # short: a socket's path has a limit
    linux.environ |= {"EMBERD_SERVER_PORT": "off", "EMBERD_SERVER_SOCKET": str(place)}

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        held = linux.run("service", "install")
    assert held.returncode == 1
    assert f"The socket {place} is held by " in held.stderr
    assert f"(pid {os.getpid()})" in held.stderr
    assert not linux.unit.exists()

    assert f"emberd runs at unix:{place} as a service" in linux.said("service", "install")
    row = status_when_ready(linux)
    assert (row["state"], row["url"]) == ("running", f"unix:{place}")
    linux.said("service", "install")  # over itself: the socket is held by our own
    assert status(linux)["pid"] not in (None, row["pid"])
    linux.said("service", "uninstall")
    assert not place.exists()


def test_an_address_of_another_machine_is_refused(linux: Machine) -> None:
    done = linux.run("service", "install", EMBERD_SERVER_HOST="192.0.2.1")

    assert done.returncode == 1
    assert "emberd cannot listen on 192.0.2.1" in done.stderr


def test_a_machine_without_a_service_manager_is_told_so(linux: Machine) -> None:
    done = linux.run("service", "install", PATH="/nowhere")

    assert done.returncode == 1
    assert "neither launchd nor systemd" in done.stderr


@pytest.mark.parametrize("command", ["restart", "status"])
def test_what_needs_an_installed_service_says_so(linux: Machine, command: str) -> None:
    done = linux.run("service", command)

    assert done.returncode == 1
    assert "emberd service install" in done.stdout + done.stderr


@pytest.fixture
def no_session(linux: Machine) -> Machine:
    """A machine whose systemd cannot be reached: the real commands, without a user's bus."""
    if not Path("/usr/bin/systemctl").exists():
        pytest.skip("systemctl is not installed")
    nowhere = {"XDG_RUNTIME_DIR": "/nowhere", "DBUS_SESSION_BUS_ADDRESS": ""}
    linux.environ |= {"PATH": "/usr/bin:/bin", **nowhere}
    return linux


@pytest.mark.parametrize("command", ["install", "status", "logs", "restart"])
def test_no_session_with_systemd_is_explained(no_session: Machine, command: str) -> None:
    done = no_session.run("service", command)

    assert done.returncode == 1
    assert "failed with exit code 1: Failed to connect to " in done.stderr
    assert "This shell has no session with systemd: log in as this user directly" in done.stderr
    assert "Traceback" not in done.stderr
    assert not no_session.unit.exists()


def test_no_session_is_an_object_for_programs(no_session: Machine) -> None:
    done = no_session.run("service", "status", "--json")
    row = json.loads(done.stdout)

    assert done.returncode == 1
    assert (row["state"], row["ready"], row["file"]) == ("unknown", False, str(no_session.unit))
    assert "Failed to connect to" in row["error"]
    assert "no session with systemd" in row["hint"]


def test_without_a_session_nothing_is_uninstalled_where_nothing_is(no_session: Machine) -> None:
    assert no_session.said("service", "uninstall") == "The service is not installed.\n"

    no_session.unit.parent.mkdir(parents=True)
    no_session.unit.touch()
    done = no_session.run("service", "uninstall")

    assert done.returncode == 1
    assert "no session with systemd" in done.stderr
    assert no_session.unit.exists()


def test_a_unit_goes_where_systemd_looks(linux: Machine, tmp_path: Path) -> None:
    """The manager's XDG_CONFIG_HOME may differ from the shell's, or be unset."""
    state = linux.manager.bin / "state"
    state.mkdir()
    (state / "config_home").write_text(str(tmp_path / "config"))
    there = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    elsewhere = {"XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}

    def unit(**environ: str) -> str:
        done = linux.run("service", "install", "--dry-run", **environ)
        return done.stderr.splitlines()[0].removeprefix("# ")

    assert unit(**there) == f"{tmp_path}/config/systemd/user/emberd.service"
    (state / "config_home").unlink()
    assert unit(**elsewhere) == str(linux.unit)
    unasked = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/nowhere"}
    assert unit(**elsewhere, **unasked) == f"{tmp_path}/elsewhere/systemd/user/emberd.service"
    assert unit(**unasked) == str(linux.unit)


@pytest.mark.slow
def test_logs_shows_the_journal_and_the_file(linux: Machine) -> None:
    linux.said("service", "install")
    journal = linux.manager.bin / "state" / "emberd.service.journal"
    linux.config.write_text("limits: {max_loded: 1}\n")
    os.kill(status(linux)["pid"], signal.SIGKILL)
    wait_for(lambda: status(linux)["last_exit"] == 78, within_s=30)

    shown = linux.said("service", "logs")
    first, second = shown.split(f"==> {linux.emberd_home}/state/emberd.log <==\n")

    assert first.startswith("==> journal <==\n")
    assert "limits.max_loded" in first
    assert f":{linux.port}" in second
    assert journal.read_text().splitlines()[-1] in first


def test_logs_shows_the_last_lines_of_each_place(linux: Machine) -> None:
    state, log = linux.manager.bin / "state", linux.emberd_home / "state" / "emberd.log"
    state.mkdir()
    log.parent.mkdir()
    (state / "emberd.service.journal").write_text("one\ntwo\n")
    alone = linux.said("service", "logs", "-n", "1")
    log.write_text("three\nfour\n")
    both = linux.said("service", "logs", "-n", "1")

    assert alone == "two\n"
    assert both == f"==> journal <==\ntwo\n==> {log} <==\nfour\n"


def test_logs_follows_the_journal_and_the_file(linux: Machine) -> None:
    state, log = linux.manager.bin / "state", linux.emberd_home / "state" / "emberd.log"
    state.mkdir()
    log.parent.mkdir()
    (state / "emberd.service.journal").write_text("one\ntwo\n")
    with subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "service", "logs", "-f", "-n", "1"],
        env=linux.environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        too_long = threading.Timer(30, process.kill)  # or a lost line would hang the tests
        too_long.start()
        assert process.stdout.readline() == "two\n"
        with (state / "emberd.service.journal").open("a") as journal:
            journal.write("three\n")
        assert process.stdout.readline() == "three\n"
        log.write_text("four\n")  # which was not there before
        assert process.stdout.readline() == "four\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""  # journalctl has ended too
        too_long.cancel()


def test_logs_goes_on_after_a_rotation(mac: Machine) -> None:
    file = mac.emberd_home / "state" / "service.stderr.log"
    file.parent.mkdir()
    file.write_text("one\ntwo\n")
    with subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "service", "logs", "-f", "-n", "1"],
        env=mac.environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines = process.stdout
        too_long = threading.Timer(30, process.kill)  # or a lost line would hang the tests
        too_long.start()
        assert lines.readline() == "two\n"
        with file.open("a") as log:
            log.write("three\n")
        assert lines.readline() == "three\n"
        file.rename(file.with_suffix(".1"))
        file.write_text("four\n")
        assert lines.readline() == "four\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        too_long.cancel()
