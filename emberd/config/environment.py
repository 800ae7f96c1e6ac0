"""What the environment holds besides settings: systemd's socket, GPUs, cores, a service's needs."""

import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from itertools import takewhile
from pathlib import Path

from emberd.config.paths import expand
from emberd.files import is_gone

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
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
RAY_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
TOKENIZER_THREADS = "RAYON_NUM_THREADS"


def take_notify_socket(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Return the socket on which systemd expects notifications; hide it from child processes."""
    return environ.pop("NOTIFY_SOCKET", None)


def visible_gpus(
    environ: Mapping[str, str] = os.environ, dev: Path = Path("/dev")
) -> tuple[str, ...]:
    """Return the GPUs that CUDA can use, as the variable names them, its first choice first.

    `dev` has a file for each GPU that this machine or container may use.
    """
    stated = environ.get(VISIBLE_GPUS)
    if stated is None:
        return tuple(map(str, range(len([*dev.glob("nvidia[0-9]*")]))))
    names = [name.strip() for name in stated.split(",")]
    return tuple(takewhile(lambda name: name and name != "-1", names))  # as CUDA reads it


def show_only(gpu: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Hide the other GPUs from CUDA. It looks once, so this comes before it is loaded."""
    environ[VISIBLE_GPUS] = gpu


def share_cores(
    workers: int, environ: MutableMapping[str, str] = os.environ, *, threads: int = 0
) -> None:
    """Have the tokenizer use one of so many parts of the cores, or so many threads, if not 0.

    A number that is stated in the environment is left as it is.

    It looks once, when it gets its first batch of texts.
    """
    environ.setdefault(TOKENIZER_THREADS, str(threads or max(1, cores() // workers)))


def cores() -> int:
    """Return how many cores this process may use, which `taskset` can make fewer."""
    if sys.platform == "linux":
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    return found


def for_ray(environ: Mapping[str, str] = os.environ, *, haproxy: bool = False) -> dict[str, str]:
    """Return the environment of a command of Ray's: it tells nobody of its use, and asks a token.

    With `haproxy`, requests come in through HAProxy instead of Serve's own proxy. What is stated
    there already is left as it is.
    """
    fast = {RAY_HAPROXY: "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"} if haproxy else {}
    return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", **fast, **environ}


def has_haproxy(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this node was started so that requests come in through HAProxy."""
    return environ.get(RAY_HAPROXY) == "1"


def keep_ray_private(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have a Ray that this process starts tell nobody of its use; it asks a token by itself."""
    environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def show_ray_the_token(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have this process show a cluster the token, if this user has one; before Ray is imported.

    Of itself, Ray does so where it finds the cluster, but not at an address that it is told.
    """
    stated = any(name in environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if stated or not is_gone(expand("~/.ray/auth_token")):
        environ.setdefault("RAY_AUTH_MODE", "token")


def join_ray_when_told(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have this process join a cluster only where it says so; before Ray is imported.

    Of itself, Ray joins or starts one for any call, even for a thread's that is late for the end.
    """
    environ["RAY_ENABLE_AUTO_CONNECT"] = "0"


def for_a_command(default: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a command that a server runs; `default` may come from its flag."""
    return {**environ, "EMBERD_DEFAULT": default}


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
