"""Which replica a request goes to: by the hooks that Serve calls, and with Serve itself."""

import asyncio
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.config.environment import for_ray
from tests.ports import free_port
from tests.ray.clusters import Cluster, Served
from tests.ray.conftest import TWO
from tests.serving import wait_for

if TYPE_CHECKING:
    from emberd.ray.routing import LeastBusy

PLUGIN = '''"""An encoder that takes its time, and says in its vectors which process it is in."""

import os
import time

import numpy as np


class TellingBackend:
    files = ("config.json", "tokenizer.json", "model.safetensors")
    libraries = ("numpy",)

    def load(self, request):
        return TellingEncoder()


class TellingEncoder:
    compute = "f32"
    dimensions = 64

    def encode(self, token_ids, mask):
        time.sleep(0.01 * len(token_ids))
        rows = np.ones((len(token_ids), self.dimensions), np.float32)
        rows[:, 1] = os.getpid()
        return rows
'''
CONFIG = """
default: tells
models:
  tells:
    sources: [{{path: {folder}}}]
    dimensions: 64
    pooling: mean
    backend: telling
    replicas: 2
    pinned: true
"""
ASKERS, REQUESTS = 12, 25
TEXTS = ["a cat", "a dog", "a bird", "a mouse"]
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray's


@dataclass(frozen=True)
class Candidate:
    """What a router sees of a replica."""

    replica_id: str


CANDIDATES = [Candidate(name) for name in ("one", "two", "three")]


@pytest.fixture
def router() -> "LeastBusy":
    """The router without Serve around it, which has heard of all of them."""
    from ray.serve._private.request_router.common import ReplicaQueueLengthCache

    from emberd.ray.routing import LeastBusy

    class Alone(LeastBusy):
        def __init__(self) -> None:
            self.initialize_state()
            self._use_replica_queue_len_cache = False
            self._replica_queue_len_cache = ReplicaQueueLengthCache()
            for each in CANDIDATES:
                self._replica_queue_len_cache.update(each.replica_id, 0)

    return Alone()


async def choose(router: "LeastBusy") -> list[list[str]]:
    ranks = await router.choose_replicas(CANDIDATES)
    return [[replica.replica_id for replica in rank] for rank in ranks]


def order(router: "LeastBusy") -> list[str]:
    return [each for rank in asyncio.run(choose(router)) for each in rank]


def test_it_is_the_one_with_the_fewest_unanswered_then_the_next(router: "LeastBusy") -> None:
    for name in ("one", "one", "three"):
        router.on_send_request(name)

    assert order(router) == ["two", "three", "one"]


def test_a_burst_of_answers_and_of_new_requests_leaves_each_with_as_many(
    router: "LeastBusy",
) -> None:
    under_way: Counter[str] = Counter()
    for burst in range(20):
        while under_way.total() < 24:
            (first, *_) = order(router)
            router.on_send_request(first)
            under_way[first] += 1
        assert set(under_way.values()) == {8}
        ends = ("one", "two", "three")[burst % 3]  # its batch is done
        for number in range(under_way.pop(ends)):
            router.on_request_completed(ends, str(number))


def test_those_that_are_equal_take_turns(router: "LeastBusy") -> None:
    assert {order(router)[0] for _ in range(200)} == {"one", "two", "three"}


def test_several_that_are_chosen_for_before_any_is_sent_go_to_different_ones(
    router: "LeastBusy",
) -> None:
    async def six() -> list[str]:
        return [(await choose(router))[0][0] for _ in range(6)]

    assert Counter(asyncio.run(six())) == {"one": 2, "two": 2, "three": 2}


def test_a_choice_that_led_to_nothing_is_forgotten(router: "LeastBusy") -> None:
    from emberd.ray.routing import SOON_S

    async def first_after_a_while() -> str:
        for name in ("one", "three"):
            router.on_send_request(name)
        for _ in range(5):
            assert (await choose(router))[0][0]
        await asyncio.sleep(3 * SOON_S)
        return (await choose(router))[0][0]

    assert asyncio.run(first_after_a_while()) == "two"


def test_one_that_could_not_be_sent_leaves_no_trace(router: "LeastBusy") -> None:
    router.on_request_completed("two", "never sent")
    for name in ("one", "two", "two", "three"):
        router.on_send_request(name)

    assert order(router)[-1] == "two"


def test_who_is_silent_is_asked_beside_the_least_busy_and_is_waited_for_by_nobody(
    router: "LeastBusy",
) -> None:
    router.on_send_request("one")
    router.replica_queue_len_cache.invalidate_key("two")

    assert asyncio.run(choose(router)) == [["three", "two"], ["one"]]


def test_every_model_is_deployed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emberd.ray.routing import LeastBusy
    from emberd.ray.serve import app

    monkeypatch.setenv("EMBERD_HOME", str(tmp_path))
    config = {"default": "minilm", "models": {"minilm": {}, "mpnet": {}}}

    _, models = app({"config": config})._bound_deployment.init_args

    assert {*models} >= {"minilm", "mpnet"}
    for each in models.values():
        options = each._bound_deployment._deployment_config.request_router_config
        assert options.get_request_router_class() is LeastBusy


def install(plugins: Path) -> None:
    """Install the backend as `telling`."""
    about = plugins / "emberd_telling-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emberd-telling\nVersion: 1.0\n")
    entry = "[emberd.backends]\ntelling = emberd_telling:TellingBackend\n"
    (about / "entry_points.txt").write_text(entry)
    (plugins / "emberd_telling.py").write_text(PLUGIN)


def test_clients_that_never_pause_are_shared_equally(tmp_path: Path) -> None:
    """With Serve's own choice, behind HAProxy, many wait for one replica and the other is idle."""
    tiny_bert(tmp_path / "tiny")
    install(tmp_path / "plugins")
    path = os.pathsep.join([str(tmp_path / "plugins"), os.environ.get("PYTHONPATH", "")])
    environ = {**for_ray({}, haproxy=True), "PYTHONPATH": path.rstrip(os.pathsep)}
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a-token")
    ends: list[int] = []  # the replica of each answer, in their order
    before_me: list[int] = []

    def ask(client: httpx2.Client) -> None:
        for _ in range(REQUESTS):
            sent_at = len(ends)
            answer = client.post("/embed", json={"texts": TEXTS, "cache": False})
            one, process, *_ = answer.raise_for_status().json()["embeddings"][0]
            replica = round(process / one)
            before_me.append(ends[sent_at:].count(replica))
            ends.append(replica)

    with (
        Cluster(tmp_path / "home", "head", environ=environ) as cluster,
        Served(cluster, free_port()) as served,
    ):
        served.http.headers["Authorization"] = f"Bearer {token.read_text()}"
        config = CONFIG.format(folder=tmp_path / "tiny")
        said = served.deploy(
            config,
            environ=environ,
            change={"tells": {"autoscaling_config": TWO}},
            server=f", token_file: {token}",
        )
        assert said["state"] == "RUNNING", said
        wait_for(lambda: cluster.running("tells") == 2, within_s=120)
        with ThreadPoolExecutor(ASKERS) as threads:
            [*threads.map(ask, [served.http] * ASKERS)]

    assert len(ends) == ASKERS * REQUESTS and len({*ends}) == 2
    # Each waits for those who share its replica and began to wait before it. (Of 300, 4 to 7 waited
    # for more than this; with Serve's own choice 35 and more.)
    assert sorted(before_me)[len(before_me) * 95 // 100] <= ASKERS // 2 + 1, Counter(before_me)
