"""Where the server listens, which tokens it accepts, and whether the Hub can be reached."""

from pathlib import Path
from typing import Any

from emberd.client.address import Address
from emberd.client.health import is_emberd, read_health, read_health_of
from emberd.config.load import Config
from emberd.config.settings import ServerSettings
from emberd.config.tokens import read_token_file
from emberd.doctor.files import has_default
from emberd.errors import ConfigError, SourceError
from emberd.models import hub as model_hub
from emberd.models.hub_errors import endpoint as hub_address
from emberd.running import read, url_of
from emberd.service.port import who_holds, who_holds_socket
from emberd.service.previous import is_old_server
from emberd.verify.finding import Finding

HEALTH_TIMEOUT_S = 3.0


def port(server: ServerSettings, state: Path) -> list[Finding]:
    """Who listens on emberd's port; also the warnings of a running server."""
    where = f"{server.host}:{server.port}"
    if server.port is None and not server.socket:
        detail = "the port is off and there is no server.socket, so there is nowhere to listen"
        return [Finding("port", "failed", detail, "Set `server.port` or `server.socket`.")]
    if not server.port:
        if server.port == 0:
            return _elsewhere(state, "any free port")
        return [Finding("port", "ok", "off")]
    try:
        holder = who_holds(server.host, server.port)
    except (OSError, OverflowError) as error:
        detail = f"emberd cannot listen on {where}: {error}"
        advice = "Set `server.host` to an address of this machine, and use a port above 1023."
        return [Finding("port", "failed", detail, advice)]
    if holder is None:
        return _elsewhere(state, f"{where} is free")
    health = read_health(Address(url_of(server.host, server.port)), timeout_s=HEALTH_TIMEOUT_S)
    if health is not None and is_emberd(health):
        detail = f"emberd {health['version']} answers at {where}, {holder}"
        return [Finding("port", "ok", detail), *_warnings(health)]
    if is_old_server(health):
        detail = f"the old server, which emberd replaces, is using {where}: {holder}"
        return [
            Finding("port", "failed", detail, "Run `emberd service install --replace`."),
        ]
    detail = f"{holder} is using {where} and is not emberd"
    return [Finding("port", "failed", detail, "Stop that process, or set another `server.port`.")]


def _elsewhere(state: Path, detail: str) -> list[Finding]:
    """Whether this home's server listens elsewhere, as with `serve --port N`."""
    noted = read(state)
    health = read_health_of(noted, timeout_s=HEALTH_TIMEOUT_S) if noted else None
    if noted is None or health is None or not is_emberd(health):
        return [Finding("port", "ok", f"{detail}; no server is running")]
    said = f"emberd {health['version']} answers at {noted.address} (pid {noted.pid}); {detail}"
    return [Finding("port", "ok", said), *_warnings(health)]


def socket(server: ServerSettings) -> list[Finding]:
    """Who listens on the Unix socket, if one is configured."""
    if not server.socket:
        return []
    path = Path(server.socket)
    advice = "Set `server.socket` to a path in a folder that you can write to."
    try:
        if path.exists() and not path.is_socket():
            return [Finding("socket", "failed", f"{path} exists and is not a socket", advice)]
        if not path.parent.is_dir():
            return [Finding("socket", "failed", f"the folder {path.parent} does not exist", advice)]
        holder = who_holds_socket(server.socket)
    except OSError as error:
        return [Finding("socket", "failed", f"{path} cannot be checked: {error}", advice)]
    if holder is None:
        return [Finding("socket", "ok", f"nothing listens on {path}; no server is running there")]
    health = read_health(
        Address(url_of(server.host, None), server.socket), timeout_s=HEALTH_TIMEOUT_S
    )
    if health is not None and is_emberd(health):
        detail = f"emberd {health['version']} answers on {path}, {holder}"
        # The check of the port already shows this server's warnings.
        warnings = _warnings(health) if server.port is None else []
        return [Finding("socket", "ok", detail), *warnings]
    detail = f"{holder} listens on {path} and is not emberd"
    return [
        Finding("socket", "failed", detail, "Stop that process, or set another `server.socket`.")
    ]


def _warnings(health: dict[str, Any]) -> list[Finding]:
    """Return the warnings of a running server."""
    return [
        Finding("server", "warning", warning["message"], warning.get("hint") or "")
        for warning in health.get("warnings", ())
    ]


def tokens(config: Config) -> list[Finding]:
    """Whether the server requires a token, and whether the token file can be used."""
    file = config.settings.server.token_file
    from_environ = ["the one in $EMBERD_TOKEN"] if config.token else []
    if file is None:
        return [Finding("tokens", "ok", *from_environ or ["none required"])]
    try:
        count = len(read_token_file(Path(file)))
    except ConfigError as error:
        return [Finding("tokens", "failed", error.message, error.hint or "")]
    in_file = f"{count} token{'' if count == 1 else 's'} in {file}"
    return [Finding("tokens", "ok", " and ".join([in_file, *from_environ]))]


def hub(config: Config) -> list[Finding]:
    """Whether the Hub answers; without it only models on this machine can load."""
    sources = config.catalog.get(config.settings.default).sources
    source = next((source for source in sources if source.hf), None)
    here = has_default(config)
    if source is None:
        return [Finding("hub", "skipped", "the default model does not come from the Hub")]
    try:
        endpoint = model_hub.reach(source, config.homes.hub)
    except SourceError as error:
        at = f"{hub_address()}, asked for {source.hf}"
        advice = "Check the network, proxies and HF_ENDPOINT"
        if here:
            advice += "; models on this machine work without it"
        detail = f"{at}: {error.message}"
        return [Finding("hub", "warning" if here else "failed", detail, f"{advice}.")]
    if endpoint is None:
        detail = "HF_HUB_OFFLINE is set, so nothing is downloaded"
        if here:
            return [Finding("hub", "ok", detail)]
        return [Finding("hub", "failed", detail, "Unset it, or copy the model's files here.")]
    return [Finding("hub", "ok", f"{endpoint} answers")]
