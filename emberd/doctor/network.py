"""Where the server listens, whom it answers, and the Hub that models come from."""

from pathlib import Path
from typing import Any

from emberd.client.address import Address
from emberd.client.health import is_emberd, read_health, read_health_of
from emberd.config.load import Config
from emberd.config.settings import ServerSettings
from emberd.config.tokens import read_token_file
from emberd.doctor.files import has_default
from emberd.errors import ConfigError, SourceError
from emberd.models import hub as registry_hub
from emberd.running import read, url_of
from emberd.service.port import who_holds, who_holds_socket
from emberd.service.previous import is_old_server
from emberd.verify.finding import Finding

HEALTH_TIMEOUT_S = 3.0


def port(server: ServerSettings, state: Path) -> list[Finding]:
    """Who listens where emberd does or would; warnings of a running server too."""
    where = f"{server.host}:{server.port}"
    if server.port is None and not server.socket:
        detail = "off, and there is no server.socket: nothing to listen on"
        return [Finding("port", "failed", detail, "Set one of them.")]
    if not server.port:
        if server.port == 0:
            return _elsewhere(state, "any free one")
        return [Finding("port", "ok", "off")]
    try:
        holder = who_holds(server.host, server.port)
    except (OSError, OverflowError) as error:
        detail = f"emberd cannot listen on {where}: {error}"
        advice = "Choose an address of this machine as `server.host`, and a port above 1023."
        return [Finding("port", "failed", detail, advice)]
    if holder is None:
        return _elsewhere(state, f"{where} is free")
    health = read_health(Address(url_of(server.host, server.port)), timeout_s=HEALTH_TIMEOUT_S)
    if health is not None and is_emberd(health):
        detail = f"emberd {health['version']} answers at {where}, {holder}"
        return [Finding("port", "ok", detail), *_warnings(health)]
    if is_old_server(health):
        detail = f"the server that emberd replaces holds {where}: {holder}"
        return [
            Finding("port", "failed", detail, "Run `emberd service install --replace`."),
        ]
    detail = f"{holder} holds {where} and does not answer as emberd"
    return [Finding("port", "failed", detail, "End that process, or set another `server.port`.")]


def _elsewhere(state: Path, detail: str) -> list[Finding]:
    """Whether this home's server runs at another place, as by `serve --port N`."""
    noted = read(state)
    health = read_health_of(noted, timeout_s=HEALTH_TIMEOUT_S) if noted else None
    if noted is None or health is None or not is_emberd(health):
        return [Finding("port", "ok", f"{detail}; no server runs")]
    said = f"emberd {health['version']} answers at {noted.address} (pid {noted.pid}); {detail}"
    return [Finding("port", "ok", said), *_warnings(health)]


def socket(server: ServerSettings) -> list[Finding]:
    """Who listens on the Unix socket, where one is configured."""
    if not server.socket:
        return []
    path = Path(server.socket)
    advice = "Choose a path in a folder of yours as `server.socket`."
    try:
        if path.exists() and not path.is_socket():
            return [Finding("socket", "failed", f"{path} is a file that is no socket", advice)]
        if not path.parent.is_dir():
            return [Finding("socket", "failed", f"there is no folder {path.parent}", advice)]
        holder = who_holds_socket(server.socket)
    except OSError as error:
        return [Finding("socket", "failed", f"{path} cannot be asked: {error}", advice)]
    if holder is None:
        return [Finding("socket", "ok", f"nobody listens on {path}; no server runs there")]
    health = read_health(
        Address(url_of(server.host, None), server.socket), timeout_s=HEALTH_TIMEOUT_S
    )
    if health is not None and is_emberd(health):
        detail = f"emberd {health['version']} answers on {path}, {holder}"
        # The same server's warnings are told at its port.
        warnings = _warnings(health) if server.port is None else []
        return [Finding("socket", "ok", detail), *warnings]
    detail = f"{holder} listens on {path} and does not answer as emberd"
    return [
        Finding("socket", "failed", detail, "End that process, or set another `server.socket`.")
    ]


def _warnings(health: dict[str, Any]) -> list[Finding]:
    """Return what a running server warns of."""
    return [
        Finding("server", "warning", warning["message"], warning.get("hint") or "")
        for warning in health.get("warnings", ())
    ]


def tokens(config: Config) -> list[Finding]:
    """Whether a token is asked for, and the file that holds them can be used."""
    file = config.settings.server.token_file
    from_environ = ["the one of $EMBERD_TOKEN"] if config.token else []
    if file is None:
        return [Finding("tokens", "ok", *from_environ or ["none is asked for"])]
    try:
        count = len(read_token_file(Path(file)))
    except ConfigError as error:
        return [Finding("tokens", "failed", error.message, error.hint or "")]
    in_file = f"{count} token{'' if count == 1 else 's'} in {file}"
    return [Finding("tokens", "ok", " and ".join([in_file, *from_environ]))]


def hub(config: Config) -> list[Finding]:
    """Whether the Hub answers; without it only models that are here can load."""
    sources = config.catalog.get(config.settings.default).sources
    source = next((source for source in sources if source.hf), None)
    here = has_default(config)
    if source is None:
        return [Finding("hub", "skipped", "the default model does not come from the Hub")]
    try:
        endpoint = registry_hub.reach(source, config.homes.hub)
    except SourceError as error:
        at = f"{registry_hub.endpoint()}, asked for {source.hf}"
        advice = "Look at the network, proxies and HF_ENDPOINT"
        if here:
            advice += "; models that are here work without it"
        detail = f"{at}: {error.message}"
        return [Finding("hub", "warning" if here else "failed", detail, f"{advice}.")]
    if endpoint is None:
        detail = "HF_HUB_OFFLINE is set: nothing is downloaded"
        if here:
            return [Finding("hub", "ok", detail)]
        return [Finding("hub", "failed", detail, "Unset it, or put the model's files here.")]
    return [Finding("hub", "ok", f"{endpoint} answers")]
