"""One cluster for all tests of this folder: it takes longer to start than anything else here."""

from collections.abc import Iterator
from typing import Any

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests import rerankers
from tests.ports import free_port
from tests.ray.clusters import Cluster, Served
from tests.serving import Server, wait_for

MODELS = """
default_reranker: ranks
models:
  bge-small: {{}}
  bge-small-f32: {{}}
  granite-278m-multilingual: {{}}
  minilm-f32: {{}}
  mpnet: {{}}
  mpnet-f32: {{}}
  nomic-embed: {{}}
  arctic-l-v2: {{}}
  ranks: {{kind: rerank, pooling: cls, compute: f32, sources: [{{path: {ranks}}}]}}
  odd: {{sources: [{{path: {home}/odd}}], dimensions: 64, pooling: mean, pinned: true}}
  tiny:
    {{sources: [{{path: {home}/tiny}}], dimensions: 64, pooling: mean, replicas: 3, pinned: true}}
  short:
    {{sources: [{{path: {home}/tiny}}], dimensions: 64, pooling: cls, replicas: 2, idle_unload: 3s}}
"""
OPTIONS = ("--ingresses", "2", "--cpus", "0.5")
INGRESS = "emberd-ingress"
TWO = {"min_replicas": 2, "initial_replicas": 2, "max_replicas": 2}
CHANGES: dict[str, dict[str, Any]] = {
    INGRESS: {
        "max_replicas_per_node": 1,
        "ray_actor_options": {"num_cpus": 0.1, "resources": {"front": 0.1}},
    },
    "tiny": {"autoscaling_config": TWO},
    "short": {
        "autoscaling_config": {
            "min_replicas": 0,
            "initial_replicas": 0,
            "max_replicas": 2,
            "target_ongoing_requests": 2,
            "upscale_delay_s": 1,
            "downscale_delay_s": 2,
            "downscale_to_zero_delay_s": 3,
            "look_back_period_s": 2,
            "metrics_interval_s": 1,
        }
    },
}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, of which the first is the head."""
    with Cluster(tmp_path_factory.mktemp("ray"), "head", "one", "two") as running:
        yield running


@pytest.fixture(scope="session")
def served(cluster: Cluster) -> Iterator[Served]:
    """The application, with an ingress on two nodes and two replicas of `tiny`."""
    for name in ("tiny", "odd"):
        tiny_bert(cluster.home / name)
    with Served(cluster, free_port()) as served:
        served.config = MODELS.format(ranks=rerankers.FOLDER, home=cluster.home)
        said = served.deploy(served.config, *OPTIONS, change=CHANGES)
        assert said["state"] == "RUNNING", said
        served.embed("a text that starts it")
        wait_for(lambda: {served.row()["state"] for _ in range(8)} == {"ready"})
        yield served


@pytest.fixture(scope="session")
def server(served: Served) -> Served:
    """What tests of the app ask, by the name that they know."""
    return served


@pytest.fixture
def address(cluster: Cluster) -> str:
    """Where the cluster is."""
    found: str = cluster("listening")["gcs"]
    return found


@pytest.fixture
def environ(cluster: Cluster, small: Server) -> dict[str, str]:
    """The environment of a command on a node, whose config file is that of `small`."""
    return {**cluster.environ, "EMBERD_CONFIG": str(small.home / "config.yaml")}
