"""The Serve config of a cluster, from emberd's own: what `emberd ray config` prints.

The whole of emberd's configuration travels in it, so nodes need no config file.
"""

from datetime import UTC, datetime
from typing import Any

from emberd.config.load import Config
from emberd.ray.configuration import check_token, document_of, of_cluster
from emberd.ray.scale import INGRESS, ingress_options, model_options

SHOWN = ("num_replicas", "autoscaling_config", "max_ongoing_requests", "ray_actor_options")
"""What people change: how many replicas there are, and what each takes."""


def serve_document(config: Config, *, ingresses: int, cpus: float, gpus: float) -> dict[str, Any]:
    """Return what `serve deploy` takes, as plain data.

    Args:
        config: that of this machine.
        ingresses: replicas of the HTTP app, each best on a node of its own.
        cpus: cores that Ray sets aside for each replica of a model.
        gpus: GPUs for each.

    Raises:
        ConfigError: everybody on the network could use it.
    """
    cluster = of_cluster(config)
    server = config.settings.server
    check_token(cluster, server.host)
    takes = {"num_cpus": cpus} | ({"num_gpus": gpus} if gpus else {})
    models = [
        {
            "name": spec.name,
            **_shown(model_options(cluster, spec) | {"ray_actor_options": {**takes}}),
        }
        for spec in cluster.catalog
    ]
    printed = datetime.now(UTC).isoformat(timespec="seconds")
    front = _shown(ingress_options(cluster) | {"num_replicas": ingresses})
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": server.host, "port": server.port or 8000},
        "applications": [
            {
                "name": "emberd",
                "route_prefix": "/",
                "import_path": "emberd.ray:app",
                # Serve takes a file whose arguments are as before for the same application, whose
                # vectors were decided (`agreement`), so whoever prints it anew can begin anew.
                "args": {"config": document_of(cluster), "printed": printed},
                "deployments": [{"name": INGRESS, **front}, *models],
            }
        ],
    }


def _shown(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in SHOWN if key in options}
