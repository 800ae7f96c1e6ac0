"""What every command shares: the options given before it, `--json`, and how an error looks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberd.cli.client import Client
    from emberd.config.document import Keys
    from emberd.config.load import Config
    from emberd.errors import EmberdError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


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
            typer.secho(f"warning: {warning}", fg="yellow", err=True)
        return config

    def find_server(self) -> "Client | None":
        """Return the running server, also when the config file is broken: it has an older state.

        Raises:
            ConfigError: no server noted itself, and the configuration cannot say where one may be.
        """
        from emberd.cli import client
        from emberd.config.paths import find_homes
        from emberd.config.tokens import token_of_environment

        try:
            return client.find(self.load())
        except ConfigError:
            state = find_homes(config=self.config_file).state
            noted = client.find_noted(state, token_of_environment())
            if noted is None:
                raise
            return noted

    def require_server(self) -> "Client":
        """Return the running server, or raise `NoServerError`."""
        from emberd.cli import client

        return client.require(self.find_server())


def print_error(error: "EmberdError") -> None:
    """Write what happened, and what to do, to stderr."""
    typer.secho("error: ", fg="red", err=True, nl=False)
    typer.echo(error.message, err=True)
    if error.hint:
        typer.secho("hint: ", fg="cyan", err=True, nl=False)
        typer.echo(error.hint, err=True)
