"""Settings and models as plain data, in the form people write in the config file."""

from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from emberd.config.load import Config, built_in_catalog
from emberd.config.paths import without_password
from emberd.config.settings import Settings
from emberd.registry.spec import ModelSpec, Source
from emberd.units import Duration, Size, format_duration, format_exact_size

UNSET = object()


@dataclass(frozen=True, slots=True)
class Dump:
    """A configuration as plain data; a group of settings is a dict, and so is each entry."""

    settings: dict[str, Any]
    stores: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]


def dump(config: Config) -> Dump:
    """Return everything in force, without the passwords in the URLs of stores."""
    settings = dump_settings(config.settings)
    stores = settings.pop("stores")
    for store in stores.values():
        store["path"] = without_password(store["path"])
    return Dump(settings, stores, {spec.name: dump_entry(spec) for spec in config.catalog})


def dump_what_was_set(config: Config) -> Dump:
    """Return only what somebody has set: no defaults, and no values of the built-in catalog."""
    whole = dump(config)
    settings = {key: _set_part(config, key, value) for key, value in whole.settings.items()}
    settings = {key: value for key, value in settings.items() if value is not UNSET}
    built_in = {spec.name: dump_entry(spec) for spec in built_in_catalog()}
    models = {
        name: _difference(entry, built_in.get(name, entry_defaults()))
        for name, entry in whole.models.items()
        if config.origins[f"models.{name}"] != "built in"
    }
    return Dump(settings, whole.stores, models)


def _set_part(config: Config, key: str, value: object) -> object:
    """Return a setting that somebody has set, or that part of a group; otherwise `UNSET`."""
    if not isinstance(value, dict):
        return UNSET if config.origins[key] == "default" else value
    given = {k: v for k, v in value.items() if config.origins[f"{key}.{k}"] != "default"}
    return given or UNSET


def _difference(entry: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if (key, value) not in base.items()}


def dump_settings(settings: Settings) -> dict[str, Any]:
    """Return all settings; a group is a dict of its own."""
    return _dump_group(settings)


def dump_entry(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's entry; its name is the key above it."""
    entry = _dump_group(spec)
    del entry["name"]
    return entry


def entry_defaults() -> dict[str, Any]:
    """Return the defaults of an entry's keys; the required ones have none."""
    some = ModelSpec(name="", sources=(), dimensions=0, pooling="mean")
    required = {field.name for field in fields(some) if _is_required(field)}
    return {key: value for key, value in dump_entry(some).items() if key not in required}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _dump_group(group: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of ours
    hints = get_type_hints(type(group), include_extras=True)
    return {
        field.name: _dump(getattr(group, field.name), hints[field.name]) for field in fields(group)
    }


def _dump(value: Any, hint: object) -> Any:  # noqa: ANN401 - whatever a setting may hold
    if isinstance(value, Source):  # leave out the kinds of place it does not use
        return {key: place for key, place in _dump_group(value).items() if place is not None}
    if is_dataclass(value):
        return _dump_group(value)
    if isinstance(value, tuple):
        return [_dump(item, None) for item in value]
    if isinstance(value, dict):
        return {key: _dump(item, None) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    kind = None if value is None else _kind(hint)
    if kind is Size:
        return format_exact_size(value)
    return format_duration(value) if kind is Duration else value


def _kind(hint: object) -> object:
    """Return `Size` or `Duration` if a type, or a member of a union, is annotated with it."""
    pending = [hint]
    for each in pending:  # grows while it is walked
        for mark in getattr(each, "__metadata__", ()):
            if mark is Size or mark is Duration:
                return mark
        pending.extend(get_args(each))
    return None
