"""`emberd ray config`: a Serve config that holds emberd's whole configuration."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from emberd.config.load import load_config
from emberd.errors import ConfigError
from emberd.ray.configuration import cluster_config, of_cluster
from emberd.ray.document import serve_document
from tests.serving import clean_environ, run_emberd

CONFIG = """
server: {port: 9001}
aliases: {nickname: "bge-small:query"}
limits: {max_texts: 77, replicas: 3}
models:
  mine: {sources: [{path: models/mine}], dimensions: 64, pooling: mean, idle_unload: 2m}
  minilm: {pinned: true, replicas: 2}
"""


def printed(home: Path, *arguments: str, config: str = CONFIG) -> dict[str, Any]:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.yaml").write_text(config)
    done = run_emberd("ray", "config", *arguments, home=home)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = yaml.safe_load(done.stdout)
    return said


def scale_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the least and the most replicas of each deployment that is scaled."""
    deployments = document["applications"][0]["deployments"]
    return {
        each["name"]: (
            each["autoscaling_config"]["min_replicas"],
            each["autoscaling_config"]["max_replicas"],
        )
        for each in deployments
        if "autoscaling_config" in each
    }


def test_each_model_that_is_named_has_a_deployment_and_its_own_scale(home: Path) -> None:
    document = printed(home, "--ingresses", "2", "--gpus", "1")

    assert document["http_options"] == {"host": "127.0.0.1", "port": 9001}
    assert scale_of(document) == {
        "minilm": (1, 2),
        "mine": (0, 3),
        "bge-small": (0, 3),
        "ms-marco-minilm": (0, 3),
        "granite-sparse": (0, 3),
    }
    app = document["applications"][0]
    assert app["import_path"] == "emberd.ray:app"
    front, *models = app["deployments"]
    assert (front["name"], front["num_replicas"]) == ("emberd-ingress", 2)
    assert all(each["ray_actor_options"]["num_gpus"] == 1 for each in models)
    idle = {each["name"]: each["autoscaling_config"] for each in models}["mine"]
    assert idle["downscale_to_zero_delay_s"] == 120


def test_what_it_holds_gives_the_same_configuration_elsewhere(home: Path, tmp_path: Path) -> None:
    document = printed(home)
    here = of_cluster(load_config(environ=clean_environ(home)))

    there = cluster_config(document["applications"][0]["args"]["config"])

    assert {spec.name: spec for spec in there.catalog} == {spec.name: spec for spec in here.catalog}
    assert there.settings.limits.max_texts == 77
    assert there.catalog.find("nickname").role == "query"
    assert not there.settings.server.page
    assert pickle.loads(pickle.dumps(there)).catalog.get("mine").dimensions == 64  # noqa: S301


def test_a_cluster_does_not_answer_everybody(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "config.yaml").write_text("server: {host: 0.0.0.0}\n")
    config = load_config(environ=clean_environ(home))

    with pytest.raises(ConfigError, match="no token is set"):
        serve_document(config, ingresses=1, cpus=1, gpus=0)


def test_the_token_is_not_in_it(home: Path) -> None:
    home.mkdir(parents=True)
    environ = {**clean_environ(home), "EMBERD_TOKEN": "a-secret-of-this-test"}
    done = run_emberd("ray", "config", home=home, environ=environ)

    assert done.returncode == 0, done.stderr
    assert b"a-secret" not in done.stdout
