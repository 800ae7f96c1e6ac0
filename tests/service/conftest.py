"""A machine for each test: a home, a service manager, a free port."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.service.managers import Fake, Machine, RealSystemd, ServiceManager, why_no_systemd
from tests.service.replaced import load_old_agent


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    """Those that this test module started; a real systemd is one for all its tests."""
    kept: dict[str, Machine] = {}
    yield kept
    for machine in kept.values():
        machine.manager.end()


@pytest.fixture(
    params=[
        "systemd",
        pytest.param("launchd", marks=pytest.mark.slow),
        pytest.param("real systemd", marks=pytest.mark.slow),
    ]
)
def machine(
    request: pytest.FixtureRequest, managers: dict[str, Machine], tmp_path: Path
) -> Iterator[Machine]:
    """A machine with each service manager."""
    name: str = request.param
    if name != "real systemd":
        made = Machine(Fake(name, tmp_path / "fake"), tmp_path / "home", free_port())
        yield made
        made.manager.end()
        return
    if why := why_no_systemd():
        pytest.skip(why)
    if name not in managers:
        folder = request.getfixturevalue("tmp_path_factory").mktemp("systemd")
        (folder / "home").mkdir()
        manager: ServiceManager = RealSystemd(folder, folder / "home")
        managers[name] = Machine(manager, folder / "home", free_port())
    yield managers[name]
    managers[name].run("service", "uninstall")


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Machine]:
    """A machine with (a fake) launchd."""
    made = Machine(Fake("launchd", tmp_path / "fake"), tmp_path / "home", free_port())
    yield made
    made.manager.end()


@pytest.fixture
def linux(tmp_path: Path) -> Iterator[Machine]:
    """A machine with (a fake) systemd."""
    made = Machine(Fake("systemd", tmp_path / "fake"), tmp_path / "home", free_port())
    yield made
    made.manager.end()


@pytest.fixture
def old_agent(mac: Machine) -> Path:
    """The old server's LaunchAgent, loaded; its file."""
    return load_old_agent(mac)


@pytest.fixture
def on_the_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """Puts this process on a machine: its home, and its manager's commands."""

    def enter(machine: Machine) -> None:
        monkeypatch.setenv("HOME", str(machine.home))
        monkeypatch.setenv("PATH", machine.environ["PATH"])
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    return enter
