"""What many tests share: one server with real MiniLM, left cold for nobody."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings; tests that kill, unload or configure start their own."""
    with Server(tmp_path_factory.mktemp("shared")) as running:
        yield running
    assert running.process.returncode == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty EMBERD_HOME."""
    return tmp_path / "home"
