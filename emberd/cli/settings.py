"""`emberd config show | path | check | init`: what is set, where it comes from, a file to begin."""

import json
import math
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from emberd.cli.context import AsJson, Root
from emberd.errors import ConfigError
from emberd.units import format_duration, format_exact_size

app = typer.Typer(no_args_is_help=True, help="Look at the configuration, or begin one.")

STARTER = """\
# emberd's configuration. Every key has a default; delete what you do not change.
# `emberd config show` prints what is in force and where it comes from.

default: minilm            # the model for who names none

server:
  host: 127.0.0.1
  port: 8767

limits:
  idle_unload: 15m         # a model that nobody asked for so long gives its memory back
  max_loaded: 3            # models in memory at once
  memory_budget: 4GiB      # for all of them

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
    """Read the configuration; exit code 1 and the place of the mistake when it is wrong."""
    root: Root = ctx.obj
    config = root.load()
    found = "" if config.homes.config.exists() else " (there is no such file: all defaults)"
    count = len(list(config.catalog))
    typer.echo(f"{config.homes.config}{found}: in order; {count} models.")


@app.command()
def init(
    ctx: typer.Context,
    print_only: Annotated[bool, typer.Option("--print", help="Print it, write nothing.")] = False,
) -> None:
    """Write a commented config file to begin with; never over one that exists."""
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
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print every setting in force and where it comes from; itself a config file."""
    root: Root = ctx.obj
    config = root.load()
    values = _readable(asdict(config.settings))
    models = {spec.name: _entry(spec) for spec in config.catalog}
    if as_json:
        content = {**values, "models": models, "origins": config.origins}
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
    typer.echo("models:")
    for name, entry in models.items():
        typer.echo(f"  {_as_yaml(name)}:  # {config.origins[f'models.{name}']}")
        typer.echo("    sources:")
        for source in entry.pop("sources"):
            typer.echo(f"      - {_as_yaml(source)}")
        for key, value in entry.items():
            typer.echo(f"    {key}: {_as_yaml(value)}")


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


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """Write sizes and durations as people do, tuples as lists."""
    shown: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            shown[key] = _readable(value)
        elif key in ("memory_budget", "max_body"):
            shown[key] = format_exact_size(value)
        elif key in ("idle_unload", "request_timeout"):
            shown[key] = format_duration(value)
        else:
            shown[key] = list(value) if isinstance(value, tuple) else value
    return shown


def _entry(spec: object) -> dict[str, Any]:
    """Return a model's entry as one would write it; its name is the key above it."""
    assert is_dataclass(spec) and not isinstance(spec, type)  # a ModelSpec
    entry = asdict(spec)
    del entry["name"]
    entry["sources"] = [
        {key: value for key, value in source.items() if value is not None}
        for source in entry["sources"]
    ]
    if entry["idle_unload"] is not None:
        entry["idle_unload"] = format_duration(entry["idle_unload"])
    return {key: list(v) if isinstance(v, tuple) else v for key, v in entry.items()}
