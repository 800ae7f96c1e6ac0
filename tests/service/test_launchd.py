"""What `launchctl` is asked to do, and what is read from its answers; it runs something small."""

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from emberd.errors import ServiceError
from emberd.service import launchd
from emberd.service.launchd import Launchd
from emberd.service.unit import Unit
from tests.service.managers import Machine
from tests.serving import has_ended, wait_for


@pytest.fixture
def agent(
    mac: Machine, on_the_machine: Callable[[Machine], None], monkeypatch: pytest.MonkeyPatch
) -> Launchd:
    """Emberd's agent on a machine of its own."""
    on_the_machine(mac)
    monkeypatch.setattr(launchd, "POLL_S", 0.02)
    return Launchd()


def write(agent: Launchd, folder: Path, script: str) -> Path:
    """Write the agent's file, which runs a shell script; return where its stderr goes."""
    stderr = folder / "stderr"
    unit = Unit(argv=("/bin/sh", "-c", script), environ={}, stderr=stderr)
    agent.file.parent.mkdir(parents=True, exist_ok=True)
    agent.file.write_bytes(agent.render(unit))
    return stderr


def test_an_agent_lives_from_start_to_stop(agent: Launchd, mac: Machine, tmp_path: Path) -> None:
    assert agent.status().state == "not installed"
    write(agent, tmp_path, "exec sleep 100")
    assert agent.status().state == "stopped"

    agent.restart()  # one that is not loaded is started
    wait_for(lambda: agent.status().pid)
    first = agent.status()
    agent.restart()
    wait_for(lambda: agent.status().pid not in (None, first.pid))
    second = agent.status()
    agent.stop()

    assert first.pid
    assert second.pid
    assert (first.state, second.state) == ("running", "running")
    assert agent.status().state == "stopped"
    assert not psutil.pid_exists(second.pid) or has_ended(psutil.Process(second.pid))
    agent.disable()
    assert json.loads((mac.manager.bin / "state" / "disabled.json").read_text()) == [agent.label]


def test_one_that_failed_has_an_exit_code_and_last_words(agent: Launchd, tmp_path: Path) -> None:
    assert agent.last_words() == ""
    write(agent, tmp_path, "echo why >&2; exit 3")

    agent.start()

    wait_for(lambda: agent.status().last_exit)
    assert (agent.status().state, agent.status().last_exit) == ("failed", 3)
    assert agent.last_words() == "why"


@pytest.mark.parametrize("more", [0, 1])
def test_a_large_stderr_file_begins_anew(agent: Launchd, tmp_path: Path, more: int) -> None:
    stderr = write(agent, tmp_path, "true")
    stderr.write_bytes(b"x" * (launchd.MANY_BYTES + more))

    agent.start()

    assert stderr.stat().st_size == (0 if more else launchd.MANY_BYTES)


def test_what_launchd_refuses_is_an_error(agent: Launchd, tmp_path: Path) -> None:
    write(agent, tmp_path, "exec sleep 100")
    agent.target = agent.target + ".other"  # so that it is not enabled again
    agent.disable()
    Launchd().disable()

    with pytest.raises(ServiceError, match="disabled"):
        agent.start()
