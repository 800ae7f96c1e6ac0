"""`serve run emberd.ray:app`: a deployment for each model, and the HTTP app in front of them.

The ingress is the app that serves alone, over a pool of deployment handles.
"""

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from emberd import __version__
from emberd.api.access import BearerTokens
from emberd.api.app import create_app
from emberd.config.environment import has_haproxy, keep_ray_private
from emberd.config.live import LiveConfig
from emberd.config.load import Config
from emberd.pool.observer import Observer
from emberd.ray.configuration import EVERYWHERE, at_home, check_token, cluster_config
from emberd.ray.handles import HandlePool
from emberd.ray.look import Look
from emberd.ray.replica import Replica
from emberd.ray.routing import LeastBusy
from emberd.ray.scale import INGRESS, ingress_options, model_options
from emberd.running import Running


class Front:
    """The HTTP app, as Serve runs it."""

    def __init__(self, config: Config, handles: Mapping[str, DeploymentHandle]) -> None:
        """Raises ConfigError: everybody on the network could use it, as this node has no token."""
        here = at_home(config)
        check_token(here, _host())
        context = serve.get_replica_context()
        look = Look(context.app_name, [*handles])
        file = here.settings.server.token_file
        tokens = BearerTokens(here.token, Path(file) if file else None)

        def pool_of(config: Config, observer: Observer) -> HandlePool:
            del observer  # it hears of workers, which are elsewhere
            return HandlePool(config, handles, look)

        at = Running(os.getpid(), "localhost", 8000, __version__, instance=secrets.token_hex(8))
        live = LiveConfig(here, lambda: here)  # another configuration takes `serve deploy`
        self._app = create_app(live, tokens, at, pool_of).answer

    def __serve_build_asgi_app__(self) -> object:
        """Return the app."""
        return InBytes(self._app)


class InBytes:
    """An ASGI app whose answers are bytes: Serve pickles them, and no memoryview can be."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - an ASGI app
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        """Answer one request."""

        async def send_bytes(message: MutableMapping[str, Any]) -> None:
            if isinstance(message.get("body"), memoryview):
                message = {**message, "body": bytes(message["body"])}
            await send(message)

        await self._app(scope, receive, send_bytes)


def _host() -> str:
    """Return the address at which Serve listens on this node, whatever the file says by now."""
    return EVERYWHERE if has_haproxy() else str(_get_global_client().http_config.host)


def app(args: dict[str, Any]) -> Application:
    """Return the application: `args["config"]` is a config file's content, or this machine's."""
    keep_ray_private()
    config = cluster_config(args.get("config"))
    if has_haproxy():  # each ingress listens where HAProxy on any node can reach it
        check_token(config, EVERYWHERE)
    routing = RequestRouterConfig(request_router_class=LeastBusy)
    models = {
        spec.name: serve.deployment(Replica)
        .options(name=spec.name, request_router_config=routing, **model_options(config, spec))
        .bind(config, spec.name)
        for spec in config.catalog
    }
    front = serve.deployment(serve.ingress()(Front))
    return front.options(name=INGRESS, **ingress_options(config)).bind(config, models)
