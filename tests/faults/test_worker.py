"""What happens to a worker, and what a client sees of it: nothing, but some time."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.serving import Server, wait_for

LONG = "words that take a while to embed " * 60


def test_a_worker_that_hangs_is_killed_and_its_requests_are_answered(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(4) as threads:
        expected = own.embed(LONG)["embeddings"]
        (worker,) = own.workers()
        worker.suspend()

        answers = [threads.submit(own.embed, LONG) for _ in range(4)]  # 25 s: see HUNG_S

        for answer in answers:
            np.testing.assert_allclose(answer.result()["embeddings"], expected, atol=1e-3)
        assert not worker.is_running()
        assert own.row()["loads"] == 2
        assert "its worker hangs" in own.log()


def test_a_worker_killed_while_it_drains_loses_no_answer(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(2) as threads:
        own.embed("load")
        (worker,) = own.workers()
        busy = threads.submit(own.embed, *[LONG] * 60)
        wait_for(lambda: own.row()["in_flight"])
        unload = threads.submit(own.http.post, "/unload")
        wait_for(lambda: own.row()["state"] == "draining")

        os.kill(worker.pid, signal.SIGKILL)

        assert len(busy.result()["embeddings"]) == 60
        assert unload.result().status_code == 200
