"""What happens to a worker, and what a client sees of it: nothing, but some time."""

import asyncio
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest

from emberd.config.load import load_config
from emberd.errors import WorkerStartError
from emberd.pool.manager import Pool
from emberd.pool.process import WorkerProcess
from emberd.pool.request import EmbedRequest
from emberd.pool.watchdog import Patience
from emberd.worker import wire
from tests.faults.troubled import serve_troubled
from tests.load import numbered
from tests.serving import Server, clean_environ, wait_for

LONG = "words that take a while to embed " * 60


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_requests_are_answered(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(4) as threads:
        expected = own.embed(LONG)["embeddings"]
        (worker,) = own.workers()
        worker.suspend()

        answers = [threads.submit(own.embed, LONG) for _ in range(4)]  # 25 s: see `Patience.hung_s`

        for answer in answers:
            np.testing.assert_allclose(answer.result()["embeddings"], expected, atol=1e-3)
        assert not worker.is_running()
        assert own.row()["loads"] == 2
        assert "its worker hangs" in own.log()


@pytest.mark.slow
def test_a_worker_killed_while_it_drains_loses_no_answer(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(2) as threads:
        own.embed("load")
        (worker,) = own.workers()
        worker.suspend()
        busy = threads.submit(own.embed, *numbered(LONG, 60))
        wait_for(lambda: own.row()["in_flight"])
        unload = threads.submit(own.http.post, "/unload")
        wait_for(lambda: own.row()["state"] == "draining")

        os.kill(worker.pid, signal.SIGKILL)

        assert len(busy.result()["embeddings"]) == 60
        assert unload.result().status_code == 200


@pytest.mark.slow
def test_a_request_that_kills_its_worker_twice_fails_and_its_neighbours_do_not(home: Path) -> None:
    with serve_troubled(home) as own, ThreadPoolExecutor(8) as threads:

        def ask(*texts: str) -> httpx2.Response:
            return own.http.post("/embed", json={"texts": texts, "model": "troubled"})

        ask("load")
        good = [threads.submit(ask, f"harmless {n}", LONG) for n in range(3)]
        bad = threads.submit(ask, "poison", "other")
        more = [threads.submit(ask, f"harmless too {n}") for n in range(3)]

        assert (bad.result().status_code, bad.result().json()["code"]) == (500, "worker_crashed")
        assert {answer.result().status_code for answer in (*good, *more)} == {200}


def test_a_text_without_a_vector_fails_alone_and_is_named(home: Path) -> None:
    with serve_troubled(home) as own, ThreadPoolExecutor(4) as threads:

        def ask(*texts: str) -> httpx2.Response:
            return own.http.post("/embed", json={"texts": texts, "model": "troubled"})

        ask("load")
        good = [threads.submit(ask, f"harmless {n}", "also") for n in range(3)]
        bad = ask("harmless", "infinity", "as ever")

        assert (bad.status_code, bad.json()["code"]) == (500, "bad_vector")
        assert "text 1" in bad.json()["detail"]
        assert {answer.result().status_code for answer in good} == {200}
        assert own.row("troubled")["loads"] == 1


@pytest.mark.slow
def test_a_crash_loop_ends_is_explained_and_leaves_the_other_models_alone(home: Path) -> None:
    with serve_troubled(home) as own, ThreadPoolExecutor(1) as thread:
        (home / "dies").touch()

        def ask() -> httpx2.Response:
            return own.http.post("/embed", json={"texts": ["a"], "model": "troubled"})

        looping = thread.submit(ask)
        while not looping.done():
            own.embed("others go on")
        refused, again = looping.result(), ask()

        assert own.row()["loads"] == 1
        for answer in (refused, again):  # the second at once, without a start
            assert (answer.status_code, answer.json()["code"]) == (500, "worker_start")
            assert "died 5 times in a row while starting" in answer.json()["detail"]
            assert answer.json()["detail"].endswith("of SIGKILL.")
            assert "server's log" in answer.json()["hint"]
        assert re.search("[0-9]+ s[.]$", again.json()["hint"])
        row = own.row("troubled")
        assert (row["state"], row["last_error"]) == ("failed", refused.json()["detail"])
        assert b"died 5 times" in own.run("ps").stdout


class Stopped:
    """Spawns real workers; the first ones are stopped as soon as they are there."""

    def __init__(self, stops: int) -> None:
        self._stops = stops
        self.stopped: list[psutil.Process] = []

    async def spawn(self, start: wire.Start) -> WorkerProcess:
        """Stand in for `WorkerProcess.spawn`."""
        worker = await WorkerProcess.spawn(start)
        if len(self.stopped) < self._stops:
            process = psutil.Process(worker.pid)
            process.suspend()
            self.stopped.append(process)
        return worker


def impatient_pool(home: Path, workers: Stopped) -> Pool:
    config = load_config(environ=clean_environ(home))
    patience = Patience(stall_s=5, check_s=1, max_backoff_s=0.1)
    return Pool(config, spawn=workers.spawn, patience=patience)


@pytest.mark.slow
def test_a_start_that_stands_still_is_made_again_and_nobody_notices(home: Path) -> None:
    async def story() -> None:
        workers = Stopped(1)
        async with impatient_pool(home, workers) as pool:
            asked = (pool.embed(EmbedRequest(texts=[f"text {n}"])) for n in range(3))
            answers = await asyncio.gather(*asked)

            assert all(len(answer.fragments) == 1 for answer in answers)
            assert pool.status().loads == 1
        assert not workers.stopped[0].is_running()

    asyncio.run(story())


@pytest.mark.slow
def test_a_start_that_stands_still_twice_is_given_up_and_the_next_one_serves(home: Path) -> None:
    async def story() -> None:
        workers = Stopped(2)
        async with impatient_pool(home, workers) as pool:
            with pytest.raises(WorkerStartError):
                await pool.embed(EmbedRequest(texts=["a"]))
            assert pool.status().state == "failed"
            await asyncio.sleep(0.2)  # max_backoff_s
            assert (await pool.embed(EmbedRequest(texts=["a"]))).fragments
        assert not any(process.is_running() for process in workers.stopped)

    asyncio.run(story())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="limits of another process: Linux")
def test_a_worker_out_of_memory_is_replaced_and_its_requests_are_answered(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(4) as threads:
        texts = numbered(LONG, 10)
        expected = own.embed(*texts)["embeddings"]
        own.http.post("/unload")
        own.embed("a short text has taken little memory")
        (worker,) = own.workers()
        worker.rlimit(psutil.RLIMIT_AS, (2**20, 2**20))  # it has more already: no byte is added

        answers = [threads.submit(own.embed, *texts) for _ in range(4)]

        for answer in answers:
            np.testing.assert_allclose(answer.result()["embeddings"], expected, atol=1e-3)
        assert not worker.is_running()
        assert own.row()["loads"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="limits of another process: Linux")
@pytest.mark.parametrize("mebibytes", [60, 200, 500])
def test_too_little_memory_to_start_is_got_over(home: Path, mebibytes: int) -> None:
    """What fails first depends on the moment: an import, a library, an allocation, the process."""
    with Server(home) as own, ThreadPoolExecutor(1) as thread:
        first = thread.submit(own.http.post, "/embed", json={"texts": ["a"]})
        worker = wait_for(lambda: next(iter(own.workers()), None))
        worker.rlimit(psutil.RLIMIT_AS, (mebibytes * 2**20,) * 2)

        answer = first.result()

        if answer.status_code != 200:
            assert answer.status_code == 500
            assert answer.json()["code"] in ("model_load_failed", "backend_broken", "worker_start")
            assert answer.json()["hint"]
        wait_for(lambda: own.http.post("/embed", json={"texts": ["a"]}).status_code == 200)
