"""Which checks `emberd doctor` runs, with a configuration or without one that can be read."""

from pathlib import Path

from emberd.config.load import Config, load_config
from emberd.config.paths import Homes, find_homes
from emberd.config.settings import LimitsSettings
from emberd.doctor import backends, files, machine, network, service
from emberd.doctor.examine import Check
from emberd.errors import ConfigError
from emberd.files import is_gone
from emberd.verify.finding import Finding


def checks(config_file: Path | None) -> dict[str, Check]:
    """Return the checks by name, in the order in which they are shown.

    Args:
        config_file: a file named by a flag, if any.

    Raises:
        ConfigError: there is no home folder for the config file and the state.
    """
    homes = find_homes(config=config_file)
    try:
        config = load_config(config=config_file)
    except ConfigError as error:
        return _without_config(homes, error)
    settings = config.settings
    stores = {
        name: place
        for name in settings.stores
        if isinstance(place := config.place_of_store(name), Path)  # a server is asked by `check`
    }
    return {
        "config": lambda: configuration(config),
        **_independent(homes),
        "lock": lambda: files.lock(homes.state, config.catalog, hub=homes.hub),
        "memory": lambda: machine.memory(settings.limits),
        "backends": lambda: backends.check(config.catalog, settings.default),
        "models": lambda: backends.models(config),
        "model": lambda: files.model(config),
        "stores": lambda: files.stores(stores),
        "cache": lambda: files.cache(config),
        "port": lambda: network.port(settings.server, homes.state),
        "socket": lambda: network.socket(settings.server),
        "tokens": lambda: network.tokens(config),
        "hub": lambda: network.hub(config),
    }


def configuration(config: Config) -> list[Finding]:
    """Which file was read, and its warnings."""
    file = config.homes.config
    missing = " (does not exist; every setting has its default)" if is_gone(file) else ""
    detail = f"{file}{missing}, {len(list(config.catalog))} models"
    return [
        Finding("config", "ok", detail),
        *(
            Finding("config", "warning", warning, "Correct the name or unset it.")
            for warning in config.warnings
        ),
    ]


def _independent(homes: Homes) -> dict[str, Check]:
    """Return the checks that need no configuration."""
    return {
        "python": machine.python,
        "platform": machine.system,
        "folders": lambda: machine.folders(homes),
        "disk": lambda: machine.disk(homes),
        "lock": lambda: files.lock(homes.state),
        "service": service.service,
    }


def _without_config(homes: Homes, error: ConfigError) -> dict[str, Check]:
    """Return the checks that can still run, and the others as skipped."""

    def skipped(name: str) -> Check:
        return lambda: [Finding(name, "skipped", "the configuration cannot be read")]

    return {
        "config": lambda: [Finding("config", "failed", error.message, error.hint or "")],
        **_independent(homes),
        "memory": lambda: machine.memory(LimitsSettings()),
        "backends": lambda: backends.check(None, None),
        **{name: skipped(name) for name in ("models", "model", "cache", "port", "tokens", "hub")},
    }
