"""`emberd config show | path | check | init | diff` and `reload`: what is set, and since when."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root
from emberd.errors import ConfigError
from emberd.files import is_gone

if TYPE_CHECKING:
    from emberd.client.clients import Client
    from emberd.config.load import Config
    from emberd.models.folder import Folder
    from emberd.registry.spec import ModelSpec

app = typer.Typer(no_args_is_help=True, help="Show, check or begin the config file.")

EFFECTS = {
    "at_once": "at once",
    "next_request": "from the next request",
    "model_restarts": "the model restarts; requests in flight end with the old one",
    "model_leaves": "the model leaves once it has answered what it was given",
    "needs_restart": "not before emberd is restarted",
}
STARTER = """\
# emberd's configuration. Every key has a default: delete the lines that you do not change.
# `emberd config show` prints what is in force and where it comes from.

default: minilm            # the model for requests that name none

server:
  host: 127.0.0.1
  port: 8767

limits:
  idle_unload: 15m         # unload a model that has had no request for this long
  max_loaded: 3            # models in memory at the same time
  memory_budget: 4GiB      # for all of them together

# Vector stores whose users ask for the default model: `emberd migrate check NAME`.
# stores:
#   cmem: {kind: cmem, path: ~/.claude/cmem}

# Models are merged over the built-in ones (`emberd list`), key by key.
# models:
#   bge-small:
#     idle_unload: 1h
#   my-model:
#     sources:
#       - path: ~/models/my-model      # a folder in the layout of a Hub repository
#       - hf: owner/name               # or a repository on the Hub
#     dimensions: 384
#     pooling: mean                    # mean | cls | last, as its model card says
"""


@app.command()
def path(ctx: typer.Context) -> None:
    """Print where the config file is, or would be."""
    from emberd.config.paths import find_homes

    root: Root = ctx.obj
    typer.echo(str(find_homes(config=root.config_file).config))


@app.command()
def check(ctx: typer.Context) -> None:
    """Check the config file; says where a mistake is.

    Exit code 1: there is one.
    """
    root: Root = ctx.obj
    config = root.load()
    notes = _check_models(config)
    _check_stores(config)
    for note in notes:
        typer.echo(f"Note: {note}")
    found = " (there is no such file: all defaults)" if is_gone(config.homes.config) else ""
    count = len(list(config.catalog))
    typer.echo(f"{config.homes.config}{found}: in order; {count} models.")


def _check_models(config: "Config") -> list[str]:
    """Check what a server finds out only when it loads a model: its backend, and its files.

    Return what the folders of models have otherwise than their entries.
    """
    from emberd.backends import plugins
    from emberd.config.document import read_document
    from emberd.config.load import is_built_in
    from emberd.errors import ModelLoadError
    from emberd.models.folder import read_pooling

    document = read_document(config.homes.config)
    backends = ["auto", *plugins.names()]
    notes = []
    for name in document.data.get("models") or {}:
        spec = config.catalog.get(str(name))
        key = f"models.{spec.name}"
        if spec.backend not in backends:
            raise ConfigError(
                f"{document.where(('models', spec.name, 'backend'))}: {key}.backend: no backend"
                f" {spec.backend!r} is installed.",
                hint=f"There are: {', '.join(backends)}.",
            )
        try:
            says = _folder_of(config, spec)
        except ModelLoadError as error:
            raise ConfigError(
                f"{document.where(('models', spec.name, 'sources'))}: {key}.sources:"
                f" {error.message}",
                hint=error.hint,
            ) from None
        if says and says.positions is not None and (spec.max_tokens or 0) > says.positions:
            raise ConfigError(
                f"{document.where(('models', spec.name, 'max_tokens'))}: {key}.max_tokens:"
                f" {spec.max_tokens} is more than the {says.positions} that the files in"
                f" {says.path} allow.",
                hint="Lower it, or leave it out.",
            )
        pooling = read_pooling(says.path) if says else None
        if says and pooling and pooling.modes and pooling.modes != {spec.pooling}:
            raise ConfigError(
                f"{document.where(('models', spec.name, 'pooling'))}: {key}.pooling:"
                f" {spec.pooling}, but {pooling.path} says {' + '.join(sorted(pooling.modes))}.",
                hint="State what the file says, or choose another model where that is not known.",
            )
        found = says.differences(spec) if says else []
        notes += [each.told(spec.name) for each in found if not is_built_in(spec, each.key)]
    return notes


def _folder_of(config: "Config", spec: "ModelSpec") -> "Folder | None":
    """Return what the model's folder says; None when its files are still to be fetched.

    Raises:
        ModelLoadError: its only sources are folders, and none has it whole; or it is damaged.
    """
    from pathlib import Path

    from emberd.files import is_folder
    from emberd.models.availability import find_here
    from emberd.models.folder import read_folder
    from emberd.models.local import lacks
    from emberd.spaces.lock import LockFile

    here = find_here(spec, config.homes.hub, LockFile(config.homes.state).read().get(spec.name))
    if here:
        return read_folder(here.folder)
    places = [Path(source.path) for source in spec.sources if source.path]
    if len(places) == len(spec.sources):
        place = next((place for place in places if is_folder(place)), places[0])
        if missing := lacks(place):
            raise missing
    return None


def _check_stores(config: "Config") -> None:
    """Check what is found out only when a store is opened: its kind, and the model it names."""
    from emberd.config.document import read_document
    from emberd.errors import UnknownModelError
    from emberd.migrate import plugins

    document = read_document(config.homes.config)
    kinds = plugins.kinds()
    for name, store in config.settings.stores.items():
        key = f"stores.{name}"
        if store.kind and store.kind not in kinds:
            raise ConfigError(
                f"{document.where(('stores', name, 'kind'))}: {key}.kind: no kind of store"
                f" {store.kind!r} is installed.",
                hint=f"There are: {', '.join(kinds)}.",
            )
        try:
            if store.model:
                config.catalog.get(store.model)
        except UnknownModelError as error:
            raise ConfigError(
                f"{document.where(('stores', name, 'model'))}: {key}.model: {error.message}",
                hint=error.hint,
            ) from None


@app.command()
def diff(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what the running server would change at a reload."""
    from emberd.client import requests

    root: Root = ctx.obj
    server = root.require_server()
    _require_named_file(root, server)
    answer = server.send(requests.preview_reload())
    _show_changes(answer, "A reload would change nothing.", as_json=as_json)


def reload(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Have the running server read its config file again.

    It does so by itself within seconds of a change; this waits, and says what changed or is wrong.
    """
    from emberd.client import requests

    root: Root = ctx.obj
    server = root.require_server()
    _require_named_file(root, server)
    answer = server.send(requests.reload())
    _show_changes(answer, "Nothing changed.", as_json=as_json)


def _require_named_file(root: Root, server: "Client") -> None:
    """Raise `ConfigError` when `--config` names another file than the server's."""
    from emberd.client import finding, requests
    from emberd.config.paths import find_homes

    if root.config_file is not None:
        file = find_homes(config=root.config_file).config
        finding.require_file(server.address, server.send(requests.preview_reload())["file"], file)


def _show_changes(answer: dict[str, Any], nothing: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    typer.echo(f"# {answer['file']}")
    for change in answer["changes"]:
        typer.echo(f"{change['key']}: {_in_words(change)}")
    if not answer["changes"]:
        typer.echo(nothing)


def _in_words(change: dict[str, Any]) -> str:
    """Say what happens to a key, and when."""
    before, after, effect = change["before"], change["after"], EFFECTS[change["effect"]]
    if before is None and isinstance(after, dict):
        return "a new model, from the next request"
    if after is None and isinstance(before, dict):
        return f"removed; {effect}"
    return f"{_as_yaml(before)} -> {_as_yaml(after)} ({effect})"


@app.command()
def init(
    ctx: typer.Context,
    print_only: Annotated[bool, typer.Option("--print", help="Print it instead.")] = False,
) -> None:
    """Write a config file with comments, to edit.

    Never over one that exists.
    """
    from emberd.config.paths import find_homes

    if print_only:
        typer.echo(STARTER, nl=False)
        return
    root: Root = ctx.obj
    file = find_homes(config=root.config_file).config
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(STARTER)
    except FileExistsError:
        raise ConfigError(f"{file} exists already.", hint="Edit it, or move it away.") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}.") from None
    typer.echo(f"Wrote {file}.")


@app.command()
def show(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also what has its default.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what is set, and where.

    What is printed is itself a config file.
    """
    from emberd.config.readable import write_entry, write_settings

    root: Root = ctx.obj
    config = root.load()
    values = write_settings(config.settings)
    stores = values.pop("stores")
    models = {spec.name: write_entry(spec) for spec in config.catalog}
    if not every:
        values, models = _what_differs(config, values, models)
    if as_json:
        content = {**values, "stores": stores, "models": models, "origins": config.origins}
        typer.echo(json.dumps(content, default=str))
        return
    typer.echo(f"# {config.homes.config}")
    for key, value in values.items():
        if not isinstance(value, dict):
            _print_line("", key, value, config.origins[key])
            continue
        typer.echo(f"{key}:")
        for inner, inner_value in value.items():
            _print_line("  ", inner, inner_value, config.origins[f"{key}.{inner}"])
    if stores:
        typer.echo("stores:")
    for name, store in stores.items():
        given = {key: value for key, value in store.items() if value}
        _print_line("  ", name, given, config.origins[f"stores.{name}"])
    if models:
        typer.echo("models:")
    for name, entry in models.items():
        keys = "" if entry else " {}"
        typer.echo(f"  {_as_yaml(name)}:{keys}  # {config.origins[f'models.{name}']}")
        for key, value in entry.items():
            if key == "sources":
                typer.echo("    sources:")
                for source in value:
                    typer.echo(f"      - {_as_yaml(source)}")
            else:
                typer.echo(f"    {key}: {_as_yaml(value)}")
    if not every:
        typer.echo("# all else has its default: `emberd config show --all`")


def _what_differs(
    config: "Config", values: dict[str, Any], models: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Leave out the settings that nobody made, and what an entry has from the built-in one."""
    from emberd.config.load import built_in_catalog
    from emberd.config.readable import entry_defaults, write_entry

    made: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(value, dict):
            if config.origins[key] != "default":
                made[key] = value
            continue
        inner = {k: v for k, v in value.items() if config.origins[f"{key}.{k}"] != "default"}
        if inner:
            made[key] = inner
    built_in = {spec.name: write_entry(spec) for spec in built_in_catalog()}
    own = {
        name: {
            key: value
            for key, value in entry.items()
            if (key, value) not in built_in.get(name, entry_defaults()).items()
        }
        for name, entry in models.items()
        if config.origins[f"models.{name}"] != "built in"
    }
    return made, own


def _print_line(indent: str, key: str, value: object, origin: str) -> None:
    typer.echo(f"{indent}{key}: {_as_yaml(value)}".ljust(36) + f"  # {origin}")


def _as_yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    import yaml

    def dump(style: str | None) -> str:
        text: str = yaml.safe_dump(
            value, default_style=style, default_flow_style=True,
            sort_keys=False, allow_unicode=True, width=math.inf,
        )  # fmt: skip
        return text.removesuffix("...\n").strip()

    text = dump(None)
    return text if "\n" not in text else dump('"')  # a line break in a prompt
