"""Files that vanish, shrink or cannot be written under a running server."""

import os
import resource
import shutil
from pathlib import Path

import httpx2
import pytest

from tests import disk
from tests.faults.tiny import CONFIG, TINY
from tests.serving import Server, wait_for

pytestmark = pytest.mark.slow  # tests/backends/test_openvino.py has what a worker does by itself


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of one's own that a test may damage."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


def serve(home: Path, folder: Path, config: str = CONFIG) -> Server:
    return Server(home, config=config.format(folder=folder), share_compiled=False)


def ask(server: Server) -> httpx2.Response:
    return server.http.post("/embed", json={"texts": ["a"], "model": "tiny"})


def test_a_loaded_model_does_not_mind_that_its_files_are_deleted(home: Path, folder: Path) -> None:
    with serve(home, folder) as own:
        before = ask(own).json()["embeddings"]
        shutil.rmtree(folder)
        shutil.rmtree(home / "cache")

        assert ask(own).json()["embeddings"] == before


def test_a_deleted_model_is_a_clear_error_at_its_next_start_and_the_others_run(
    home: Path, folder: Path
) -> None:
    with serve(home, folder) as own:
        ask(own)
        shutil.rmtree(folder)
        own.http.post("/unload")

        refused = ask(own)

        assert refused.status_code == 503
        assert str(folder) in refused.json()["detail"]
        own.embed("text")  # another model


@pytest.mark.parametrize("size", [0, 7, 1000, -100])
def test_truncated_weights_are_a_clear_error_at_the_next_start(
    home: Path, folder: Path, size: int
) -> None:
    with serve(home, folder) as own:
        weights = folder / "model.safetensors"
        before = ask(own).json()["embeddings"]
        whole = weights.read_bytes()
        os.truncate(weights, size if size >= 0 else len(whole) + size)
        own.http.post("/unload")

        refused = ask(own)

        assert (refused.status_code, refused.json()["code"]) == (500, "model_load_failed")
        assert "model.safetensors" in refused.json()["detail"]
        assert refused.json()["hint"]
        weights.write_bytes(whole)
        wait_for(lambda: ask(own).status_code == 200, within_s=30)  # nobody lends a hand
        assert ask(own).json()["embeddings"] == before
        assert "Traceback" not in own.log()


def test_a_cached_graph_that_shrinks_under_its_worker_costs_no_answer(
    home: Path, folder: Path
) -> None:
    """Reading a mapped page behind the end of a file kills the process (SIGBUS)."""
    with serve(home, folder) as own:
        before = ask(own).json()["embeddings"]
        own.http.post("/unload")
        own.http.post("/load", json={"model": "tiny"})
        for blob in (home / "cache").rglob("*.blob"):
            os.truncate(blob, 100)

        for _ in range(3):
            assert ask(own).json()["embeddings"] == before
        own.http.post("/unload")
        assert ask(own).json()["embeddings"] == before


@pytest.mark.parametrize("damage", ["cut", "deleted", "damaged"])
def test_a_cached_graph_that_is_lost_is_made_again(home: Path, folder: Path, damage: str) -> None:
    with serve(home, folder) as own:
        before = ask(own).json()["embeddings"]
        own.http.post("/unload")
        (blob,) = (home / "cache").rglob("*.blob")
        whole = blob.read_bytes()
        if damage == "deleted":
            blob.unlink()
        else:
            blob.write_bytes(whole[:100] if damage == "cut" else b"!" * len(whole))

        assert ask(own).json()["embeddings"] == before
        own.http.post("/unload")
        assert ask(own).json()["embeddings"] == before  # from the one that was made again
        assert len(list((home / "cache").rglob("*.blob"))) == 1


def test_a_full_disk_for_the_cache_costs_nothing_but_time(home: Path, folder: Path) -> None:
    """No file may grow over 64 KiB: EFBIG where a full disk gives ENOSPC."""
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}  # or Python leaves halves of its own cache files
    full = {resource.RLIMIT_FSIZE: 65536}
    config = CONFIG.format(folder=folder)
    with Server(home, config=config, rlimits=full, environ=environ, share_compiled=False) as own:
        before = ask(own).json()["embeddings"]
        own.http.post("/unload")

        assert ask(own).json()["embeddings"] == before
        assert "compiled model cannot be written" in own.log()
        assert not list((home / "cache").rglob("*.blob"))
        assert not list((home / "cache").rglob("*.part"))


def test_a_disk_that_fills_up_under_a_running_server_costs_no_answer(
    home: Path, folder: Path
) -> None:
    """Caches, lock and log are on it."""
    try:
        with disk.mounted(home, 1) as small:
            log = f"log: {{{{file: {home / 'emberd.log'}}}}}\n"
            with serve(home, folder, CONFIG + log) as own:
                hog = disk.fill(small)

                before = ask(own).json()["embeddings"]
                own.http.post("/unload")
                assert ask(own).json()["embeddings"] == before

                hog.unlink()
                own.http.post("/unload")
                assert ask(own).json()["embeddings"] == before
                assert own.row("tiny")["pulled"]  # the lock is written again
    except disk.CannotMountError as error:
        pytest.skip(str(error))
