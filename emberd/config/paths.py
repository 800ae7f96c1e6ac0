"""Where emberd keeps its config file, state and cache; only this file reads those variables.

`$EMBERD_HOME/{config.yaml,state,cache}`; without it the XDG folders, on macOS too.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from emberd.errors import ConfigError

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SECRET = ("password", "sslpassword", "api_key", "token")  # in the query of a URL


@dataclass(frozen=True, slots=True)
class Homes:
    """`config` is a file that need not exist; the folders are made when needed.

    `hub` is the Hub's own cache, shared with every other tool that downloads from there.
    """

    config: Path
    state: Path
    cache: Path
    hub: Path

    @property
    def vectors(self) -> Path:
        """The file that keeps vectors, if `cache.vectors` is set."""
        return self.cache / "vectors.db"

    @property
    def vectors_secret(self) -> Path:
        """What its keys are made with; elsewhere, so that a copy of the cache does not have it."""
        return self.state / "vectors.key"


def find_homes(environ: Mapping[str, str] = os.environ, *, config: Path | None = None) -> Homes:
    """Return the homes; `config` (a flag) beats `$EMBERD_CONFIG` beats the home's own file.

    The Hub's cache is where huggingface_hub puts it. For a user without a home folder, a case that
    library does not handle, it is in the cache of `$EMBERD_HOME`.

    Raises:
        ConfigError: this user has no home folder, and no variable names another place.
    """
    named = config or (Path(environ["EMBERD_CONFIG"]) if environ.get("EMBERD_CONFIG") else None)
    if environ.get("EMBERD_HOME"):
        home = expand(environ["EMBERD_HOME"]).absolute()
        file, state, cache = home / "config.yaml", home / "state", home / "cache"
    else:
        file = _xdg("CONFIG", ".config", environ) / "emberd" / "config.yaml"
        state = _xdg("STATE", ".local/state", environ) / "emberd"
        cache = _xdg("CACHE", ".cache", environ) / "emberd"
    # HF_HOME and HF_HUB_CACHE: as huggingface_hub reads them (its environment variables page)
    try:
        hub_home = environ.get("HF_HOME") or _xdg("CACHE", ".cache", environ) / "huggingface"
    except ConfigError:
        hub_home = cache / "huggingface"
    hub = expand(environ.get("HF_HUB_CACHE") or expand(hub_home) / "hub")
    return Homes(expand(named or file).absolute(), state, cache, hub)


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return this user's home folder.

    Raises:
        ConfigError: HOME is not set, and the system does not know this user (as in containers).
    """
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        variable = "HOME" if environ.get("EMBERD_HOME") else "EMBERD_HOME"
        raise ConfigError(
            f"HOME is not set, and user {os.getuid()} has no home folder.",
            hint=f"Set {variable} to a folder that this user can write to.",
        ) from None


def _xdg(kind: str, default: str, environ: Mapping[str, str]) -> Path:
    return _absolute(environ.get(f"XDG_{kind}_HOME")) or home_folder(environ) / default


def config_folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return where a user's configuration may be: `$XDG_CONFIG_HOME` if set, then `~/.config`."""
    named = _absolute(environ.get("XDG_CONFIG_HOME"))
    usual = home_folder(environ) / ".config"
    return [named, usual] if named else [usual]


def _absolute(path: str | None) -> Path | None:
    """Return the folder an XDG variable names; relative ones are ignored.

    Source: XDG Base Directory Specification 0.8, "If an implementation encounters a relative path
    in any of these variables it should consider the path invalid and ignore it."
    """
    return Path(path) if path and Path(path).is_absolute() else None


def expand(path: str | Path) -> Path:
    """Replace `~` and `~user`; an unknown user is left as written."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def environment_apart(home: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for a process with its own emberd home and none of our settings.

    The Hub's cache stays the same.
    """
    kept = {key: value for key, value in environ.items() if not key.startswith("EMBERD_")}
    return kept | {"EMBERD_HOME": str(home)}


def is_url(place: str) -> bool:
    """Whether this is the address of a server, and not a path."""
    return bool(URL.match(place))


def shown_place(place: Path | str) -> str:
    """Return a path, or a URL without its password, as it may be shown, noted and compared."""
    return str(place) if isinstance(place, Path) else without_password(place)


def without_password(url: str) -> str:
    """Return a URL that may be shown; a path stays as it is."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    kept = [(key, value) for key, value in parse_qsl(parts.query) if key not in SECRET]
    shown = parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query=urlencode(kept))
    return shown.geturl()
