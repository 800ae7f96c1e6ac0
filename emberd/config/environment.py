"""What the environment holds besides settings: systemd's socket, and what a service needs."""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from emberd.config.paths import expand

PATHS = (
    "EMBERD_CONFIG", "EMBERD_HOME", "HF_HOME", "HF_HUB_CACHE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME",
)  # fmt: skip
PLAIN = (
    "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
)  # fmt: skip
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRET_NAME = re.compile(r"TOKEN(?!S)|SECRET|PASSWORD|KEY")
SECRET_URL = re.compile(r"//[^/]*@")


def take_notify_socket(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Return the socket on which systemd expects notifications; hide it from child processes."""
    return environ.pop("NOTIFY_SOCKET", None)


def for_a_service(environ: Mapping[str, str] = os.environ) -> tuple[dict[str, str], list[str]]:
    """Return the variables a service needs, as its manager does not start it from this shell.

    These are every `EMBERD_*`, where the Hub is and keeps its files, and proxies. Paths are made
    absolute. Secrets are left out.

    Returns:
        The variables, and the names of those that were left out because they hold a secret.
    """
    kept: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in sorted(environ.items()):
        if not value or not (name.startswith("EMBERD_") or name in (*PATHS, *PLAIN, *SECRETS)):
            continue
        path = name in PATHS or name.endswith("_FILE")
        if not path and (SECRET_NAME.search(name) or SECRET_URL.search(value)):
            left_out.append(name)
        else:
            kept[name] = str(Path(expand(value)).absolute()) if path else value
    return kept, left_out
