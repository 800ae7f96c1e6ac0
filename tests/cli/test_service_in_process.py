"""`emberd service status`, `logs` and `install`, whatever systemd and its journal say."""

import json
import os
import socket
from pathlib import Path

import pytest

from tests.in_process import Done, run_here
from tests.ports import free_port

FAILED = (
    "ActiveState=failed SubState=failed MainPID=0 ExecMainStatus=3 ExecMainExitTimestampMonotonic=5"
)
RUNNING = (
    "ActiveState=active SubState=running MainPID=77 ExecMainStatus=0"
    " ExecMainExitTimestampMonotonic=0"
)


class Machine:
    """A home, and a systemd that says what it is told to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.bin.mkdir()
        self.unit = home / ".config" / "systemd" / "user" / "emberd.service"
        self.unit.parent.mkdir(parents=True)
        self.unit.touch()
        self.systemctl(FAILED)
        self.command("journalctl", "")

    def command(self, name: str, script: str) -> None:
        """Write a command."""
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def systemctl(self, shown: str) -> None:
        """Let the unit's properties be these."""
        lines = "\\n".join(shown.split())
        self.command("systemctl", f"""case "$*" in *UnitPath*) ;; *) printf '{lines}\\n';; esac""")

    def config(self, text: str) -> None:
        """Write the config file."""
        (self.home / "config.yaml").write_text(text)

    def run(self, *arguments: str) -> Done:
        """Run `emberd service`."""
        return run_here(self.home, "service", *arguments, HOME=str(self.home), PATH=str(self.bin))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.config(f"server: {{port: {free_port()}}}\n")
    return made


def test_a_service_that_failed_is_described(machine: Machine) -> None:
    done = machine.run("status")

    assert done.code == 1
    assert "The service is failed" in done.out
    assert "exit code 3" in done.out
    assert str(machine.unit) in done.out


def test_one_that_runs_and_does_not_answer_is_not_ready(machine: Machine) -> None:
    machine.systemctl(RUNNING)

    shown, row = machine.run("status"), json.loads(machine.run("status", "--json").out)

    assert shown.code == 1
    assert "running (pid 77) and not ready at http://127.0.0.1:" in shown.out
    assert "exit code" not in shown.out
    assert (row["state"], row["pid"], row["ready"]) == ("running", 77, False)


def test_a_broken_config_file_hides_no_state(machine: Machine) -> None:
    machine.config("server: [\n")

    done = machine.run("status")

    assert done.code == 1
    assert "config.yaml" in done.err
    assert "The service is failed." in done.out


def test_a_manager_that_does_not_answer_is_an_error_with_its_words(machine: Machine) -> None:
    machine.command("systemctl", "echo 'Failed to connect to user bus' >&2; exit 1")

    shown, as_json = machine.run("status"), machine.run("status", "--json")
    logs = machine.run("logs")

    assert (shown.code, as_json.code, logs.code) == (1, 1, 1)
    assert "Failed to connect to user bus" in shown.err
    assert "Failed to connect to user bus" in logs.err
    row = json.loads(as_json.out)
    assert (row["state"], row["ready"], row["manager"]) == ("unknown", False, "systemd")
    assert "Failed to connect" in row["error"]
    assert "enable-linger" in row["hint"]


def test_a_service_that_wrote_nothing_has_no_logs(machine: Machine) -> None:
    done = machine.run("logs")

    assert done.code == 1
    assert "has not written anything yet" in done.err


def test_each_place_has_a_heading_if_there_are_several(machine: Machine) -> None:
    machine.command("journalctl", "echo of the journal; echo no permission for more >&2")
    alone = machine.run("logs")
    (state := machine.home / "state").mkdir()
    (state / "emberd.log").write_text("one\ntwo\nthree\n")
    both = machine.run("logs", "--lines", "2")

    assert alone.out == "of the journal\n"
    assert alone.err == "warning: the journal: no permission for more\n"
    log = state / "emberd.log"
    assert both.out == f"==> journal <==\nof the journal\n==> {log} <==\ntwo\nthree\n"


def test_a_journal_that_cannot_be_read_hides_no_file(machine: Machine) -> None:
    (machine.bin / "journalctl").unlink()
    (state := machine.home / "state").mkdir()
    (state / "emberd.log").write_text("one\n")

    done = machine.run("logs")

    assert (done.code, done.out) == (0, "one\n")
    assert "journalctl" in done.err


def test_a_socket_that_is_held_is_not_taken(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("h") / "s"
    machine.config(f"server: {{port: off, socket: {path}}}\n")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        done = machine.run("install")

    assert done.code == 1
    assert f"{path} is held by" in done.err
    assert f"(pid {os.getpid()})" in done.err
    assert "`server.socket`" in done.err
