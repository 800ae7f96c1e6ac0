"""Checking a config file's models and stores against what is installed, by file, line and key."""

import re
from pathlib import Path

import pytest

from emberd.config.load import Config, load_config
from emberd.doctor.entries import check_models, check_stores
from emberd.errors import ConfigError
from tests.folders import POOLING, Folder

MINE = "models:\n  mine: {sources: [{path: mine}], dimensions: 64, pooling: mean"


def config_of(home: Path, text: str) -> Config:
    (home / "config.yaml").write_text(text)
    return load_config(environ={"EMBERD_HOME": str(home), "HF_HOME": str(home / "hub")})


@pytest.mark.parametrize(
    ("text", "place", "named"),
    [
        ("models:\n  mpnet:\n    backend: abacus\n", "3: models.mpnet.backend: ", "abacus"),
        (f"{MINE}}}\n", "2: models.mine.sources: ", "/mine"),
        ("models:\n  minilm:\n    max_tokens: 513\n", "3: models.minilm.max_tokens: ", "512"),
    ],
)
def test_a_model_that_could_not_be_loaded_is_named(
    tmp_path: Path, text: str, place: str, named: str
) -> None:
    config = config_of(tmp_path, text)

    with pytest.raises(ConfigError, match=re.escape(f"config.yaml:{place}")) as caught:
        check_models(config)
    assert named in caught.value.message


def test_pooling_that_the_files_contradict_is_named(tmp_path: Path) -> None:
    Folder(files={POOLING: {"pooling_mode": "cls"}}).write(tmp_path / "mine")
    config = config_of(tmp_path, f"{MINE}}}\n")

    with pytest.raises(ConfigError, match=r"config.yaml:2: models.mine.pooling: mean.* cls"):
        check_models(config)


def test_a_model_that_has_yet_to_be_downloaded_has_nothing_to_check(tmp_path: Path) -> None:
    assert check_models(config_of(tmp_path, "models:\n  mpnet: {pinned: true}\n")) == []


@pytest.mark.parametrize(
    ("wrong", "key", "hint"),
    [("kind: cmen", "kind", "cmem, llm, sqlite-vec"), ("model: minlm", "model", "minilm")],
)
def test_a_store_that_could_not_be_opened_is_named(
    tmp_path: Path, wrong: str, key: str, hint: str
) -> None:
    config = config_of(tmp_path, f"stores:\n  notes:\n    path: notes\n    {wrong}\n")

    with pytest.raises(ConfigError, match=rf"config.yaml:4: stores.notes.{key}: ") as caught:
        check_stores(config)
    assert hint in (caught.value.hint or "")
