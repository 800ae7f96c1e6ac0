"""Everything in uvicorn that `connection` uses or overrides exists, with the same signatures."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server

from emberd.server import run
from emberd.server.connection import Connection

OVERRIDES: dict[type, type] = {HttpToolsProtocol: Connection, Server: run.Server}


def overridden() -> list[tuple[str, Callable[..., Any] | None, Callable[..., Any]]]:
    return [
        (f"{ours.__name__}.{name}", getattr(theirs, name, None), member)
        for theirs, ours in OVERRIDES.items()
        for name, member in vars(ours).items()
        if callable(member) and not name.startswith("_")
    ]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [pytest.param(theirs, ours, id=name) for name, theirs, ours in overridden()],
)
def test_what_is_overridden_exists_and_takes_the_same(
    theirs: Callable[..., Any] | None, ours: Callable[..., Any]
) -> None:
    assert theirs is not None

    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_private_parts_that_are_used_exist() -> None:
    used = {"_unset_keepalive_if_required"}
    of_a_connection = {
        "app_state", "connections", "cycle", "flow", "headers", "logger", "loop", "parser",
        "pipeline", "scope", "transport", "url",
    }  # fmt: skip
    of_a_cycle = {"disconnected", "keep_alive", "response_complete", "response_started"}

    assert used <= vars(HttpToolsProtocol).keys()
    assert of_a_connection <= names_set_in(HttpToolsProtocol)
    assert of_a_cycle <= names_set_in(RequestResponseCycle)


def test_every_name_of_the_connection_is_ours_or_known() -> None:
    """A new private name in uvicorn must not collide with one of ours."""
    ours = {name for name in {*vars(Connection), *Connection.__annotations__} if name[1] != "_"}
    private = {name for name in ours if name.startswith("_")}

    assert not private & (vars(HttpToolsProtocol).keys() | names_set_in(HttpToolsProtocol))


def test_every_setting_of_uvicorn_exists() -> None:
    assert run.UVICORN.keys() <= inspect.signature(uvicorn.Config).parameters.keys()


def names_set_in(kind: type) -> set[str]:
    """Return the names of attributes that any method of a class sets or gets."""
    codes = [member.__code__ for member in vars(kind).values() if inspect.isfunction(member)]
    return {name for code in codes for name in code.co_names}
