"""What every command shares: the options given before it, and `--json`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emberd.config.document import Keys
    from emberd.config.load import Config

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


@dataclass(frozen=True, slots=True)
class Root:
    """The options given before the command; a command's `ctx.obj`."""

    config_file: Path | None

    def load(self, flags: "Mapping[Keys, Any] | None" = None) -> "Config":
        """Read the configuration; its warnings go to stderr."""
        from emberd.config.load import load_config

        config = load_config(config=self.config_file, flags=flags)
        for warning in config.warnings:
            typer.secho(f"warning: {warning}", fg="yellow", err=True)
        return config
