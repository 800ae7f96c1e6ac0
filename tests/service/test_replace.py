"""`emberd service install --replace` stops the old server, and restores it if emberd fails."""

import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.service.managers import Machine
from tests.service.replaced import LABEL, OLD, old_answers, old_server
from tests.service.test_life import answers, status, unwritable_home
from tests.serving import wait_for


def test_the_old_server_is_not_touched_unasked(linux: Machine, tmp_path: Path) -> None:
    with old_server(linux.port, tmp_path / "mlx-server") as old:
        done = linux.run("service", "install")

        assert done.returncode == 1
        assert f"(pid {old.pid})" in done.stderr
        assert "--replace" in done.stderr
        assert old_answers(linux.port)


@pytest.mark.slow
def test_an_old_server_started_by_hand_is_replaced(linux: Machine, tmp_path: Path) -> None:
    more = "of two words; and a semicolon"
    with old_server(linux.port, tmp_path / "mlx-server", more) as old:
        said = linux.said("service", "install", "--replace")

        ran = [sys.executable, str(OLD), str(linux.port), more]
        assert f"`{shlex.join(ran)}` in {tmp_path}/mlx-server" in said
        assert f"The old server (pid {old.pid}) was stopped" in said
        assert old.wait(10) != 0
        assert answers(linux.port)


@pytest.mark.slow
def test_an_old_server_started_by_hand_comes_back(linux: Machine, tmp_path: Path) -> None:
    broken = unwritable_home(tmp_path / "broken")
    with old_server(linux.port, tmp_path / "mlx-server") as old:
        done = linux.run("service", "install", "--replace", EMBERD_HOME=str(broken))

        assert done.returncode == 1
        assert "All is as it was before." in done.stderr
        wait_for(lambda: old_answers(linux.port))
        assert old.wait(10) != 0  # it is another process of the same command
        assert not linux.unit.exists()


def test_who_is_not_the_old_server_is_never_ended(linux: Machine, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(linux.port), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    ) as other:
        wait_for(lambda: psutil.Process(other.pid).net_connections())

        done = linux.run("service", "install", "--replace")

        assert done.returncode == 1
        assert "is not the server that emberd replaces" in done.stderr
        assert other.poll() is None
        other.kill()


def test_the_old_agent_is_replaced_for_good(mac: Machine, old_agent: Path) -> None:
    said = mac.said("service", "install", "--replace")

    assert f"({LABEL}) was stopped and disabled" in said
    assert "launchctl bootstrap" in said
    assert answers(mac.port)
    assert old_agent.exists()
    state = mac.manager.bin / "state"
    assert not (state / LABEL).exists()
    assert LABEL in (state / "disabled.json").read_text()  # or it took the port at the next login
    assert "To go back to the old server" in mac.said("service", "uninstall")


@pytest.mark.slow
def test_the_old_agent_comes_back(mac: Machine, old_agent: Path, tmp_path: Path) -> None:
    broken = unwritable_home(tmp_path / "broken")

    done = mac.run("service", "install", "--replace", EMBERD_HOME=str(broken))

    assert done.returncode == 1
    assert "All is as it was before." in done.stderr
    wait_for(lambda: old_answers(mac.port))
    assert old_agent.exists()
    assert status(mac)["state"] == "not installed"


@pytest.mark.slow
def test_with_nothing_to_replace_it_is_a_plain_install(mac: Machine) -> None:
    said = mac.said("service", "install", "--replace")

    assert "old server" not in said
    assert answers(mac.port)
