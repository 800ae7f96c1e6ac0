"""`emberd ray`: a Serve config that holds emberd's whole configuration, and Ray kept private."""

import pickle
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from emberd.config.environment import show_ray_the_token
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


RAY = """#!/bin/sh
if [ "$1" = get-auth-token ]; then
  test -e "$HOME/.ray/auth_token" && exit 0
  test "$2" = --generate || exit 1
  mkdir -p "$HOME/.ray" && echo secret >"$HOME/.ray/auth_token"
  exit
fi
printf '%s\\n' "$RAY_AUTH_MODE" "$RAY_USAGE_STATS_ENABLED" "$@"
"""
START = """
import sys
sys.executable = sys.argv.pop(1)
from emberd.cli.main import main
main()
"""


def started(home: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run `emberd ray start` where Ray's program only says what it was told."""
    home.mkdir(parents=True, exist_ok=True)
    program = home / "ray"
    program.write_text(RAY)
    program.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", START, str(home / "python"), "ray", "start", *arguments],
        env=clean_environ(home) | {"HOME": str(home)} | environ,
        capture_output=True, text=True,
    )  # fmt: skip


def test_ray_is_started_with_a_token_its_dashboard_here_and_no_statistics(home: Path) -> None:
    told = started(home, "--head", "--port", "6400").stdout.splitlines()

    assert told == [
        "token", "0", "start", "--dashboard-host", "127.0.0.1", "--disable-usage-stats",
        "--head", "--port", "6400",
    ]  # fmt: skip
    assert (home / ".ray" / "auth_token").exists()


def test_a_node_that_joins_makes_no_token_of_its_own(home: Path) -> None:
    without = started(home, "--address", "first:6379")
    made = (home / ".ray" / "auth_token").exists()
    started(home, "--head")
    joined = started(home, "--address", "first:6379")
    open_to_all = started(home / "other", "--address", "first:6379", RAY_AUTH_MODE="disabled")

    assert (without.returncode, made) == (1, False)
    assert "Copy ~/.ray/auth_token from the first machine" in without.stderr
    assert joined.stdout.splitlines()[-2:] == ["--address", "first:6379"]
    assert open_to_all.stdout.splitlines()[0] == "disabled"


def test_a_token_that_is_here_is_shown_to_a_cluster(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    before: dict[str, str] = {}
    show_ray_the_token(before)
    started(home, "--head")
    after: dict[str, str] = {}
    show_ray_the_token(after)
    stated = {"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "disabled"}
    show_ray_the_token(stated)

    assert (before, after) == ({}, {"RAY_AUTH_MODE": "token"})
    assert stated["RAY_AUTH_MODE"] == "disabled"


def test_a_command_joins_no_cluster_but_where_it_says_so() -> None:
    """As for a thread that calls Ray once the command has left its cluster."""
    late = "from emberd.cli.cluster import require_ray; require_ray(); import ray; ray.put(1)"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, timeout=120)

    assert done.returncode == 1
    assert "Ray has not been started yet" in done.stderr


def test_each_config_that_is_printed_is_an_application_of_its_own(home: Path) -> None:
    args = printed(home)["applications"][0]["args"]

    assert set(args) == {"config", "printed"}
    assert datetime.fromisoformat(args["printed"]).tzinfo
