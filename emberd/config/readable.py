"""Settings and registry entries as one writes them in the file: sizes, durations, lists."""

from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from emberd.config.settings import Settings
from emberd.registry.spec import ModelSpec, Source
from emberd.units import Duration, Size, format_duration, format_exact_size


def write_settings(settings: Settings) -> dict[str, Any]:
    """Return all settings; a group is a dict of its own."""
    return _write_group(settings)


def write_entry(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's entry; its name is the key above it."""
    entry = _write_group(spec)
    del entry["name"]
    return entry


def entry_defaults() -> dict[str, Any]:
    """Return what the keys of an entry are when nobody writes them; required ones are left out."""
    some = ModelSpec(name="", sources=(), dimensions=0, pooling="mean")
    required = {field.name for field in fields(some) if _is_required(field)}
    return {key: value for key, value in write_entry(some).items() if key not in required}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _write_group(group: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of ours
    hints = get_type_hints(type(group), include_extras=True)
    return {
        field.name: _write(getattr(group, field.name), hints[field.name]) for field in fields(group)
    }


def _write(value: Any, hint: object) -> Any:  # noqa: ANN401 - whatever a setting may hold
    if isinstance(value, Source):  # the places that it is not at are no part of it
        return {key: place for key, place in _write_group(value).items() if place is not None}
    if is_dataclass(value):
        return _write_group(value)
    if isinstance(value, tuple):
        return [_write(item, None) for item in value]
    if isinstance(value, dict):
        return {key: _write(item, None) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    kind = None if value is None else _kind(hint)
    if kind is Size:
        return format_exact_size(value)
    return format_duration(value) if kind is Duration else value


def _kind(hint: object) -> object:
    """Return `Size` or `Duration` when a type is annotated so, also as one of several."""
    pending = [hint]
    for each in pending:  # grows while it is walked
        for mark in getattr(each, "__metadata__", ()):
            if mark is Size or mark is Duration:
                return mark
        pending.extend(get_args(each))
    return None
