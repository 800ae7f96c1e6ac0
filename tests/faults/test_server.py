"""What happens to the server itself, and to its clock."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.load import numbered
from tests.serving import Server, has_ended, wait_for

LONG = "words that take a while to embed " * 60
DAY_S = 24 * 3600


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["nothing", "a batch", "its start"])
def test_a_killed_server_takes_its_workers_along_and_the_next_one_serves(
    home: Path, doing: str
) -> None:
    own = Server(home)
    with ThreadPoolExecutor(1) as thread:
        if doing != "its start":
            own.embed("load")
        if doing != "nothing":
            lost = thread.submit(own.http.post, "/embed", json={"texts": numbered(LONG, 500)})
            wait_for(lambda: own.workers() if doing == "its start" else own.row()["in_flight"])
        workers = own.workers()
        own.process.kill()
        own.process.wait()

        assert workers
        wait_for(lambda: all(map(has_ended, workers)))
        if doing != "nothing":
            assert isinstance(lost.exception(), httpx2.TransportError)
    own.http.close()
    (home / "server.log").unlink()
    with Server(home) as following:
        assert following.embed("again")["model"] == "minilm"
        assert "error" not in following.log()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped worker does not notice")
def test_a_killed_server_takes_a_stopped_worker_along(home: Path) -> None:
    own = Server(home)
    own.embed("load")
    (worker,) = own.workers()
    worker.suspend()

    own.process.kill()
    own.process.wait()

    wait_for(lambda: has_ended(worker))
    own.http.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="LD_PRELOAD and cc")
def test_a_clock_that_is_set_moves_no_deadline_and_ends_no_model(
    home: Path, tmp_path: Path
) -> None:
    shim, step = tmp_path / "clock.so", tmp_path / "step"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)  # noqa: S607
    environ = {"LD_PRELOAD": str(shim), "CLOCK_STEP": str(step)}
    limits = "limits: {idle_unload: 1h, request_timeout: 10m}"
    with Server(home, config=limits, environ=environ) as own, ThreadPoolExecutor(2) as threads:
        own.embed("load")
        for step_s in (DAY_S, -DAY_S):
            busy = threads.submit(own.embed, *numbered(LONG, 20))
            starting = threads.submit(own.embed, "starts meanwhile", model="minilm-f32")
            wait_for(lambda: own.row()["in_flight"])
            step.write_text(str(step_s))

            assert len(busy.result()["embeddings"]) == 20
            assert starting.result()["model"] == "minilm-f32"
            assert 3000 < own.row()["unloads_in_s"] <= 3600
            own.http.post("/unload", json={"model": "minilm-f32"})
        assert own.row()["loads"] == 1
        days = {line[9:19] for line in own.log().splitlines() if line.startswith('{"time"')}
        assert len(days) >= 3  # the log has the time of the day: it was set indeed
