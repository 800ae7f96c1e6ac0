"""Where the config file, the state and the caches are."""

from pathlib import Path

import pytest

from emberd.config.load import load_config
from emberd.config.paths import Homes, find_homes
from emberd.errors import ConfigError


def homes(config: str, state: str, cache: str, hub: str) -> Homes:
    return Homes(Path(config), Path(state), Path(cache), Path(hub))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {},
            homes(
                "/me/.config/emberd/config.yaml",
                "/me/.local/state/emberd",
                "/me/.cache/emberd",
                "/me/.cache/huggingface/hub",
            ),
        ),
        (
            {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/k"},
            homes("/c/emberd/config.yaml", "/s/emberd", "/k/emberd", "/k/huggingface/hub"),
        ),
        (
            {"XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "./s", "XDG_CACHE_HOME": "~/k"},  # ignored
            homes(
                "/me/.config/emberd/config.yaml",
                "/me/.local/state/emberd",
                "/me/.cache/emberd",
                "/me/.cache/huggingface/hub",
            ),
        ),
        (
            {"EMBERD_HOME": "/e", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"},
            homes("/e/config.yaml", "/e/state", "/e/cache", "/me/.cache/huggingface/hub"),
        ),
        (
            {"EMBERD_HOME": "/e", "EMBERD_CONFIG": "/f.yaml"},
            homes("/f.yaml", "/e/state", "/e/cache", "/me/.cache/huggingface/hub"),
        ),
        (
            {"EMBERD_HOME": "/e", "HF_HOME": "/h"},
            homes("/e/config.yaml", "/e/state", "/e/cache", "/h/hub"),
        ),
        (
            {"EMBERD_HOME": "/e", "HF_HOME": "/h", "HF_HUB_CACHE": "/b"},
            homes("/e/config.yaml", "/e/state", "/e/cache", "/b"),
        ),
        (
            {"EMBERD_HOME": "", "EMBERD_CONFIG": "", "XDG_CACHE_HOME": ""},  # empty: not set
            homes(
                "/me/.config/emberd/config.yaml",
                "/me/.local/state/emberd",
                "/me/.cache/emberd",
                "/me/.cache/huggingface/hub",
            ),
        ),
    ],
)
def test_the_environment_says_where_things_are(environ: dict[str, str], expected: Homes) -> None:
    assert find_homes({"HOME": "/me", **environ}) == expected


def test_a_file_named_by_a_flag_beats_the_one_in_the_environment() -> None:
    environ = {"HOME": "/me", "EMBERD_CONFIG": "/f.yaml"}

    assert find_homes(environ, config=Path("/flag.yaml")).config == Path("/flag.yaml")


def test_relative_places_are_of_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    found = find_homes({"HOME": "/me", "EMBERD_HOME": "home", "EMBERD_CONFIG": "my.yaml"})

    assert found.config == tmp_path / "my.yaml"
    assert found.state == tmp_path / "home" / "state"


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    found = find_homes({"EMBERD_HOME": "~/e", "EMBERD_CONFIG": "~/f.yaml", "HF_HOME": "~/h"})

    assert (found.config, found.cache, found.hub) == (
        tmp_path / "f.yaml",
        tmp_path / "e" / "cache",
        tmp_path / "h" / "hub",
    )


def test_the_home_of_a_user_that_nobody_knows_is_a_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"~nobody-here/c\.yaml"):
        load_config(environ={"EMBERD_CONFIG": "~nobody-here/c.yaml"})


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config=tmp_path / "none.yaml", environ={})

    assert str(tmp_path / "none.yaml") in caught.value.message
    assert "emberd config init" in (caught.value.hint or "")


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    config = load_config(environ={"EMBERD_HOME": str(tmp_path)})

    assert config.settings.default == "minilm"
    assert not list(tmp_path.iterdir())  # reading makes nothing
