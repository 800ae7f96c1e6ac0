"""The shorter way in: HAProxy before the ingress, which takes a token then."""

import os
import signal
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest

import emberd
from emberd.backends.tiny_bert import tiny_bert
from emberd.config.environment import for_ray
from tests.ports import free_port
from tests.ray.clusters import Cluster, Served
from tests.ray.conftest import TWO
from tests.serving import wait_for

TOKEN = "a-token-of-this-test"  # noqa: S105
CONFIG = """
default: tiny
models:
  tiny: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean, pinned: true}}
"""
WITHIN_S = 180.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, whose environment is that of `emberd ray start --haproxy`."""
    environ = for_ray({}, haproxy=True)
    with Cluster(tmp_path_factory.mktemp("haproxy"), "head", environ=environ) as running:
        tiny_bert(running.home / "tiny")
        yield running


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Served]:
    """Nothing yet; Serve keeps the port that it is first told."""
    with Served(cluster, free_port()) as served:
        served.http.headers["Authorization"] = f"Bearer {TOKEN}"
        served.config = CONFIG.format(folder=cluster.home / "tiny")
        yield served


def test_without_a_token_the_app_does_not_start(served: Served) -> None:
    said = served.deploy(served.config)

    assert said["state"] == "DEPLOY_FAILED"
    assert "no token is set" in said["message"]


def test_it_answers_who_has_the_token_also_while_a_replica_is_killed(served: Served) -> None:
    file = served.home / "token"
    file.touch(mode=0o600)
    file.write_text(TOKEN)
    change = {"tiny": {"autoscaling_config": TWO}}
    said = served.deploy(served.config, change=change, server=f", token_file: {file}")
    assert said["state"] == "RUNNING", said
    assert httpx2.post(f"{served.url}/embed", json={"texts": ["a"]}).status_code == 401
    first = np.array(served.embed("a cat")["embeddings"])
    wait_for(lambda: len(served.cluster("replicas", "tiny")) == 2, within_s=WITHIN_S)

    with emberd.Client(served.url, token=TOKEN) as client:
        for number in range(200):
            if number == 50:
                os.kill(served.cluster("replicas", "tiny")[0], signal.SIGKILL)
            assert float(client.embed(["a cat"]).vectors[0] @ first[0]) > 0.9999
