"""The app on Ray is the app alone: the same tests, asked of the cluster."""

import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import httpx2
import psutil
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
from tests.serving import wait_for

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
LEFT_OUT = {
    "test_files_that_are_here_have_a_size_and_a_time": "a model's files are on the nodes",
    "test_a_client_that_hangs_up_leaves_the_queue": "by the worker's process; there is one below",
    "test_keep_alive_moves_nobodys_model": "when a replica leaves is Serve's affair",
    "test_unload_takes_no_body_and_no_content_type_and_health_says_so": "the other ingress knows of"
    " it 2 s later; see test_scale",
    "test_ollama_lists_shows_and_says_what_runs": "it has a time of leaving; there is one below",
}


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


@contextmanager
def suspended(served: Served, model: str) -> Iterator[None]:
    """Have no worker of a model answer while the block runs."""

    def both_loaded() -> bool:
        served.embed("loads it", model=model)  # one replica's may have been unloaded
        return len(served.cluster("workers", model)) == 2

    wait_for(both_loaded, within_s=120)
    with ExitStack() as after:
        for pid in served.cluster("workers", model):
            worker = psutil.Process(pid)
            worker.suspend()
            after.callback(worker.resume)
        yield


def in_flight(served: Served, model: str) -> set[int]:
    """Return how many texts wait for a model, as both ingresses say.

    Each look has a connection of its own, because a proxy prefers the ingress of its node.
    """
    rows = [
        row
        for _ in range(12)
        for row in httpx2.get(f"{served.url}/models", trust_env=False, timeout=60).json()["models"]
    ]
    return {row["in_flight"] for row in rows if row["name"] == model}


def test_a_client_that_hangs_up_leaves_the_queue(served: Served) -> None:
    body = {"texts": ["a"], "model": "tiny"}
    with suspended(served, "tiny"), ThreadPoolExecutor(1) as thread:
        asked = thread.submit(served.http.post, "/embed", json=body, timeout=15)
        wait_for(lambda: 1 in in_flight(served, "tiny"))
        assert isinstance(asked.exception(), httpx2.TimeoutException)
        wait_for(lambda: in_flight(served, "tiny") == {0})

    assert served.embed("short", model="tiny")["model"] == "tiny"


def test_who_comes_when_all_is_full_gets_a_429(served: Served) -> None:
    body = {"texts": ["a"] * 2000, "model": "tiny", "encoding": "base64"}
    many = 2 * 10 + 5  # each of two ingresses has up to 20,000 texts in flight

    def ask() -> httpx2.Response:
        return served.http.post("/embed", json=body)

    with ThreadPoolExecutor(many) as threads:
        with suspended(served, "tiny"):
            asked = [threads.submit(ask) for _ in range(many)]
            wait_for(lambda: sum(each.done() for each in asked) >= 5)
            (refused,) = {each.result().json()["code"] for each in asked if each.done()}
        statuses = {each.result().status_code for each in asked}

    assert (statuses, refused) == ({200, 429}, "queue_full")


def test_ollama_is_told_what_runs_but_not_how_long(served: Served) -> None:
    fingerprint = served.embed("loaded")["fingerprint"]

    def running() -> list[dict[str, Any]]:  # the other ingress knows of it a moment later
        models = served.http.get("/api/ps").json()["models"]
        return [model for model in models if model["name"] == "minilm:latest"]

    (loaded,) = wait_for(running)
    assert (loaded["digest"], loaded["expires_at"]) == (fingerprint, None)


def test_an_answer_says_what_computed_it(served: Served) -> None:
    answer = served.http.post("/embed", json={"texts": ["a"], "model": "tiny"})

    backend, numbers = answer.headers["x-emberd-compute"].split()
    row = served.row("tiny")
    assert (backend, numbers) == (row["backend"], row["compute"])
    assert answer.headers["x-emberd-fingerprint"] == row["fingerprint"]
