"""One home with stores for the tests here."""

from pathlib import Path

import pytest

from emberd.config.load import Config, load_config
from emberd.vectors import Matrix
from tests.atlas.maps import make_home
from tests.serving import clean_environ


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Matrix]]:
    """The home, and the vectors by each model."""
    home = tmp_path_factory.mktemp("maps")
    return home, make_home(home)


@pytest.fixture(scope="session")
def config(made: tuple[Path, dict[str, Matrix]]) -> Config:
    """Its configuration."""
    return load_config(environ=clean_environ(made[0]))
