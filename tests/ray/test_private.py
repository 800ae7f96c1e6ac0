"""What a cluster keeps to itself: its dashboard, its use, and who may tell it what to do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.ports import free_port
from tests.ray.clusters import Cluster, Served


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node with a dashboard, which the others have no use for."""
    with Cluster(tmp_path_factory.mktemp("private"), "head", "--dashboard") as running:
        yield running


def test_the_dashboard_is_on_loopback_and_usage_is_told_to_nobody(cluster: Cluster) -> None:
    said = cluster("listening")

    assert urlsplit(f"//{said['dashboard']}").hostname in ("127.0.0.1", "localhost")
    assert said["usage"] is False


def test_an_ingress_whose_node_has_no_token_does_not_start(cluster: Cluster) -> None:
    """Whoever printed the file had one."""
    tiny_bert(cluster.home / "tiny")
    tiny = f"{{sources: [{{path: {cluster.home / 'tiny'}}}], dimensions: 64, pooling: mean}}"
    config = f"default: tiny\nmodels: {{tiny: {tiny}}}\n"
    environ = {"EMBERD_TOKEN": "a-token-of-this-shell"}
    with Served(cluster, free_port()) as served:
        # On loopback, too, but not by a name that everybody knows for it.
        said = served.deploy(config, server=", host: 127.0.0.2", environ=environ)

    assert said["state"] == "DEPLOY_FAILED"
    assert "The app would listen on 127.0.0.2, and no token is set" in json.dumps(said)


def test_nobody_joins_without_the_token(cluster: Cluster) -> None:
    address = cluster("listening")["gcs"]
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('joined')"

    def join(**environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**cluster.environ, **environ},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout + done.stderr

    assert "joined" not in join(RAY_AUTH_TOKEN="another")  # noqa: S106 - not a secret
    assert "joined" in join()
