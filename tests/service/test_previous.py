"""The server that emberd replaces: found, stopped and put back."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from emberd.errors import PortTakenError, ServiceError
from emberd.service import launchd, previous
from emberd.service.port import Holder
from emberd.service.previous import PreviousProcess, disabled_agent, find
from tests.service.managers import Machine
from tests.service.replaced import OLD, old_answers, old_server
from tests.serving import wait_for


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchd, "POLL_S", 0.02)
    monkeypatch.setattr(previous, "POLL_S", 0.02)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # it shall
def test_a_process_is_stopped_and_put_back_as_it_ran(linux: Machine, tmp_path: Path) -> None:
    more = "of two words; and a semicolon"
    with old_server(linux.port, tmp_path / "mlx-server", more) as process:
        (old,) = find(linux.port, Holder(process.pid, "python"))
        assert isinstance(old, PreviousProcess)

        old.stop()
        assert process.wait(10) != 0
        old.put_back()

        wait_for(lambda: old_answers(linux.port))
        again = next(
            each
            for each in psutil.process_iter(["cmdline"])
            if {more, str(linux.port)} <= {*(each.info["cmdline"] or ())}
        )
        assert again.cmdline() == [sys.executable, str(OLD), str(linux.port), more]
        assert again.cwd() == str(tmp_path / "mlx-server")
        said = old.retire()
        assert f"'{more}'" in said
        assert str(process.pid) in said


def test_a_process_that_was_not_stopped_is_not_started_twice(
    linux: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with old_server(linux.port, tmp_path / "mlx-server") as process:
        (old,) = find(linux.port, Holder(process.pid, "python"))
        monkeypatch.delattr(subprocess, "Popen")

        old.put_back()

        assert process.poll() is None


def test_a_process_whose_command_has_gone_cannot_be_put_back(
    linux: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "mlx-server"
    with old_server(linux.port, folder) as process:
        (old,) = find(linux.port, Holder(process.pid, "python"))
        old.stop()
        process.wait(10)
    folder.rmdir()

    with pytest.raises(ServiceError) as caught:
        old.put_back()
    assert str(folder) in (caught.value.hint or "")


def test_who_is_not_the_old_server_is_an_error(linux: Machine) -> None:
    for pid in (None, psutil.Process().pid):
        with pytest.raises(PortTakenError):
            find(linux.port, Holder(pid, "somebody"))


def test_where_nothing_is_nothing_is_found(
    mac: Machine, on_the_machine: Callable[[Machine], None]
) -> None:
    on_the_machine(mac)

    assert find(mac.port, None) == []
    assert disabled_agent() is None


def test_an_agent_is_stopped_put_back_and_disabled(
    mac: Machine, old_agent: Path, on_the_machine: Callable[[Machine], None]
) -> None:
    on_the_machine(mac)
    (old,) = find(mac.port, None)

    old.stop()
    assert not old_answers(mac.port)
    stopped = disabled_agent()
    old.put_back()
    wait_for(lambda: old_answers(mac.port))
    old.stop()
    said = old.retire()

    assert stopped
    assert stopped.file == old_agent
    assert str(old_agent) in said
    assert json.loads((mac.manager.bin / "state" / "disabled.json").read_text()) == [stopped.label]
