"""The configuration of a cluster: one document, read where the file is, and each node's own homes.

It is data that travels. Where models and state are, and the token, each node knows for itself.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emberd.config.dump import dump_what_was_set
from emberd.config.load import Config, load_config
from emberd.config.paths import find_homes
from emberd.config.tokens import token_of_environment
from emberd.errors import ConfigError

# A page and jobs are about one machine; nothing is compiled where no model is loaded.
FLAGS: Mapping[tuple[str | int, ...], Any] = {
    ("server", "page"): False,
    ("limits", "prepare"): False,
}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a name for it


def cluster_config(document: Mapping[str, Any] | None = None) -> Config:
    """Return what a cluster serves: the models that the document names, and the default ones.

    Args:
        document: the content of a config file; None: that of this machine.

    Raises:
        ConfigError: as `load_config`.
    """
    return of_cluster(load_config(flags=FLAGS, content=document))


def of_cluster(config: Config) -> Config:
    """Return a configuration without what concerns this machine alone, and without its token."""
    settings = config.settings
    defaults = (settings.default, settings.default_reranker, settings.default_sparse)
    wanted = {config.catalog.get(name).name for name in defaults}
    wanted |= {
        spec.name for spec in config.catalog if config.origins[f"models.{spec.name}"] != "built in"
    }
    wanted |= {config.catalog.get(name).name for name in settings.aliases.values()}
    catalog = config.catalog.only(wanted)
    return replace(without_secrets(config), catalog=catalog)


def without_secrets(config: Config) -> Config:
    """Return a configuration that may travel: no token, and no stores, which may have passwords."""
    return replace(config, settings=replace(config.settings, stores={}), token=None)


def document_of(config: Config) -> dict[str, Any]:
    """Return a document that gives this configuration, on any machine."""
    dumped = dump_what_was_set(config)
    server = {
        key: value
        for key, value in dumped.settings.get("server", {}).items()
        if key in ("allowed_hosts", "allowed_origins", "token_file")
    }
    settings = {
        key: value for key, value in dumped.settings.items() if key not in ("server", "log")
    }
    return {**settings, **({"server": server} if server else {}), "models": dumped.models}


def at_home(config: Config) -> Config:
    """Return a configuration with the homes and the token of the node that this runs on."""
    return replace(config, homes=find_homes(), token=token_of_environment())


def check_token(config: Config, host: str) -> None:
    """Raise ConfigError if a cluster would answer everybody on its network."""
    here = at_home(config)
    if host in ("127.0.0.1", "localhost", "::1") or here.token or config.settings.server.token_file:
        return
    raise ConfigError(
        f"The app would listen on {host}, and no token is set.",
        hint="Set server.token_file or EMBERD_TOKEN, on every node.",
    )
