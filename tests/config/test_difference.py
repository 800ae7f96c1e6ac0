"""How two configurations differ, and which differences a running server applies."""

from typing import Any

import pytest

from emberd.config.difference import Change, differences, in_force
from tests.config.conftest import Load

MINE = "models:\n  mine: {sources: [{hf: a/b}], dimensions: 8, pooling: mean%s}\n"


def test_equal_configurations_have_no_differences(load: Load) -> None:
    assert differences(load("limits: {idle_unload: 15m}"), load("")) == []


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("default: mpnet", Change("default", "minilm", "mpnet", "next_request")),
        ("limits: {max_loaded: 1}", Change("limits.max_loaded", 3, 1, "at_once")),
        ("limits: {idle_unload: 1h}", Change("limits.idle_unload", "15m", "1h", "at_once")),
        ("limits: {max_body: 1MiB}", Change("limits.max_body", "16MiB", "1MiB", "at_once")),
        ("limits: {replicas: 2}", Change("limits.replicas", "auto", 2, "model_restarts")),
        ("aliases: {ada: 'bge:query'}", Change("aliases.ada", None, "bge:query", "at_once")),
        ("server: {port: 1}", Change("server.port", 8767, 1, "needs_restart")),
        (
            "server: {allowed_hosts: [a]}",
            Change("server.allowed_hosts", [], ["a"], "needs_restart"),
        ),
    ],
)
def test_a_setting_says_when_it_is_in_force(load: Load, text: str, change: Change) -> None:
    assert differences(load(""), load(text)) == [change]


@pytest.mark.parametrize(
    ("key", "value", "effect"),
    [
        ("precision", "8bit", "model_restarts"),
        ("compute", "f32", "model_restarts"),
        ("max_tokens", 9, "model_restarts"),
        ("prompts", {"query": "q"}, "model_restarts"),
        ("normalize", False, "model_restarts"),
        ("matryoshka", [4], "model_restarts"),
        ("matryoshka_norm", True, "model_restarts"),
        ("backend", "mlx", "model_restarts"),
        ("replicas", 4, "model_restarts"),
        ("aliases", ["m"], "at_once"),
        ("pinned", True, "at_once"),
        ("idle_unload", "1h", "at_once"),
        ("licence", "MIT", "at_once"),
    ],
)
def test_a_key_of_a_model_says_whether_its_worker_restarts(
    load: Load,
    key: str,
    value: Any,  # noqa: ANN401
    effect: str,
) -> None:
    (change,) = differences(load(MINE % ""), load(MINE % f", {key}: {value!r}"))

    assert (change.key, change.after, change.effect) == (f"models.mine.{key}", value, effect)


def test_models_come_and_go(load: Load) -> None:
    with_it, without = load(MINE % ""), load("")

    (added,) = differences(without, with_it)
    (removed,) = differences(with_it, without)

    assert (added.key, added.before, added.effect) == ("models.mine", None, "next_request")
    assert added.after["sources"] == [{"hf": "a/b"}]
    assert (removed.key, removed.after, removed.effect) == ("models.mine", None, "model_leaves")


def test_what_needs_a_restart_is_not_in_force(load: Load) -> None:
    running, read = load("server: {port: 1}"), load("server: {port: 2}\ndefault: mpnet")

    taken = in_force(running, read)

    assert (taken.settings.server.port, taken.settings.default) == (1, "mpnet")
    assert [change.key for change in differences(taken, read)] == ["server.port"]
