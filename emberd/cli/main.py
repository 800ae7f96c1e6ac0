"""The command line: parse, call, print. All failures are printed here and only here.

Commands import what they need when they run, so that each starts fast.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from emberd import __version__
from emberd.cli import embed, models, serve, server, settings, verify
from emberd.cli.context import Root
from emberd.errors import EmberdError

app = typer.Typer(
    name="emberd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(models.pull)
app.command("list")(models.list_models)
app.command()(models.remove)
app.command()(server.ps)
app.command()(embed.embed)
app.command()(server.load)
app.command()(server.unload)
app.command()(verify.verify)
app.add_typer(settings.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emberd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="Use this config file.", show_default=False)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """A local embedding server: many models, one registry, memory really given back."""
    del version  # its callback did the work
    ctx.obj = Root(config)


def main() -> None:
    """Run the command line; turn any `EmberdError` into two lines on stderr and exit code 1."""
    try:
        app()
    except EmberdError as error:
        typer.secho("error: ", fg="red", err=True, nl=False)
        typer.echo(error.message, err=True)
        if error.hint:
            typer.secho("hint: ", fg="cyan", err=True, nl=False)
            typer.echo(error.hint, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
