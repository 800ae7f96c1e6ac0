"""What is done in which order and what is undone, with a manager that is only an object."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emberd.errors import ServiceError
from emberd.service import command
from emberd.service import install as installing
from emberd.service.install import install, restart, uninstall, wait_until_ready
from emberd.service.launchd import Launchd
from emberd.service.systemd import Systemd
from emberd.service.unit import RunState, Status, Unit

NEW, OLD = b"/new", b"/old"


def never() -> bool:
    return False


def always() -> bool:
    return True


@dataclass
class _InMemory:
    """A manager whose service runs once it is started, unless its unit is in `broken`."""

    file: Path
    name: str = "in memory"
    broken: set[bytes] = field(default_factory=set)
    did: list[str] = field(default_factory=list)
    answers: bool = True
    state: RunState = "stopped"
    pid: int = 0

    def render(self, unit: Unit) -> bytes:
        return unit.argv[0].encode()

    def status(self) -> Status:
        if not self.answers:
            raise ServiceError("no session")
        if self.state == "running":
            return Status(state="running", pid=self.pid)
        if self.state == "failed":
            return Status(state="failed", last_exit=3)
        return Status(state="stopped" if self.file.exists() else "not installed")

    def start(self) -> None:
        self.did.append("start")
        self.pid += 1
        self.state = "failed" if self.file.read_bytes() in self.broken else "running"

    def stop(self) -> None:
        self.did.append("stop")
        self.state = "stopped"

    def restart(self) -> None:
        self.start()

    def forget(self) -> None:
        self.did.append("forget")

    def last_words(self) -> str:
        return "its last words"

    def logout_hint(self) -> str | None:
        return None


@dataclass
class _Former:
    """An old server, which notes in the manager's list what is done to it."""

    did: list[str]
    cannot_come_back: bool = False

    def stop(self) -> None:
        self.did.append("stop the old one")

    def put_back(self) -> None:
        self.did.append("put the old one back")
        if self.cannot_come_back:
            raise ServiceError("The old one is lost.")

    def retire(self) -> str:
        return "The old one has gone."


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "POLL_S", 0.001)
    monkeypatch.setattr(installing, "FAILED_FOR_S", 0.01)


@pytest.fixture
def manager(tmp_path: Path) -> _InMemory:
    return _InMemory(tmp_path / "units" / "emberd")


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(argv=(NEW.decode(),), environ={}, stderr=tmp_path / "logs" / "stderr")


def is_installed(manager: _InMemory, content: bytes) -> _InMemory:
    """Let a unit of this content be installed, and run."""
    manager.file.parent.mkdir()
    manager.file.write_bytes(content)
    manager.start()
    manager.did.clear()
    return manager


def test_the_unit_is_written_and_started(manager: _InMemory, unit: Unit) -> None:
    assert install(manager, unit, always) == []

    assert (manager.file.read_bytes(), manager.did) == (NEW, ["start"])
    assert unit.stderr.parent.is_dir()


def test_what_runs_is_stopped_before_the_new_unit_is_started(
    manager: _InMemory, unit: Unit
) -> None:
    is_installed(manager, OLD)

    said = install(manager, unit, always, [_Former(manager.did)])

    assert said == ["The old one has gone."]
    assert manager.did == ["stop", "stop the old one", "start"]
    assert manager.file.read_bytes() == NEW


def test_a_first_unit_that_fails_is_removed(manager: _InMemory, unit: Unit) -> None:
    manager.broken = {NEW}

    with pytest.raises(ServiceError) as caught:
        install(manager, unit, always, [_Former(manager.did)])

    assert manager.did[-3:] == ["stop", "forget", "put the old one back"]
    assert not manager.file.exists()
    assert "exit code 3" in caught.value.message
    assert "All is as it was before." in caught.value.message
    assert "its last words" in caught.value.message
    assert caught.value.hint


def test_the_unit_before_comes_back_and_runs(manager: _InMemory, unit: Unit) -> None:
    is_installed(manager, OLD).broken = {NEW}

    with pytest.raises(ServiceError):
        install(manager, unit, always)

    assert manager.file.read_bytes() == OLD
    assert manager.status().state == "running"


def test_a_unit_that_did_not_run_comes_back_and_does_not_run(
    manager: _InMemory, unit: Unit
) -> None:
    is_installed(manager, OLD).broken = {NEW}
    manager.stop()

    with pytest.raises(ServiceError):
        install(manager, unit, always)

    assert manager.file.read_bytes() == OLD
    assert manager.status().state == "stopped"


def test_what_cannot_be_restored_is_said(manager: _InMemory, unit: Unit) -> None:
    manager.broken = {NEW}

    with pytest.raises(ServiceError, match="The old one is lost") as caught:
        install(manager, unit, always, [_Former(manager.did, cannot_come_back=True)])

    assert "as it was before" not in caught.value.message


def test_an_interruption_is_undone_too(manager: _InMemory, unit: Unit) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(manager, unit, interrupt)

    assert not manager.file.exists()
    assert manager.state == "stopped"


def test_one_that_runs_and_never_answers_is_not_ready(
    manager: _InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_installed(manager, NEW)
    monkeypatch.setattr(installing, "START_S", 0.02)

    with pytest.raises(ServiceError, match="not ready after"):
        wait_until_ready(manager, never)


def test_one_that_ends_without_an_exit_code_is_named_by_its_state(manager: _InMemory) -> None:
    with pytest.raises(ServiceError, match="It is not installed"):
        wait_until_ready(manager, always)


def test_a_restart_waits_for_another_process(manager: _InMemory) -> None:
    is_installed(manager, NEW)

    restart(manager, always)

    assert manager.pid == 2


def test_what_is_not_installed_is_not_restarted(manager: _InMemory) -> None:
    with pytest.raises(ServiceError) as caught:
        restart(manager, always)

    assert caught.value.hint == "Run `emberd service install`."


def test_uninstalling_stops_it_and_removes_its_file(manager: _InMemory) -> None:
    is_installed(manager, NEW)

    assert uninstall(manager)
    assert not manager.file.exists()
    assert manager.did == ["stop", "forget"]
    assert not uninstall(manager)


def test_without_an_answer_only_a_file_tells_that_it_is_installed(manager: _InMemory) -> None:
    manager.answers = False
    assert not uninstall(manager)

    is_installed(manager, NEW)

    with pytest.raises(ServiceError, match="no session"):
        uninstall(manager)
    assert manager.file.exists()


@pytest.mark.parametrize(
    ("commands", "kind"),
    [({"launchctl"}, Launchd), ({"systemctl"}, Systemd), ({"launchctl", "systemctl"}, Launchd)],
)
def test_the_manager_is_the_one_whose_command_is_here(
    monkeypatch: pytest.MonkeyPatch, commands: set[str], kind: Callable[[], object]
) -> None:
    monkeypatch.setattr(command, "exists", commands.__contains__)

    assert type(installing.find_manager()) is kind


def test_a_machine_without_a_known_manager_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "exists", set().__contains__)

    with pytest.raises(ServiceError):
        installing.find_manager()
