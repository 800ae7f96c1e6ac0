"""What the check of the port says about each server that may listen there, or elsewhere."""

import os
import socket
from pathlib import Path

import pytest

from emberd import running
from emberd.config.settings import ServerSettings
from emberd.doctor import network
from emberd.doctor.network import port
from emberd.doctor.network import socket as socket_check
from emberd.running import Running
from tests.answering import EMBERD, INSTANCE, OLD_SERVER, answering

WARNINGS = {"warnings": [{"message": "two models changed", "hint": "look"}, {"message": "old"}]}


def settings_of(port: int | None, **more: str) -> ServerSettings:
    return ServerSettings(port=port, **more)  # type: ignore[arg-type]


def test_emberd_is_recognised_and_its_warnings_are_shown(tmp_path: Path) -> None:
    with answering({"/health": (200, EMBERD | WARNINGS)}) as emberd:
        found, *warnings = port(settings_of(emberd.port), tmp_path)

    assert found.verdict == "ok"
    assert f"emberd 9.9 answers at 127.0.0.1:{emberd.port}" in found.detail
    assert f"(pid {os.getpid()})" in found.detail
    shown = [(one.check, one.verdict, one.detail, one.advice) for one in warnings]
    assert shown == [
        ("server", "warning", "two models changed", "look"), ("server", "warning", "old", "")
    ]  # fmt: skip


def test_the_old_server_is_to_be_replaced_and_any_other_to_be_stopped(tmp_path: Path) -> None:
    with answering({"/health": (200, OLD_SERVER)}) as old:
        (replaced,) = port(settings_of(old.port), tmp_path)
    with answering({}) as other:
        (stopped,) = port(settings_of(other.port), tmp_path)

    assert (replaced.verdict, stopped.verdict) == ("failed", "failed")
    assert "`emberd service install --replace`" in replaced.advice
    assert f"(pid {os.getpid()})" in stopped.detail
    assert "`server.port`" in stopped.advice


def test_a_port_that_is_off_is_fine_only_with_a_socket(tmp_path: Path) -> None:
    (nowhere,) = port(settings_of(None), tmp_path)
    (off,) = port(settings_of(None, socket="/s"), tmp_path)

    assert (nowhere.verdict, off.verdict) == ("failed", "ok")


def test_any_free_port_is_fine_and_this_homes_server_may_be_elsewhere(tmp_path: Path) -> None:
    (alone,) = port(settings_of(0), tmp_path)
    with answering({"/health": (200, EMBERD)}) as elsewhere:
        noted = Running(os.getpid(), "127.0.0.1", elsewhere.port, "9.9", instance=INSTANCE)
        running.write(tmp_path, noted)
        (found,) = port(settings_of(0), tmp_path)

    assert (alone.verdict, found.verdict) == ("ok", "ok")
    assert "no server is running" in alone.detail
    assert f"(pid {os.getpid()})" in found.detail


def test_a_socket_is_free_or_cannot_be_checked(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("h") / "s"
    (free,) = socket_check(settings_of(None, socket=str(place)))
    too_long = place.with_name("s" * 200)  # for connect, though not for the file system
    (unknown,) = socket_check(settings_of(None, socket=str(too_long)))

    assert (free.verdict, unknown.verdict) == ("ok", "failed")
    assert str(too_long) in unknown.detail
    assert unknown.advice


def test_whoever_listens_on_the_socket_without_an_answer_is_not_emberd(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "HEALTH_TIMEOUT_S", 0.05)
    place = tmp_path_factory.mktemp("h") / "s"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place))
        silent.listen()
        (found,) = socket_check(settings_of(None, socket=str(place)))

    assert found.verdict == "failed"
    assert f"(pid {os.getpid()})" in found.detail
