"""A machine for each test: a home, a service manager, a free port."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.managers import Fake, Machine, RealSystemd, ServiceManager, why_no_systemd


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    """Those that this test module started; a real systemd is one for all its tests."""
    kept: dict[str, Machine] = {}
    yield kept
    for machine in kept.values():
        machine.manager.end()


@pytest.fixture(params=["launchd", "systemd", pytest.param("real systemd", marks=pytest.mark.slow)])
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


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
