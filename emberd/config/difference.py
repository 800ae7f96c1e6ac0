"""How two configurations differ, key by key, and when each change takes effect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from emberd.config.dump import dump_entry, dump_settings
from emberd.config.load import Config
from emberd.registry.spec import NOT_FOR_WORKERS

# A running server can change these groups, and models.
LIVE = ("default", "default_reranker", "default_sparse", "limits", "aliases", "stores")

Effect = Literal["at_once", "next_request", "model_restarts", "model_leaves", "needs_restart"]


@dataclass(frozen=True, slots=True)
class Change:
    """One key, such as `limits.max_loaded` or `models.mine`; None where it is missing.

    `at_once`: in force when the reload ends. `next_request`: for requests from then on.
    `model_restarts`, `model_leaves`: the worker answers the requests it has and ends; in the first
    case the next request starts another. `needs_restart`: only after the server restarts.
    """

    key: str
    before: Any
    after: Any
    effect: Effect


def differences(before: Config, after: Config) -> list[Change]:
    """Return what changes, settings first. Values are in the form used in the file."""
    return [*_of_settings(before, after), *_of_models(before, after)]


def in_force(running: Config, read: Config) -> Config:
    """Return what a running server switches to; settings that need a restart keep their values."""
    kept = {
        group.name: getattr(running.settings, group.name)
        for group in fields(running.settings)
        if group.name not in LIVE
    }
    return replace(read, settings=replace(read.settings, **kept))


def _of_settings(before: Config, after: Config) -> Iterator[Change]:
    old, new = (dict(_leaves(dump_settings(config.settings))) for config in (before, after))
    for key in old | new:
        if old.get(key) != new.get(key):
            effect: Effect = "at_once" if key.split(".")[0] in LIVE else "needs_restart"
            if key.startswith("default"):
                effect = "next_request"
            elif key == "limits.replicas":
                effect = "model_restarts"
            yield Change(key, old.get(key), new.get(key), effect)


def _leaves(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _of_models(before: Config, after: Config) -> Iterator[Change]:
    old, new = ({spec.name: spec for spec in config.catalog} for config in (before, after))
    for name in old | new:
        key = f"models.{name}"
        if name not in new:
            yield Change(key, dump_entry(old[name]), None, "model_leaves")
        elif name not in old:
            yield Change(key, None, dump_entry(new[name]), "next_request")
        elif old[name] != new[name]:
            was, now = dump_entry(old[name]), dump_entry(new[name])
            for field in now:
                if was[field] != now[field]:
                    effect: Effect = "at_once" if field in NOT_FOR_WORKERS else "model_restarts"
                    yield Change(f"{key}.{field}", was[field], now[field], effect)
