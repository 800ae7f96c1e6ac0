"""Flag beats environment beats file beats default, for every setting."""

import math
import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from emberd.config.settings import Settings
from emberd.errors import ConfigError
from tests.config.conftest import Load

# setting: what the file, the environment and a flag say, and what each of them means
SETTINGS: dict[str, tuple[tuple[Any, str, Any], tuple[Any, Any, Any]]] = {
    "default": (("mpnet", "bge", "minilm-f32"), ("mpnet", "bge", "minilm-f32")),
    "default_reranker": (
        ("ms-marco-minilm", "ms-marco-MiniLM-L6-v2", "ms-marco-minilm"),
        ("ms-marco-minilm", "ms-marco-MiniLM-L6-v2", "ms-marco-minilm"),
    ),
    "default_sparse": (
        ("granite-sparse", "granite-embedding-30m-sparse", "granite-sparse"),
        ("granite-sparse", "granite-embedding-30m-sparse", "granite-sparse"),
    ),
    "server.host": (("::1", "0.0.0.0", "localhost"), ("::1", "0.0.0.0", "localhost")),  # noqa: S104
    "server.port": ((1, "2", 3), (1, 2, 3)),
    "server.allowed_hosts": ((["a"], "b, c ,", ("d",)), (("a",), ("b", "c"), ("d",))),
    "server.allowed_origins": ((["http://a"], "", ()), (("http://a",), (), ())),
    "server.socket": (("/a", "/b", "/c"), ("/a", "/b", "/c")),
    "server.token_file": (("/a", "/b", "/c"), ("/a", "/b", "/c")),
    "server.allow_open": ((True, "true", True), (True, True, True)),
    "server.grace": (("3s", "500ms", 0), (3.0, 0.5, 0.0)),
    "server.page": ((False, "no", True), (False, False, True)),
    "log.level": (("debug", "warning", "error"), ("debug", "warning", "error")),
    "log.format": (("json", "console", "auto"), ("json", "console", "auto")),
    "log.file": (("/a", "/b", "/c"), ("/a", "/b", "/c")),
    "log.max_bytes": (("1MiB", "2k", 5), (2**20, 2048, 5)),
    "log.backups": ((1, "2", 0), (1, 2, 0)),
    "cache.vectors": (("1GiB", "900MB", 0), (2**30, 900 * 10**6, 0)),
    "limits.idle_unload": (("1h30m", "90s", "never"), (5400.0, 90.0, math.inf)),
    "limits.max_loaded": ((1, "2", 4), (1, 2, 4)),
    "limits.memory_budget": (("2GiB", "900MB", 5), (2 * 2**30, 900 * 10**6, 5)),
    "limits.replicas": (("auto", "2", 3), ("auto", 2, 3)),
    "limits.threads": ((1, "2", 0), (1, 2, 0)),
    "limits.max_texts": ((1, "2", 3), (1, 2, 3)),
    "limits.max_body": ((1000, "1KiB", "2k"), (1000, 1024, 2048)),
    "limits.max_queued_texts": ((1, "2", 3), (1, 2, 3)),
    "limits.max_queued_bytes": (("1MiB", "2k", 5), (2**20, 2048, 5)),
    "limits.request_timeout": ((0.5, "250ms", 3), (0.5, 0.25, 3.0)),
    "limits.prepare": ((False, "no", True), (False, False, True)),
}


def every_setting() -> dict[str, Any]:
    """Return `{group.key: default}` of all settings, found by walking the dataclasses."""
    found: dict[str, Any] = {}
    for field in fields(Settings()):
        value = getattr(Settings(), field.name)
        if is_dataclass(value):
            for inner in fields(value):
                found[f"{field.name}.{inner.name}"] = getattr(value, inner.name)
        elif not isinstance(value, dict):  # stores are named by the user, and in the file alone
            found[field.name] = value
    return found


def get(settings: Any, name: str) -> Any:  # noqa: ANN401 - any setting
    for key in name.split("."):
        settings = getattr(settings, key)
    return settings


def as_file(name: str, value: object) -> str:
    """Write one setting as YAML."""
    *groups, key = name.split(".")
    return "".join(f"{group}:\n  " for group in groups) + f"{key}: {value!r}\n"


def variable(name: str) -> str:
    return "EMBERD_" + name.replace(".", "_").upper()


def test_every_setting_is_tried_here() -> None:
    assert SETTINGS.keys() == every_setting().keys()


@pytest.mark.parametrize(("name", "default"), every_setting().items())
def test_a_setting_that_nobody_sets_has_its_default(load: Load, name: str, default: Any) -> None:  # noqa: ANN401
    config = load("")

    assert get(config.settings, name) == default
    assert config.origins[name] == "default"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_file_beats_the_default(load: Load, name: str) -> None:
    said, meant = SETTINGS[name]

    config = load(as_file(name, said[0]))

    assert get(config.settings, name) == meant[0]
    assert config.origins[name] == f"{config.homes.config}:{1 + name.count('.')}"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_environment_beats_the_file(load: Load, name: str) -> None:
    said, meant = SETTINGS[name]

    config = load(as_file(name, said[0]), {variable(name): said[1]})

    assert get(config.settings, name) == meant[1]
    assert config.origins[name] == f"${variable(name)}"
    assert config.warnings == ()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_flag_beats_the_environment(load: Load, name: str) -> None:
    said, meant = SETTINGS[name]
    flags = {tuple(name.split(".")): said[2]}

    config = load(as_file(name, said[0]), {variable(name): said[1]}, flags)

    assert get(config.settings, name) == meant[2]
    flag = "log-level" if name == "log.level" else name.split(".")[-1]
    assert config.origins[name] == "--" + flag.replace("_", "-")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_leaves_its_neighbours_alone(load: Load, name: str) -> None:
    config = load("", {variable(name): SETTINGS[name][0][1]})

    others = {key: value for key, value in every_setting().items() if key != name}
    assert {key: get(config.settings, key) for key in others} == others


def test_a_flag_that_was_not_given_changes_nothing(load: Load) -> None:
    config = load("server: {port: 9000}", flags={("server", "port"): None})

    assert config.settings.server.port == 9000


def test_an_empty_list_in_the_environment_allows_no_host_without_a_name(load: Load) -> None:
    config = load("", {"EMBERD_SERVER_ALLOWED_HOSTS": ""})

    assert config.settings.server.allowed_hosts == ()


@pytest.mark.parametrize("name", ["server.socket", "log.file"])
def test_an_empty_variable_unsets_what_the_file_says(load: Load, name: str) -> None:
    config = load(as_file(name, "/a"), {variable(name): ""})

    assert get(config.settings, name) is None


def test_an_empty_variable_does_not_let_everybody_ask(load: Load) -> None:
    with pytest.raises(ConfigError, match="EMBERD_SERVER_TOKEN_FILE"):
        load(as_file("server.token_file", "/a"), {"EMBERD_SERVER_TOKEN_FILE": ""})


def test_an_unknown_variable_gives_a_warning_with_the_nearest_name(load: Load) -> None:
    config = load(
        "",
        {
            "EMBERD_SERVER_PROT": "1",
            "EMBERD_PORT": "1",
            "EMBERD_WHATEVER_THIS_MAY_BE": "2",
            "OTHER": "3",
        },
    )

    assert config.settings == Settings()
    named = [re.findall(r"\$\w+", warning) for warning in config.warnings]
    assert named == [
        ["$EMBERD_SERVER_PROT", "$EMBERD_SERVER_PORT"],
        ["$EMBERD_PORT", "$EMBERD_SERVER_PORT"],
        ["$EMBERD_WHATEVER_THIS_MAY_BE"],
    ]


def test_the_variables_that_say_where_to_look_are_not_settings(load: Load) -> None:
    assert load("").warnings == ()
