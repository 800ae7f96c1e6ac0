"""Who asks for tokens of long texts: keeps nobody else, can go, and outlives a worker."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import psutil
import pytest

from emberd import __version__
from emberd.registry.spec import ModelSpec, Source
from emberd.worker import wire
from tests.faults.tiny import TINY
from tests.security.test_sizes import most_bytes
from tests.serving import Server, clean_environ, wait_for

MIB = 2**20


def test_a_description_that_nobody_waits_for_is_given_up(home: Path) -> None:
    """The next one is answered first, and the other never: told by the frames of a worker."""
    spec = ModelSpec(name="mine", sources=(Source(path=str(TINY)),), dimensions=64, pooling="mean")
    start = wire.Start(
        version=__version__, spec=asdict(spec), hub=str(home), cache=str(home), lock=None
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "emberd.worker", "mine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environ(home),
    ) as worker:
        assert worker.stdin and worker.stdout  # pipes
        told = cast("BinaryIO", worker.stdout)
        worker.stdin.write(wire.encode(start))
        worker.stdin.flush()
        while not isinstance(next_frame(told), wire.Ready):
            pass
        for frame in (
            wire.Tokenize(id=1, texts=["中" * 999_999], prompt=""),
            wire.Cancel(id=1),
            wire.Tokenize(id=2, texts=["a"], prompt=""),
        ):
            worker.stdin.write(wire.encode(frame))
        worker.stdin.flush()

        while isinstance(answer := next_frame(told), wire.Audited):
            pass

        assert isinstance(answer, wire.Fragments)
        assert answer.id == 2
        worker.stdin.close()


def next_frame(stream: BinaryIO) -> wire.Frame:
    received = wire.read(stream)
    assert received
    return received.frame


@pytest.mark.slow
def test_who_stands_in_line_for_tokens_is_answered_however_often_the_worker_dies(
    home: Path,
) -> None:
    texts = ["中" * 400] * 250
    with Server(home) as own, ThreadPoolExecutor(9) as threads:
        own.embed("load")
        asked = [
            threads.submit(own.http.post, "/tokenize", json={"inputs": texts}) for _ in range(9)
        ]
        for _ in range(3):
            kill_at_work(own)

        answers = [each.result() for each in asked]
        assert [answer.status_code for answer in answers] == [200] * 9
        assert all(len(answer.json()) == 250 for answer in answers)
        assert all(len(answer.json()[7]) == 402 for answer in answers)


def kill_at_work(server: Server) -> None:
    """Kill the worker once it has worked for half a second, and wait for the next."""
    wait_for(lambda: server.row()["in_flight"])
    worker = psutil.Process(server.row()["pid"])
    before = worker.cpu_times().user
    wait_for(lambda: worker.cpu_times().user > before + 0.5)
    worker.kill()
    wait_for(lambda: server.row()["pid"] not in (None, worker.pid))
    wait_for(lambda: server.row()["state"] == "ready")


@pytest.mark.parametrize("special", [True, False])
def test_tokens_of_a_long_text_come_with_special_ones_at_its_ends_or_without(
    server: Server, special: bool
) -> None:
    body = {"inputs": ["中" * 50_000, "a b"], "add_special_tokens": special}

    long, short = server.http.post("/tokenize", json=body).json()

    assert len(long) == 50_000 + 2 * special
    assert len(short) == 2 + 2 * special
    assert [token["text"] for token in short if not token["special"]] == ["a", "b"]
    assert [token["start"] for token in long if not token["special"]] == list(range(50_000))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_a_word_of_megabytes_costs_a_worker_little_and_changes_no_vector(home: Path) -> None:
    with Server(home) as own:
        known = own.embed("a" * 200 + " tea", "tea")["embeddings"]
        (worker,) = own.workers()
        before = peak_bytes(worker.pid)

        found = own.embed("a" * 15_000_000 + " tea", "tea")

        assert np.allclose(found["embeddings"], known, atol=1e-5)
        assert found["truncated"] == []
        assert found["usage"]["tokens"] == 4 + 3
        assert peak_bytes(worker.pid) - before < 200 * MIB
        assert most_bytes(own) < 512 * MIB


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
