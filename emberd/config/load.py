"""The one place where settings come from: flag > environment > file > default.

`load_config` is called once, by the command line. Everything below receives the frozen group that
it needs and never looks anything up again.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from emberd.config.document import Document, Keys, read_document, read_own
from emberd.config.paths import Homes, expand, find_homes, is_url
from emberd.config.problems import explain, kind_of, nearest
from emberd.config.settings import Settings, leaves_of
from emberd.config.tokens import token_of_environment
from emberd.errors import ConfigError, UnknownModelError, WrongKindError
from emberd.files import is_gone
from emberd.registry.catalog import Catalog
from emberd.registry.spec import OF_KIND, Kind, ModelSpec

T = TypeVar("T")

BUILT_IN = Path(__file__).parent.parent / "registry" / "catalog.yaml"
PREFIX = "EMBERD_"
NOT_SETTINGS = {"EMBERD_CONFIG", "EMBERD_HOME", "EMBERD_TOKEN"}  # where to look; a secret
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration in force. `origins` says where each setting and each model comes from."""

    settings: Settings
    catalog: Catalog
    homes: Homes
    warnings: tuple[str, ...]
    origins: dict[str, str]
    token: str | None = field(default=None, repr=False)  # $EMBERD_TOKEN; not a setting, never shown

    def place_of_store(self, name: str) -> Path | str:
        """Return the file or folder of a store under `stores:`, or its URL; it need not exist."""
        place = self.settings.stores[name].path
        if is_url(place):
            return place
        return (self.homes.config.parent / expand(place)).resolve()


def load_config(
    *,
    config: Path | None = None,
    flags: Mapping[Keys, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    content: Mapping[str, Any] | None = None,
) -> Config:
    """Read every layer and validate the result.

    Args:
        config: a file named by a flag; it must exist.
        flags: values given on the command line, such as `{("server", "port"): 9000}`.
        environ: the environment.
        content: what to take for the file's content, if the file is elsewhere.

    Raises:
        ConfigError: file and line, variable or flag, and key are in the message.
    """
    homes = find_homes(environ, config=config)
    document = (
        _read(homes.config, must_exist=bool(config or environ.get("EMBERD_CONFIG")))
        if content is None
        else Document(homes.config, dict(content))
    )
    values = {
        key: value
        for key, value in document.data.items()
        if key != "models" and value is not None  # `limits:` with nothing below it
    }
    sources: dict[Keys, str] = {}
    from_environ, warnings = _read_environ(environ)
    for keys, (value, variable) in from_environ.items():
        _put(values, keys, value, document)
        sources[keys] = f"${variable}"
    for keys, value in (flags or {}).items():
        if value is not None:
            _put(values, keys, value, document)
            name = "log-level" if keys == ("log", "level") else str(keys[-1])
            sources[keys] = f"--{name}".replace("_", "-")

    def where(keys: Keys) -> str:
        return sources.get(keys, sources.get(keys[:2], document.where(keys)))

    try:
        settings = _validator(Settings).validate_python(values)
    except ValidationError as error:
        raise explain(error, (), where, Settings) from None
    catalog, model_origins = _build_catalog(document)
    catalog = _with_aliases(catalog, settings.aliases, document)
    _check_default(catalog, "default", settings.default, "embed", where)
    _check_default(catalog, "default_reranker", settings.default_reranker, "rerank", where)
    _check_default(catalog, "default_sparse", settings.default_sparse, "sparse", where)
    origins = {".".join(map(str, keys)): origin for keys, origin in sources.items()}
    for group, named in (("stores", settings.stores), ("aliases", settings.aliases)):
        for name in named:
            origins[f"{group}.{name}"] = document.where((group, name))
    for keys in leaves_of(settings):
        name = ".".join(keys)
        origins.setdefault(name, document.where(keys) if keys in document.lines else "default")
    return Config(
        settings=settings,
        catalog=catalog,
        homes=homes,
        warnings=tuple(warnings),
        origins=origins | model_origins,
        token=token_of_environment(environ),
    )


def _read(file: Path, *, must_exist: bool) -> Document:
    """Return the content of the config file. Raises ConfigError."""
    if must_exist and is_gone(file):
        raise ConfigError(
            f"The config file {file} does not exist.",
            hint="Create it with `emberd config init`, or name a file that exists.",
        )
    return read_document(file)


def _read_environ(
    environ: Mapping[str, str],
) -> tuple[dict[Keys, tuple[Any, str]], list[str]]:
    """Return `{keys: (value, variable)}` and a warning for each unknown `EMBERD_*`."""
    known = {PREFIX + "_".join(keys).upper(): keys for keys in leaves_of(Settings())}
    names = [variable.removeprefix(PREFIX) for variable in (*known, *NOT_SETTINGS)]
    found: dict[Keys, tuple[Any, str]] = {}
    warnings = []
    for variable, value in environ.items():
        if variable in known:
            default: Any = Settings()
            for key in known[variable]:
                default = getattr(default, key)
            parts = [part.strip() for part in value.split(",") if part.strip()]
            parsed: Any = parts if default == () else value
            if default is None and not value and known[variable] != ("server", "token_file"):
                parsed = None  # unsets it, except where a mistake would open the server to everyone
            found[known[variable]] = (parsed, variable)
        elif variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
            near = nearest(variable.removeprefix(PREFIX), names, "_")
            advice = f" Did you mean ${PREFIX}{near}?" if near else ""
            warnings.append(f"emberd does not know the environment variable ${variable}.{advice}")
    return found, warnings


def _put(values: dict[str, Any], keys: Keys, value: object, document: Document) -> None:
    *groups, last = keys
    for depth, key in enumerate(groups, start=1):
        inner = values.get(str(key)) or {}
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{document.where(keys[:depth])}: {key}: expected settings such as `{last}:`,"
                " found a value.",
                hint="`emberd config show` shows the layout.",
            )
        values[str(key)] = dict(inner)
        values = values[str(key)]
    values[str(last)] = value


def _build_catalog(document: Document) -> tuple[Catalog, dict[str, str]]:
    """Merge the file's `models` over the built-in ones, key by key, and validate each entry."""
    built_in = _built_in()
    users = document.data.get("models") or {}
    if not isinstance(users, dict):
        raise ConfigError(
            f"{document.where(('models',))}: models: expected names of models, found"
            f" {kind_of(users)}.",
            hint="Write a model's name under `models:`, and its keys under that.",
        )
    specs, origins = [], {}
    for name in built_in | users:
        keys: Keys = ("models", str(name))
        entry = {} if users.get(name) is None else users[name]
        if not MODEL_NAME.fullmatch(str(name)):
            raise ConfigError(
                f"{document.where(keys)}: models.{name}: a model's name may only contain letters,"
                " digits, dots, dashes and underscores.",
                hint="Rename it, and list other names under `aliases:`.",
            )
        if not isinstance(entry, dict):
            raise ConfigError(
                f"{document.where(keys)}: models.{name}: expected keys such as `dimensions:`, found"
                f" {kind_of(entry)}.",
                hint="Indent the model's keys under its name.",
            )
        merged = built_in.get(name, {}) | _with_absolute_paths(entry, document.path.parent)
        try:
            if "name" in merged:
                raise ConfigError(
                    f"{document.where((*keys, 'name'))}: models.{name}.name: the key above is the"
                    " model's name.",
                    hint="Remove the line, and list other names under `aliases:`.",
                )
            specs.append(_read_entry(str(name), merged))
        except ValidationError as error:
            raise explain(error, keys, document.where, ModelSpec) from None
        origins[f"models.{name}"] = document.where(keys) if name in users else "built in"
    try:
        return Catalog(specs), origins
    except ConfigError as error:
        where = document.where(("models",))
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None


def _with_aliases(catalog: Catalog, aliases: Mapping[str, str], document: Document) -> Catalog:
    """Add the file's `aliases`: each means a model of the catalog, perhaps with a role."""
    found = {}
    for alias, meant in aliases.items():
        where = f"{document.where(('aliases', alias))}: aliases.{alias}:"
        if any(alias == spec.name for spec in catalog):
            raise ConfigError(
                f"{where} a model has this name, and would no longer be found under it.",
                hint="Choose another alias.",
            )
        try:
            found[alias] = catalog.find(meant)
        except UnknownModelError as error:
            raise ConfigError(f"{where} {error.message}", hint=error.hint) from None
    return Catalog(catalog, found)


def _check_default(
    catalog: Catalog, key: str, default: str, kind: Kind, where: Callable[[Keys], str]
) -> None:
    """Raise ConfigError unless `default` means a model of that kind, without a role."""
    place = f"{where((key,))}: {key}:"
    try:
        named = catalog.find(default, kinds=(kind,))
    except (UnknownModelError, WrongKindError) as error:
        raise ConfigError(f"{place} {error.message}", hint=error.hint) from None
    if named.role:
        raise ConfigError(
            f"{place} {default!r} states the role {named.role}, but the default is for"
            " texts of any role.",
            hint=f"Write {named.spec.name}. Clients state the role in their requests.",
        )


def _read_entry(name: str, entry: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a whole entry. Raises pydantic's ValidationError."""
    kind = entry.get("kind", "embed")
    implied = OF_KIND.get(kind, {}) if isinstance(kind, str) else {}
    spec: ModelSpec = _validator(ModelSpec).validate_python({**implied, **entry, "name": name})
    return spec


def built_in_catalog() -> Catalog:
    """Return the models that come with emberd, unchanged."""
    return _build_catalog(Document(BUILT_IN, {}))[0]


def validated(path: Path, name: str, entry: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of an entry that the config file at `path` does not have yet.

    Raises:
        ConfigError: it would be refused there.
    """
    return _build_catalog(Document(path, {"models": {name: dict(entry)}}))[0].get(name)


def is_built_in(spec: ModelSpec, *keys: str) -> bool:
    """Whether an entry comes with emberd, with these sources and these values of `keys`."""
    entry = _built_in().get(spec.name)
    if entry is None:
        return False
    ours = _read_entry(spec.name, entry)
    return all(getattr(spec, key) == getattr(ours, key) for key in ("sources", *keys))


@cache
def _validator(of: type[T]) -> TypeAdapter[T]:
    """Return pydantic's validator; made once, because its memory is never fully returned."""
    return TypeAdapter(of)


@cache
def _built_in() -> dict[str, Any]:
    """Return the built-in entries; read once, as they do not change."""
    return read_own(BUILT_IN)


def _with_absolute_paths(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make each `path:` in an entry absolute: relative to the config file, `~` expanded."""

    def absolute(place: object) -> object:
        if isinstance(place, dict) and place.get("path") and isinstance(place["path"], str):
            return place | {"path": str(folder / expand(place["path"]))}
        return place

    changed: dict[str, object] = {}
    if isinstance(entry.get("sources"), list):
        changed["sources"] = [absolute(source) for source in entry["sources"]]
    if "token_ids" in entry:
        changed["token_ids"] = absolute(entry["token_ids"])
    return entry | changed
