"""How a service runs the server, where that answers, and what is in its way."""

import os
import socket
from pathlib import Path

import pytest

from emberd.config.load import Config, load_config
from emberd.errors import ConfigError
from emberd.service.launchd import Launchd
from emberd.service.server import address_of, holder, is_ready, unit_of
from emberd.service.unit import Status
from tests.ports import free_port


class Installed(Launchd):
    """A manager whose service runs as this process, or not at all."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid

    def status(self) -> Status:
        """Return it without asking anybody."""
        return Status(state="running" if self._pid else "stopped", pid=self._pid)


def config_of(home: Path, text: str) -> Config:
    (home / "config.yaml").write_text(text)
    return load_config(environ={"EMBERD_HOME": str(home)})


def test_the_unit_has_this_python_and_a_log_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERD_HOME", str(tmp_path))
    monkeypatch.setenv("EMBERD_TOKEN", "s3cret")
    config = config_of(tmp_path, "server: {port: 9000}\n")

    unit, left_out = unit_of(config, names_config=True)

    assert Path(unit.argv[0]).is_absolute()
    assert unit.argv[-1] == "serve"
    assert unit.stderr.parent == config.homes.state
    assert unit.environ["EMBERD_CONFIG"] == str(tmp_path / "config.yaml")
    assert unit.environ["EMBERD_LOG_FILE"] == str(config.homes.state / "emberd.log")
    assert left_out == ["EMBERD_TOKEN"]
    assert "s3cret" not in repr(unit)
    assert "EMBERD_CONFIG" not in unit_of(config, names_config=False)[0].environ


@pytest.mark.parametrize("port", ["0", "off"])
def test_a_service_needs_a_fixed_place(tmp_path: Path, port: str) -> None:
    config = config_of(tmp_path, f"server: {{port: {port}}}\n")

    with pytest.raises(ConfigError, match=r"server\.port"):
        unit_of(config, names_config=False)


def test_it_is_asked_at_its_port_or_else_at_its_socket(tmp_path: Path) -> None:
    by_port = address_of(config_of(tmp_path, "server: {port: 9000, socket: /s}\n"))
    by_socket = address_of(config_of(tmp_path, "server: {port: off, socket: /s}\n"))

    assert (str(by_port), str(by_socket)) == ("http://127.0.0.1:9000", "unix:/s")


def test_who_holds_the_port_is_named_unless_it_is_our_own_service(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_of(tmp_path, f"server: {{port: {taken.getsockname()[1]}}}\n")
        other, own = holder(config, Installed(None)), holder(config, Installed(os.getpid()))

    assert other is not None
    assert (other.pid, own) == (os.getpid(), None)


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, "server: {host: 192.0.2.1}\n")

    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        holder(config, Installed(None))


def test_nothing_at_the_port_is_not_ready(tmp_path: Path) -> None:
    assert not is_ready(config_of(tmp_path, f"server: {{port: {free_port()}}}\n"))
