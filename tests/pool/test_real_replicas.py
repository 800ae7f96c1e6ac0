"""Two real workers for one model, over real HTTP; one is killed in the midst of work."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.backends.conformance import check_backend
from emberd.backends.tiny_bert import TINY_DIMENSIONS, tiny_bert
from emberd.config.environment import TOKENIZER_THREADS, cores
from tests.pool.two_devices import CONFIG, OneDeviceAProcess, TwoDevices, install
from tests.serving import Server, wait_for

CORES = cores()
TEXTS = [f"text {number} " + "and so on " * (number % 17) for number in range(300)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model has a worker on each of two devices."""
    home = tmp_path_factory.mktemp("replicas")
    tiny_bert(home / "tiny")
    config = CONFIG.format(folder=home / "tiny", replicas="auto")
    with Server(home, config=config, environ=install(home / "plugins")) as own:
        yield own


def both_ready(own: Server) -> dict[str, Any] | None:
    """Return the model's row once both workers are ready."""
    row = own.row("tiny")
    return row if row["replicas"] == 2 else None


def test_a_second_worker_starts_beside_the_first_and_all_have_one_space(own: Server) -> None:
    fingerprint = own.embed("load")["fingerprint"]
    row = wait_for(lambda: both_ready(own))

    assert sorted(row["pids"]) == sorted(process.pid for process in own.workers())
    assert row["pid"] == row["pids"][0]
    assert (row["state"], row["notes"], row["fingerprint"]) == ("ready", [], fingerprint)

    def memory_is_told() -> bool:
        memory = sum(process.memory_info().rss for process in own.workers())
        return bool(own.row("tiny")["memory_bytes"] == pytest.approx(memory, rel=0.1))

    wait_for(memory_is_told)  # they may still grow between the two readings
    assert 'emberd_ready_workers{model="tiny"} 2.0' in own.http.get("/metrics").text
    assert "two-devices f32 x 2" in own.run("ps").stdout.decode()


def test_each_worker_gives_the_same_vectors(own: Server) -> None:
    expected = np.array(own.embed(*TEXTS)["embeddings"])
    wait_for(lambda: both_ready(own))

    with ThreadPoolExecutor(8) as threads:
        alone = list(threads.map(lambda text: own.embed(text)["embeddings"][0], TEXTS[:60]))

    assert (np.array(alone) * expected[:60]).sum(axis=1).min() > 0.9999


@pytest.mark.skipif(CORES < 2, reason="one core cannot be shared")
def test_workers_beside_each_other_tokenize_on_their_share_of_the_cores(
    own: Server, tmp_path: Path
) -> None:
    def threads(server: Server) -> list[int]:
        """Return how many each worker has, once both have tokenized."""
        wait_for(lambda: both_ready(server))
        server.embed(*TEXTS)  # so many are divided among them
        return [process.num_threads() for process in server.workers()]

    config = CONFIG.format(folder=own.home / "tiny", replicas="auto")
    all_cores = install(tmp_path / "plugins") | {TOKENIZER_THREADS: str(CORES)}
    own.embed("load")
    with Server(tmp_path, config=config, environ=all_cores) as other:
        other.embed("load")

        wait_for(lambda: sum(threads(other)) - sum(threads(own)) == 2 * (CORES - CORES // 2))


def test_no_client_sees_that_a_worker_was_killed_under_load(own: Server) -> None:
    expected = np.array(own.embed(*TEXTS)["embeddings"])
    row = wait_for(lambda: both_ready(own))

    def ask(first: int) -> float:
        texts = TEXTS[first:] + TEXTS[:first]
        found = np.array(own.embed(*texts)["embeddings"])
        return float((np.roll(found, first, axis=0) * expected).sum(axis=1).min())

    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask, 7 * number) for number in range(40)]
        wait_for(lambda: own.row("tiny")["in_flight"])
        victim = next(process for process in own.workers() if process.pid == row["pids"][1])
        victim.send_signal(signal.SIGKILL)
        assert min(asked.result() for asked in asking) > 0.9999

    after = wait_for(lambda: both_ready(own))
    assert after["pids"][0] == row["pids"][0]  # the other one has gone on
    assert after["pids"][1] != row["pids"][1]
    assert "tiny (replica 2): its worker died (SIGKILL)" in own.log()


def test_an_unload_ends_both_and_another_number_counts_from_the_next_request(own: Server) -> None:
    own.embed("load")
    wait_for(lambda: both_ready(own))
    own.http.post("/unload")
    assert own.workers() == []

    config = own.home / "config.yaml"
    config.write_text(CONFIG.format(folder=own.home / "tiny", replicas=1))
    own.http.post("/reload")
    own.embed("load")

    assert own.row("tiny")["replicas"] == len(own.workers()) == 1
    config.write_text(CONFIG.format(folder=own.home / "tiny", replicas=2))
    own.http.post("/reload")
    own.embed("load")
    wait_for(lambda: both_ready(own))


def test_a_backend_with_devices_keeps_its_promises(tmp_path: Path) -> None:
    tiny_bert(tmp_path)

    check_backend(TwoDevices(), tmp_path, dimensions=TINY_DIMENSIONS, pooling="mean")


def test_devices_are_compared_also_where_a_process_can_have_only_one(tmp_path: Path) -> None:
    tiny_bert(tmp_path)

    with pytest.raises(AssertionError, match="every one of `devices` gives the same vectors"):
        check_backend(OneDeviceAProcess(), tmp_path, dimensions=TINY_DIMENSIONS, pooling="mean")
