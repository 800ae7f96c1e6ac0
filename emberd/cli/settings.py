"""`emberd config show | path | check | init | diff` and `reload`: what is set, and where."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root
from emberd.files import is_gone

if TYPE_CHECKING:
    from emberd.client.clients import Client

app = typer.Typer(no_args_is_help=True, help="Show, check or create the config file.")

EFFECTS = {
    "at_once": "at once",
    "next_request": "from the next request",
    "model_restarts": "the model restarts; requests in progress finish with the old one",
    "model_leaves": "the model is unloaded once it has answered the requests it has",
    "needs_restart": "only after emberd restarts",
}


@app.command()
def path(ctx: typer.Context) -> None:
    """Print where the config file is, or would be."""
    from emberd.config.paths import find_homes

    root: Root = ctx.obj
    typer.echo(str(find_homes(config=root.config_file).config))


@app.command()
def check(ctx: typer.Context) -> None:
    """Check the config file, and say where a mistake is.

    Exit code 1: there is one.
    """
    from emberd.doctor import entries

    root: Root = ctx.obj
    config = root.load()
    notes = entries.check_models(config)
    entries.check_stores(config)
    for note in notes:
        typer.echo(f"Note: {note}")
    missing = (
        " (does not exist; every setting has its default)" if is_gone(config.homes.config) else ""
    )
    count = len(list(config.catalog))
    typer.echo(f"{config.homes.config}{missing}: no mistakes; {count} models.")


@app.command()
def diff(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what a reload would change in the running server."""
    from emberd.client import requests

    root: Root = ctx.obj
    server = root.require_server()
    _require_named_file(root, server)
    answer = server.send(requests.preview_reload())
    _show_changes(answer, "A reload would not change anything.", as_json=as_json)


def reload(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Have the running server read its config file again.

    The server also does this by itself within seconds of a change. This command waits for it, and
    prints what changed or what is wrong.
    """
    from emberd.client import requests

    root: Root = ctx.obj
    server = root.require_server()
    _require_named_file(root, server)
    answer = server.send(requests.reload())
    _show_changes(answer, "Nothing changed.", as_json=as_json)


def _require_named_file(root: Root, server: "Client") -> None:
    """Raise `ConfigError` when `--config` names a file that the server does not read."""
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
    print_only: Annotated[
        bool, typer.Option("--print", help="Print it instead of writing it.")
    ] = False,
) -> None:
    """Write a config file with comments, to edit.

    An existing file is never overwritten.
    """
    from emberd.config import starter
    from emberd.config.paths import find_homes

    if print_only:
        typer.echo(starter.read(), nl=False)
        return
    root: Root = ctx.obj
    file = find_homes(config=root.config_file).config
    starter.write(file)
    typer.echo(f"Wrote {file}.")


@app.command()
def show(
    ctx: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", help="Also show settings that have their default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what is set, and where.

    The output is itself a valid config file.
    """
    from emberd.config import dump

    root: Root = ctx.obj
    config = root.load()
    shown = dump.dump(config) if every else dump.dump_what_was_set(config)
    if as_json:
        content = {
            **shown.settings, "stores": shown.stores, "models": shown.models,
            "origins": config.origins,
        }  # fmt: skip
        typer.echo(json.dumps(content, default=str))
        return
    typer.echo(f"# {config.homes.config}")
    for line in (
        *_lines_of_settings(shown.settings, config.origins),
        *_lines_of_stores(shown.stores, config.origins),
        *_lines_of_models(shown.models, config.origins),
    ):
        typer.echo(line)
    if not every:
        typer.echo("# all other settings have their defaults: `emberd config show --all`")


def _lines_of_settings(settings: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    for key, value in settings.items():
        if not isinstance(value, dict):
            yield _line("", key, value, origins[key])
            continue
        if value:
            yield f"{key}:"
        for inner, inner_value in value.items():
            yield _line("  ", inner, inner_value, origins[f"{key}.{inner}"])


def _lines_of_stores(
    stores: Mapping[str, dict[str, Any]], origins: Mapping[str, str]
) -> Iterator[str]:
    if stores:
        yield "stores:"
    for name, store in stores.items():
        given = {key: value for key, value in store.items() if value}
        yield _line("  ", name, given, origins[f"stores.{name}"])


def _lines_of_models(
    models: Mapping[str, dict[str, Any]], origins: Mapping[str, str]
) -> Iterator[str]:
    if models:
        yield "models:"
    for name, entry in models.items():
        keys = "" if entry else " {}"
        yield f"  {_as_yaml(name)}:{keys}  # {origins[f'models.{name}']}"
        for key, value in entry.items():
            if key == "sources":
                yield "    sources:"
                yield from (f"      - {_as_yaml(source)}" for source in value)
            else:
                yield f"    {key}: {_as_yaml(value)}"


def _line(indent: str, key: str, value: object, origin: str) -> str:
    return f"{indent}{_as_yaml(key)}: {_as_yaml(value)}".ljust(36) + f"  # {origin}"


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
