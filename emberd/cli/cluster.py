"""`--ray ADDRESS`: the commands whose work the nodes of a Ray cluster can share."""

from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from emberd.config.environment import join_ray_when_told, show_ray_the_token
from emberd.errors import BadOptionError
from emberd.installing import pip

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.migrate.embedding import Embedder

RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Divide the work among the nodes of a Ray cluster."
    ),
]


def require_ray() -> None:
    """Set what Ray reads when it is imported. Raises BadOptionError: it is not installed."""
    if find_spec("ray") is None:
        raise BadOptionError(
            "--ray needs Ray, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[ray]')}`.",
        )
    show_ray_the_token()
    join_ray_when_told()


def embedder_at(config: "Config", address: str | None) -> "AbstractContextManager[Embedder]":
    """Open the cluster at an address; without one, the running server or a pool of our own."""
    if address is None:
        from emberd.migrate.embedding import open_embedder

        return open_embedder(config)
    require_ray()
    from emberd.ray.cluster import ClusterEmbedder

    return ClusterEmbedder(config, address)
