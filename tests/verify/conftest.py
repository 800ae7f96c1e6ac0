"""What the tests of verify and of its acceptance share."""

from pathlib import Path

import pytest

from emberd.config.load import Config, load_config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The defaults, with a home of its own."""
    return load_config(environ={"EMBERD_HOME": str(tmp_path)})
