"""What every command shares: the options before it, `--json`, and how errors are printed."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.config.paths import without_password
from emberd.errors import ConfigError, EmberdError
from emberd.interrupts import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberd.client.address import Address
    from emberd.client.clients import Client
    from emberd.config.document import Keys
    from emberd.config.load import Config

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the models whose names start with this; none if the config is broken."""
    config = _config_to_complete(ctx)
    if config is None:
        return []
    return [
        (spec.name, f"{spec.dimensions} dimensions, {spec.precision}")
        for spec in config.catalog
        if spec.name.startswith(incomplete)
    ]


ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Name or alias, also with a role (bge-small:query); the default model if left out.",
        autocompletion=complete_model,
    ),
]


def complete_store(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the configured stores whose names start with this; if none do, the shell has files."""
    config = _config_to_complete(ctx)
    stores = config.settings.stores.items() if config else ()
    return [
        (name, without_password(store.path))
        for name, store in stores
        if name.startswith(incomplete)
    ]


def _config_to_complete(ctx: typer.Context) -> "Config | None":
    try:
        return Root(ctx.find_root().params.get("config")).read()
    except EmberdError:
        return None


@dataclass(frozen=True, slots=True)
class Root:
    """The options given before the command; a command's `ctx.obj`."""

    config_file: Path | None

    def read(self, flags: "Mapping[Keys, Any] | None" = None) -> "Config":
        """Read the configuration: flag > environment > file > default."""
        from emberd.config.load import load_config

        return load_config(config=self.config_file, flags=flags)

    def load(self, flags: "Mapping[Keys, Any] | None" = None) -> "Config":
        """Read the configuration; its warnings go to stderr."""
        config = self.read(flags)
        for warning in config.warnings:
            print_warning(warning)
        return config

    def find_address(self) -> "Address | None":
        """Return where the running server is, even if the config file is broken.

        Raises:
            ConfigError: the file is broken, and no server recorded where it listens.
        """
        from emberd.client import finding
        from emberd.config.paths import find_homes
        from emberd.config.tokens import token_of_environment

        try:
            return finding.find_address(self.load())
        except ConfigError:
            state = find_homes(config=self.config_file).state
            noted = finding.find_noted_address(state, token_of_environment())
            if noted is None:
                raise
            return noted

    def find_server(self) -> "Client | None":
        """Return a client of the running server; raises as `find_address`."""
        from emberd.client import clients

        address = self.find_address()
        return clients.at(address) if address else None

    def require_server(self) -> "Client":
        """Return the running server, or raise `NoServerError`."""
        from emberd.client import finding

        return finding.require(self.find_server())


errors_as_json = False
"""Whether stderr is for programs too: each message there is one line of JSON."""


def print_error(error: EmberdError) -> None:
    """Write what happened, and what to do, to stderr."""
    print_problem(error.code, error.message, error.hint)


def print_problem(code: str, message: str, hint: str | None = None) -> None:
    """Write what went wrong to stderr; as JSON it has the shape of the native API's errors."""
    if errors_as_json:
        typer.echo(json.dumps({"detail": message, "code": code, "hint": hint}), err=True)
        return
    typer.secho("error: ", fg="red", err=True, nl=False)
    typer.echo(message, err=True)
    if hint:
        typer.secho("hint: ", fg="cyan", err=True, nl=False)
        typer.echo(hint, err=True)


def print_warning(text: str) -> None:
    """Write to stderr a problem that does not stop the command."""
    if errors_as_json:
        typer.echo(json.dumps({"warning": text}), err=True)
    else:
        typer.secho(f"warning: {text}", fg="yellow", err=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Say at Ctrl-C that the same command continues where this one stopped."""
    try:
        yield
    except BaseException as error:
        if not is_interrupt(error):
            raise
        again = shlex.join(["emberd", *sys.argv[1:]])
        if errors_as_json:
            print_problem("stopped", "Stopped by Ctrl-C.", f"To continue, run it again: {again}")
        else:
            typer.echo(f"Stopped. Run the same command to continue from here:\n  {again}", err=True)
        raise KeyboardInterrupt from None
