"""A stopped download leaves half a file, which one process at a time continues."""

import fcntl
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from emberd.models.local import find_local, hub_repository
from emberd.registry.spec import Source
from tests import model_folder
from tests.hub import COMMIT, Hub
from tests.models.fetching import Fetcher
from tests.serving import wait_for

MINE = Source(hf="me/mine")
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Fetcher]]:
    files = {**model_folder.FILES, "model.safetensors": WEIGHTS}
    home = tmp_path_factory.mktemp("home")
    with Hub({"me/mine": files}) as hub, Fetcher(home, hub.url) as fetcher:
        yield hub, fetcher


@pytest.fixture
def hub(both: tuple[Hub, Fetcher]) -> Hub:
    """A Hub that has not been asked to continue anything."""
    both[0].resumed.clear()
    return both[0]


@pytest.fixture
def fetcher(both: tuple[Hub, Fetcher]) -> Fetcher:
    """A process that asks this Hub."""
    return both[1]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Where half of the weights would be; the folder is there."""
    blobs = hub_repository("me/mine", tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    return blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part"


def weights(hub_cache: Path) -> bytes:
    """Return what was downloaded."""
    folder = find_local(MINE, hub_cache)
    assert folder
    return (folder / "model.safetensors").read_bytes()


def test_half_a_file_is_continued(tmp_path: Path, part: Path, hub: Hub, fetcher: Fetcher) -> None:
    part.write_bytes(WEIGHTS[:1000])

    found = fetcher.fetch(tmp_path, MINE)

    assert found.error == ""
    assert hub.resumed == [1000]
    assert found.reports[0][0] == 1000  # it was there before
    assert weights(tmp_path) == WEIGHTS
    assert not part.exists()


def test_small_files_that_are_there_count_as_done(tmp_path: Path, fetcher: Fetcher) -> None:
    small = {name: model_folder.FILES[name] for name in ("config.json", "tokenizer.json")}
    model_folder.cache(tmp_path, "me/mine", COMMIT, files=small)

    reports = fetcher.fetch(tmp_path, MINE).reports

    assert reports[0][0] == sum(map(len, small.values()))
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1]


def test_a_whole_file_that_was_not_renamed_is_not_fetched_again(
    tmp_path: Path, part: Path, hub: Hub, fetcher: Fetcher
) -> None:
    part.write_bytes(WEIGHTS)
    hub.requests.clear()

    assert fetcher.fetch(tmp_path, MINE).error == ""
    assert "model.safetensors" not in hub.downloaded()
    assert weights(tmp_path) == WEIGHTS


def test_half_of_another_file_is_found_out_and_thrown_away(
    tmp_path: Path, part: Path, fetcher: Fetcher
) -> None:
    part.write_bytes(b"!" * 1000)

    assert "arrived with a different hash" in fetcher.fetch(tmp_path, MINE).error
    assert fetcher.fetch(tmp_path, MINE).error == ""
    assert weights(tmp_path) == WEIGHTS


def test_more_than_the_file_is_fetched_anew(tmp_path: Path, part: Path, fetcher: Fetcher) -> None:
    part.write_bytes(WEIGHTS + b"!")

    assert fetcher.fetch(tmp_path, MINE).error == ""
    assert weights(tmp_path) == WEIGHTS


@contextmanager
def fetching_elsewhere(part: Path) -> Iterator[IO[bytes]]:
    """Hold the lock of a `.part` as another process does; yield the file, to be added to."""
    with part.open("ab", buffering=0) as other, part.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield other
        fcntl.flock(lock, fcntl.LOCK_UN)


def wait_for_its_turn(fetcher: Fetcher, part: Path) -> None:
    """Return once the fetcher waits for the lock of that `.part`."""
    child, lock_file = psutil.Process(fetcher.pid), str(part.with_suffix(".lock"))
    wait_for(lambda: lock_file in [file.path for file in child.open_files()])


def test_what_another_process_added_before_it_was_stopped_counts(
    tmp_path: Path, part: Path, hub: Hub, fetcher: Fetcher
) -> None:
    with ThreadPoolExecutor(1) as thread, fetching_elsewhere(part) as other:
        other.write(WEIGHTS[:1000])
        found = thread.submit(fetcher.fetch, tmp_path, MINE)
        wait_for_its_turn(fetcher, part)
        other.write(WEIGHTS[1000:5000])

    assert found.result().error == ""
    assert hub.resumed == [5000]
    assert weights(tmp_path) == WEIGHTS


def test_what_another_process_finished_meanwhile_is_taken(
    tmp_path: Path, part: Path, hub: Hub, fetcher: Fetcher
) -> None:
    hub.requests.clear()
    with ThreadPoolExecutor(1) as thread, fetching_elsewhere(part) as other:
        found = thread.submit(fetcher.fetch, tmp_path, MINE)
        wait_for_its_turn(fetcher, part)
        other.write(WEIGHTS)
        part.rename(part.with_suffix(""))

    assert found.result().error == ""
    assert "model.safetensors" not in hub.downloaded()
    assert weights(tmp_path) == WEIGHTS
