"""The app on Ray is the app alone: the same tests, asked of the cluster."""

import inspect
from types import ModuleType

import pytest

from tests.api import (
    test_bad_input,
    test_bad_input_dialects,
    test_cohere,
    test_dialects,
    test_native,
    test_old_client,
    test_ollama,
    test_options,
    test_paths,
)
from tests.ray.clusters import Served

MODULES = (
    test_bad_input,
    test_bad_input_dialects,
    test_cohere,
    test_dialects,
    test_native,
    test_old_client,
    test_ollama,
    test_options,
    test_paths,
)
LEFT_OUT: dict[str, str] = {}


def _fits(test: object) -> bool:
    """Whether it asks nothing but the server, and that over HTTP."""
    parameters = inspect.signature(test).parameters  # type: ignore[arg-type]
    marks = getattr(test, "pytestmark", [])
    given = {
        name.strip()
        for mark in marks
        if mark.name == "parametrize"
        for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
    }
    source = inspect.getsource(test)  # type: ignore[arg-type]
    inside = any(f"server.{name}(" in source for name in ("log", "workers", "run"))
    return "server" in parameters and {*parameters} - given == {"server"} and not inside


def _add(module: ModuleType) -> None:
    for name, test in vars(module).items():
        own = name.startswith("test_") and getattr(test, "__module__", "") == module.__name__
        if own and name not in LEFT_OUT and _fits(test):
            globals()[f"{name}__{module.__name__.rpartition('.')[2]}"] = test


for each in MODULES:
    _add(each)


def test_most_of_them_are_asked_here() -> None:
    found = [name for name in globals() if name.startswith("test_") and "__test_" in name]

    assert len(found) > 60
    assert set(LEFT_OUT) <= {name for module in MODULES for name in vars(module)}


@pytest.mark.parametrize("path", ["/ui/", "/jobs", "/events"])
def test_what_concerns_one_machine_is_not_there(served: Served, path: str) -> None:
    assert served.http.get(path).status_code == 404


def test_an_answer_says_what_computed_it(served: Served) -> None:
    answer = served.http.post("/embed", json={"texts": ["a"], "model": "tiny"})

    backend, numbers = answer.headers["x-emberd-compute"].split()
    row = served.row("tiny")
    assert (backend, numbers) == (row["backend"], row["compute"])
    assert answer.headers["x-emberd-fingerprint"] == row["fingerprint"]
