"""Mapped files: what was read of them does not stay in memory."""

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from emberd.backends.mapped import Scratch, is_mapped, map_file, release, released_meanwhile
from emberd.backends.openvino.backend import OpenVINOBackend
from tests import disk
from tests.backends.support import a_request, batch_of

SIZE = 64 * 2**20


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"emberd.." * (SIZE // 8))
    return path


def test_a_file_that_was_read_is_given_back_and_can_be_read_again(file: Path) -> None:
    pages = map_file(file)
    assert pages[:].count(b"emberd..") == SIZE // 8
    read = memory()

    release(pages)

    assert read - memory() > SIZE * 0.8
    assert pages[-8:] == b"emberd.."


def test_only_a_part_can_be_given_back(file: Path) -> None:
    pages = map_file(file)
    assert pages[:].count(b"emberd..") == SIZE // 8
    before = memory()

    release(pages, SIZE // 2, SIZE)

    assert SIZE * 0.4 < before - memory() < SIZE * 0.6


def test_numbers_in_a_scratch_file_are_the_same_and_leave_nothing_behind(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "new")
    values = np.arange(SIZE // 4, dtype=np.float32).reshape(-1, 1024)
    kept = scratch.put(values[::2])
    kept_bytes = kept.nbytes
    assert (kept == values[::2]).all()
    read = memory()

    scratch.release()

    assert read - memory() > kept_bytes * 0.8
    assert is_mapped(kept)
    assert is_mapped(kept[5:9].view(np.uint16))
    assert not is_mapped(values)
    assert (kept == values[::2]).all()
    assert not list((tmp_path / "new").iterdir())


def test_numbers_that_cannot_be_written_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = np.ones((2, 2), np.float32)

    assert Scratch(tmp_path / "file" / "folder").put(values) is values


def test_two_thirds_of_a_disk_are_left_for_what_will_be_written(tmp_path: Path) -> None:
    values = np.ones(2**20, np.uint8)
    try:
        with disk.mounted(tmp_path / "disk", size_mib=8) as folder:
            scratch = Scratch(folder)
            kept = [is_mapped(scratch.put(values)) for _ in range(8)]
            free = shutil.disk_usage(folder).free
    except disk.CannotMountError as error:
        pytest.skip(str(error))

    assert kept == sorted(kept, reverse=True)
    assert 1 <= kept.count(True) <= 3
    assert free >= 5 * 2**20


def test_pages_are_given_back_while_the_body_runs_and_at_its_end() -> None:
    calls = 0
    several = threading.Event()

    def give_back() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            several.set()

    with released_meanwhile(give_back):
        assert several.wait(60)

    assert calls >= 4
    assert not [each for each in threading.enumerate() if each.name == "giving pages back"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which pages are resident")
@pytest.mark.parametrize("load", ["the first", "another"])
def test_the_file_of_a_loaded_model_is_not_in_memory(
    load: str, minilm: Path, tmp_path: Path
) -> None:
    request = a_request(minilm, tmp_path)
    if load == "another":
        OpenVINOBackend().load(request)

    encoder = OpenVINOBackend().load(request)

    (blob,) = tmp_path.rglob("*.blob")
    maps = psutil.Process().memory_maps(grouped=False)
    assert sum(each.rss for each in maps if each.path == str(blob)) < 0.1 * blob.stat().st_size
    assert len(encoder.encode(*batch_of([101, 2000, 102]))) == 1
