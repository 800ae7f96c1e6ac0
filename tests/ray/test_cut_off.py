"""A node that is cut off, and a head that has died: what clients get then.

These have a cluster of their own, of which nothing is left. Its HTTP proxy and its ingress are on
the head, so that a client is not cut off as well.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.ports import free_port
from tests.ray.busy import ASKERS, busy, by_client, by_http, vectors_of
from tests.ray.clusters import Cluster, Served
from tests.ray.conftest import INGRESS, TWO
from tests.serving import Server, wait_for

CONFIG = """
default: tiny
models:
  tiny: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean, pinned: true}}
"""
ENDS_AFTER_S = 20
ENVIRON = {
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": str(ENDS_AFTER_S),
}
WITHIN_S = 180.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that notice sooner than usual."""
    home = tmp_path_factory.mktemp("cut")
    with Cluster(home, "head", "one", "two", environ=ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Served]:
    """A replica of `tiny` on two of the nodes."""
    tiny_bert(cluster.home / "tiny")
    change: dict[str, dict[str, Any]] = {
        INGRESS: {"ray_actor_options": {"num_cpus": 0.1, "resources": {"head": 0.01}}},
        "tiny": {"autoscaling_config": TWO, "max_replicas_per_node": 1},
    }
    with Served(cluster, free_port()) as served:
        config = CONFIG.format(folder=cluster.home / "tiny")
        said = served.deploy(config, change=change, proxy_location="HeadOnly")
        assert said["state"] == "RUNNING", said
        yield served


def test_a_node_is_cut_off_and_its_requests_are_answered_elsewhere(served: Served) -> None:
    wait_for(lambda: served.cluster.running("tiny") == 2, within_s=WITHIN_S)
    node = next(name for name in served.cluster("nodes_of", "tiny") if name != "head")

    with busy(
        [by_http(served.url, "tiny") for _ in range(ASKERS)], vectors_of(served, "tiny")
    ) as it:
        wait_for(lambda: it.right > 20, within_s=WITHIN_S)
        served.cluster("suspend_node", node)
        wait_for(lambda: node not in served.cluster("nodes_of", "tiny"), within_s=WITHIN_S)
        after = it.right
        wait_for(lambda: it.right > after + 20, within_s=WITHIN_S)
    served.cluster("kill_node", node)

    print(f"{node} was cut off: {it.right} right, the slowest after {it.slowest_s:.1f} s")  # noqa: T201
    assert (it.wrong, dict(it.failed)) == (0, {})


def test_the_head_dies_and_a_client_with_another_address_goes_on(
    served: Served, tmp_path: Path
) -> None:
    """Answers go on for a while; then all of the cluster ends, and another server answers."""
    config = CONFIG.format(folder=served.home / "tiny")
    with Server(tmp_path / "home", config=config) as alone:
        right = vectors_of(served, "tiny")
        with (
            busy([by_http(served.url, "tiny")], right) as plain,
            busy([by_client([served.url, alone.url], "tiny") for _ in range(2)], right) as ours,
        ):
            wait_for(lambda: plain.right > 20, within_s=WITHIN_S)
            served.cluster("kill_heads_store")
            before = plain.right
            wait_for(lambda: plain.right > before + 20, within_s=WITHIN_S)
            wait_for(lambda: plain.failed, within_s=WITHIN_S)
            before = ours.right
            wait_for(lambda: ours.right > before + 20, within_s=WITHIN_S)

    assert (plain.wrong, ours.wrong, dict(ours.failed)) == (0, 0, {})
