"""Every store that follows the default is checked for what a stopped `use --migrate` left."""

from pathlib import Path

import numpy as np
import pytest

from emberd.config.load import Config, load_config
from emberd.errors import StoreError
from emberd.switch.moves import open_followers
from emberd.switch.recovery import recover
from tests.migrate import stores


@pytest.fixture
def home(tmp_path: Path) -> Path:
    stores.make_cmem(tmp_path / "notes", ["text"], np.ones((1, 384), "<f4"))
    return tmp_path


def config_of(home: Path, text: str) -> Config:
    (home / "config.yaml").write_text(text)
    return load_config(environ={"EMBERD_HOME": str(home)})


def test_without_stores_there_is_nothing_to_recover(tmp_path: Path) -> None:
    found = recover(load_config(environ={"EMBERD_HOME": str(tmp_path)}), strict=True)

    assert (found.done, found.unreadable) == ([], {})


def test_a_store_that_cannot_be_read_is_named_or_stops_it(home: Path) -> None:
    config = config_of(home, "stores: {notes: {path: notes}, gone: {path: gone}}\n")

    found = recover(config, strict=False)
    assert (found.done, list(found.unreadable)) == ([], ["gone"])

    with pytest.raises(StoreError, match="gone"):
        recover(config, strict=True)


def test_a_store_that_names_its_model_does_not_follow_the_default(home: Path) -> None:
    config = config_of(home, "stores: {gone: {path: gone, model: minilm}}\n")

    assert recover(config, strict=True).done == []
    assert open_followers(config) == []


def test_two_stores_in_one_file_are_refused(home: Path) -> None:
    config = config_of(home, "stores: {a: {path: notes}, b: {path: notes}}\n")

    with pytest.raises(StoreError, match="a and b"):
        open_followers(config)
