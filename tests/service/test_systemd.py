"""What `systemctl` is asked to do, and what is read from its answers; it runs something small."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from emberd.errors import ServiceError
from emberd.service.systemd import Systemd
from emberd.service.unit import Unit
from tests.service.managers import Machine
from tests.serving import has_ended, wait_for

READY = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
    line.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(100)
"""


@pytest.fixture
def manager(linux: Machine, on_the_machine: Callable[[Machine], None]) -> Systemd:
    """The user's own systemd on a machine of its own."""
    on_the_machine(linux)
    return Systemd()


def write(manager: Systemd, folder: Path, script: Path) -> None:
    """Write the unit, which runs a Python script."""
    unit = Unit(argv=(sys.executable, "-S", str(script)), environ={}, stderr=folder / "unused")
    manager.file.parent.mkdir(parents=True, exist_ok=True)
    manager.file.write_bytes(manager.render(unit))


def test_a_unit_lives_from_start_to_stop(manager: Systemd, linux: Machine, tmp_path: Path) -> None:
    assert manager.file == linux.unit
    assert manager.status().state == "not installed"
    (script := tmp_path / "ready.py").write_text(READY)
    write(manager, tmp_path, script)
    assert manager.status().state == "stopped"

    manager.start()
    first = manager.status()
    manager.restart()
    second = manager.status()
    manager.stop()

    assert first.pid
    assert second.pid not in (None, first.pid)
    assert (first.state, second.state) == ("running", "running")
    assert manager.status().state == "stopped"
    assert not psutil.pid_exists(second.pid or 0) or has_ended(psutil.Process(second.pid))
    manager.file.unlink()
    manager.forget()
    assert manager.status().state == "not installed"
    assert "enable-linger" in (manager.logout_hint() or "")


def test_one_that_failed_has_an_exit_code_and_last_words(manager: Systemd, tmp_path: Path) -> None:
    (script := tmp_path / "fail.py").write_text("import sys; sys.exit('why')")
    write(manager, tmp_path, script)

    with pytest.raises(ServiceError, match="systemctl --user restart"):
        manager.start()

    wait_for(lambda: manager.status().last_exit)
    assert (manager.status().state, manager.status().last_exit) == ("failed", 1)
    assert manager.last_words() == "why"
    manager.stop()
